package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"time"

	topologyv1alpha2 "github.com/k8stopologyawareschedwg/noderesourcetopology-api/pkg/apis/topology/v1alpha2"
	"k8s.io/apimachinery/pkg/runtime"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/controllers/reclaim"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
	"github.com/ai-storage/orchestrator/pkg/scheduling/observe"
	"github.com/ai-storage/orchestrator/pkg/scheduling/simulation"
	"github.com/ai-storage/orchestrator/pkg/server/admission"
	"github.com/ai-storage/orchestrator/pkg/skew"
	"github.com/ai-storage/orchestrator/pkg/tracing"
)

// informerTimeout bounds the first listing of everything the planner reads. A
// missing right shows as a listing that never ends.
const informerTimeout = 2 * time.Minute

// tracesTimeout bounds the sending of the last traces at the end.
const tracesTimeout = 5 * time.Second

func run(ctx context.Context, o *options) error {
	configuration, err := load.File(o.config)
	if err != nil {
		return err
	}
	if configuration.Rebalance.CheckpointStorageClassName != "" && o.nodeAgentImage == "" && !o.dryRun {
		return errors.New("checkpointStorageClassName is set in RebalanceArgs, and there is no node agent to write checkpoints: set --node-agent-image too, or remove it")
	}
	restConfig, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return fmt.Errorf("reading --kubeconfig %q: %w", o.kubeconfig, err)
	}
	// Ours is one client for many rooms; the API server's own fairness limits it.
	restConfig.QPS = -1
	if err := fitToAPIServer(ctx, restConfig); err != nil {
		return err
	}
	if o.dryRun {
		return dryRun(ctx, o, configuration, restConfig)
	}
	stopTracing, err := tracing.Start(ctx, o.tracingConfigFile, serviceName)
	if err != nil {
		return err
	}
	err = serve(ctx, o, configuration, restConfig)
	lastTraces, cancel := context.WithTimeout(context.WithoutCancel(ctx), tracesTimeout)
	defer cancel()
	return errors.Join(err, stopTracing(lastTraces))
}

// fitToAPIServer keeps the scheduler's filters, which the loop asks, from watching
// what an older API server does not serve.
func fitToAPIServer(ctx context.Context, restConfig *rest.Config) error {
	api, err := discovery.NewDiscoveryClientForConfig(restConfig)
	if err != nil {
		return err
	}
	emulated, err := skew.Ask(ctx, api, utilfeature.DefaultMutableFeatureGate.EmulationVersion())
	if err != nil {
		return err
	}
	if err := utilfeature.DefaultMutableFeatureGate.SetEmulationVersion(emulated.Version); err != nil {
		return fmt.Errorf("behaving as Kubernetes %s: %w", emulated.Version, err)
	}
	return nil
}

func serve(ctx context.Context, o *options, configuration *load.Configuration, restConfig *rest.Config) error {
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	var certificate certificateSource
	mgr, err := newManager(scheme, o, restConfig, func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		// Nobody asks before it is set: the manager has to be there first.
		return certificate(hello)
	})
	if err != nil {
		return err
	}
	limits := rebalance.Limits(configuration.Rebalance)
	migrations := migration.Options{
		Budget: &limits, AgentImage: o.nodeAgentImage, PullSecrets: o.pullSecrets, DropAnnotationPrefixes: o.dropAnnotationPrefixes,
		UnschedulableGrace: o.unschedulableGrace, OnStep: onStep, Registerer: metrics.Registry,
	}
	//nolint:contextcheck // The metrics are collected in a context of their own, when they are scraped.
	if err := migration.SetupWithManager(mgr, migrations); err != nil {
		return fmt.Errorf("setting up the migration controller: %w", err)
	}
	if certificate, err = setUpWebhook(mgr, o); err != nil {
		return err
	}
	loop, factory, err := newLoop(ctx, o, configuration, restConfig, mgr.GetAPIReader())
	if err != nil {
		return err
	}
	if err := setUpReclaim(ctx, mgr, configuration, factory); err != nil {
		return err
	}
	loop.Writer = mgr.GetClient()
	loop.Metrics = rebalance.NewMetrics(metrics.Registry)
	loop.StatusStore = &rebalance.StatusStore{Live: mgr.GetAPIReader(), Writer: mgr.GetClient(), Namespace: o.leaderElectionNamespace}
	if o.apiBindAddress != "0" {
		if err := setUpAPI(ctx, mgr, o, &limits, certificate, factory, loop.StatusStore); err != nil {
			return fmt.Errorf("setting up the HTTP API: %w", err)
		}
	}
	if err := mgr.Add(loop); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

func newManager(scheme *runtime.Scheme, o *options, restConfig *rest.Config, certificate certificateSource) (ctrl.Manager, error) {
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme:                        scheme,
		LeaderElection:                o.leaderElect,
		LeaderElectionID:              "ai-storage-rebalancer",
		LeaderElectionNamespace:       o.leaderElectionNamespace,
		LeaderElectionReleaseOnCancel: true,
		Metrics:                       metricsOptions(o, certificate),
		HealthProbeBindAddress:        o.healthProbeBindAddress,
		// The priority queue of controller-runtime 0.23 can let its workers wait for ever
		// when it ends (kubernetes-sigs/controller-runtime#3538, fixed in 0.25).
		Controller: config.Controller{UsePriorityQueue: new(false)},
	})
	if err != nil {
		return nil, fmt.Errorf("creating the manager: %w", err)
	}
	for _, add := range []func(string, healthz.Checker) error{mgr.AddHealthzCheck, mgr.AddReadyzCheck} {
		if err := add("ping", healthz.Ping); err != nil {
			return nil, err
		}
	}
	return mgr, nil
}

// setUpWebhook adds the admission webhook, and returns the certificate for all
// else that is served.
func setUpWebhook(mgr ctrl.Manager, o *options) (certificateSource, error) {
	webhook := admission.Options{
		Namespace: o.leaderElectionNamespace, URL: o.webhookURL, Host: o.webhookHost, Port: o.webhookPort,
		AgentImage: o.nodeAgentImage, PullSecrets: o.pullSecrets, Registerer: metrics.Registry,
	}
	certificate, kept, err := setUpCertificates(mgr, o, webhook)
	if err != nil {
		return nil, fmt.Errorf("setting up the certificates: %w", err)
	}
	if o.webhookPort == 0 {
		return certificate, nil
	}
	webhook.Certificates = kept
	if err := admission.SetupWithManager(mgr, webhook); err != nil {
		return nil, fmt.Errorf("setting up the admission webhook: %w", err)
	}
	return certificate, nil
}

func metricsOptions(o *options, certificate certificateSource) server.Options {
	served := server.Options{BindAddress: o.metricsBindAddress, SecureServing: o.metricsSecure}
	if o.metricsSecure {
		served.FilterProvider = filters.WithAuthenticationAndAuthorization
		served.TLSOpts = []func(*tls.Config){func(c *tls.Config) { c.GetCertificate, c.MinVersion = certificate, tls.VersionTLS12 }}
	}
	return served
}

func setUpReclaim(ctx context.Context, mgr ctrl.Manager, configuration *load.Configuration, factory informers.SharedInformerFactory) error {
	err := reclaim.SetupWithManager(ctx, mgr, reclaim.Options{
		Pods: factory.Core().V1().Pods(), Enabled: configuration.Rebalance.Reclaim.Enabled,
		SchedulerName: v1alpha1.SchedulerName, Excluded: owners.Excluded, Registerer: metrics.Registry,
	})
	if err != nil {
		return fmt.Errorf("setting up reclaim in place: %w", err)
	}
	return nil
}

// dryRun prints one plan and changes nothing.
func dryRun(ctx context.Context, o *options, configuration *load.Configuration, restConfig *rest.Config) error {
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	live, err := client.New(restConfig, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	loop, _, err := newLoop(ctx, o, configuration, restConfig, live)
	if err != nil {
		return err
	}
	loop.StatusStore = &rebalance.StatusStore{Live: live, Namespace: o.leaderElectionNamespace}
	status, err := loop.DryRun(ctx)
	if err != nil {
		return err
	}
	return rebalance.WriteStatus(os.Stdout, status)
}

// newLoop builds what plans, and waits until its informers, which it returns too,
// have seen the cluster.
func newLoop(ctx context.Context, o *options, configuration *load.Configuration, restConfig *rest.Config, live client.Reader) (*rebalance.Loop, informers.SharedInformerFactory, error) {
	kubeClient, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return nil, nil, err
	}
	metricsAPI, err := metricsclient.NewForConfig(restConfig)
	if err != nil {
		return nil, nil, err
	}
	options, err := rebalance.ObserveOptions(configuration.Rebalance)
	if err != nil {
		return nil, nil, err
	}
	// Whether there are node agents is not asked of who only wants to see a plan.
	options.CarriesState = o.nodeAgentImage != "" || o.dryRun
	factory := informers.NewSharedInformerFactoryWithOptions(kubeClient, 0, informers.WithTransform(observe.Slim))
	simulator, err := simulation.New(ctx, configuration.Scheduler, kubeClient, factory, restConfig)
	if err != nil {
		return nil, nil, fmt.Errorf("setting up the simulation: %w", err)
	}
	observer := observe.NewObserver(factory, live, metricsAPI.MetricsV1beta1(), clock.RealClock{})
	if options := rebalance.PrometheusOptions(configuration.Rebalance); options != nil {
		prometheus, err := observe.NewPrometheus(*options)
		if err != nil {
			return nil, nil, err
		}
		observer.MeasureWith(prometheus)
	}
	if rebalance.Defragments(configuration.Rebalance) {
		observer.FollowTopology()
	}
	loop := &rebalance.Loop{
		Observer:  observer,
		Simulator: simulation.Filters{Simulator: simulator},
		Live:      live,
		Args:      configuration.Rebalance,
		Options:   options,
		Clock:     clock.RealClock{},
	}
	factory.Start(ctx.Done())
	return loop, factory, waitForInformers(ctx, factory)
}

func waitForInformers(ctx context.Context, factory informers.SharedInformerFactory) error {
	waitCtx, cancel := context.WithTimeout(ctx, informerTimeout)
	defer cancel()
	for kind, synced := range factory.WaitForCacheSync(waitCtx.Done()) {
		if !synced {
			if ctx.Err() != nil {
				return errors.New("stopped before the cluster was read")
			}
			return fmt.Errorf("listing %s took longer than %s: see above for a missing right", kind, informerTimeout)
		}
	}
	return nil
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme, topologyv1alpha2.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return scheme, nil
}
