package main

import (
	"context"
	"crypto/tls"
	"fmt"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
	"github.com/ai-storage/orchestrator/pkg/server/admission"
	"github.com/ai-storage/orchestrator/pkg/server/dashboard"
	"github.com/ai-storage/orchestrator/pkg/server/restapi"
	"github.com/ai-storage/orchestrator/pkg/server/restapi/auth"
)

// serviceName is the Service of the HTTP API and of the metrics.
const serviceName = "ai-storage-rebalancer"

// serviceNames are those by which the API is reached in the cluster, and through
// kubectl port-forward.
func serviceNames(namespace string) []string {
	inNamespace := serviceName + "." + namespace
	return []string{inNamespace + ".svc", inNamespace + ".svc.cluster.local", inNamespace, serviceName, "localhost"}
}

// certificateSource is asked at every TLS handshake.
type certificateSource func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// fileCertificate serves the certificate of the flags and reads it again when its
// files change; nil when no files are named.
func fileCertificate(mgr ctrl.Manager, o *options) (certificateSource, error) {
	if o.tlsCertFile == "" {
		return nil, nil
	}
	watcher, err := certwatcher.New(o.tlsCertFile, o.tlsPrivateKeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading --tls-cert-file and --tls-private-key-file: %w", err)
	}
	if err := mgr.Add(watcher); err != nil {
		return nil, fmt.Errorf("watching --tls-cert-file: %w", err)
	}
	return watcher.GetCertificate, nil
}

// setUpCertificates returns the certificate of API and metrics, and lets the
// manager keep that of the webhook, which stands in for it.
func setUpCertificates(mgr ctrl.Manager, o *options, webhook admission.Options) (certificateSource, *admission.Certificates, error) {
	source, err := fileCertificate(mgr, o)
	if err != nil || source != nil && o.webhookPort == 0 {
		return source, nil, err
	}
	kept, err := admission.KeepCertificates(mgr, webhook, serviceNames(o.leaderElectionNamespace)...)
	if err != nil {
		return nil, nil, err
	}
	if source == nil {
		source = kept.Get
	}
	return source, kept, nil
}

// setUpAPI adds the HTTP API to a manager.
func setUpAPI(ctx context.Context, mgr ctrl.Manager, o *options, limits *budget.Limits, certificate certificateSource,
	factory informers.SharedInformerFactory, statusStore *rebalance.StatusStore) error {
	kubeClient, err := kubernetes.NewForConfig(mgr.GetConfig())
	if err != nil {
		return err
	}
	measured, err := metricsclient.NewForConfig(mgr.GetConfig())
	if err != nil {
		return err
	}
	authorizer, err := auth.NewAuthorizer(kubeClient)
	if err != nil {
		return err
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.PodMigration{}, restapi.IndexByID, restapi.IDOf); err != nil {
		return fmt.Errorf("indexing migrations by id: %w", err)
	}
	informer, err := mgr.GetCache().GetInformer(ctx, &v1alpha1.PodMigration{})
	if err != nil {
		return fmt.Errorf("watching migrations: %w", err)
	}
	server, err := restapi.New(restapi.Options{
		Address: o.apiBindAddress, Certificate: certificate, Authorizer: authorizer,
		Preflight: migration.NewPreflight(mgr.GetAPIReader(), mgr.GetClient(), migration.Options{Budget: limits, AgentImage: o.nodeAgentImage, PullSecrets: o.pullSecrets}),
		Cached:    mgr.GetClient(), Live: mgr.GetAPIReader(), Writer: mgr.GetClient(), StatusStore: statusStore,
		Nodes: factory.Core().V1().Nodes().Lister(), Pods: factory.Core().V1().Pods().Lister(), Metrics: measured.MetricsV1beta1(),
		// The factory has synced before the manager is started.
		Synced: informer.HasSynced, Page: dashboard.Handler(), Rate: o.apiRate, Burst: o.apiBurst, Registerer: metrics.Registry,
	})
	if err != nil {
		return err
	}
	if err := server.Watch(informer); err != nil {
		return fmt.Errorf("watching migrations: %w", err)
	}
	if err := mgr.AddReadyzCheck("api", server.Ready); err != nil {
		return err
	}
	return mgr.Add(server)
}
