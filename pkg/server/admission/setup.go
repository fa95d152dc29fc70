package admission

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/source"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Path is where the webhook is served.
const Path = "/mutate-pods"

// Defaults of Options, as in manifests/base/webhook.yaml.
const (
	DefaultConfigurationName = "ai-storage-rebalancer"
	DefaultSecretName        = "ai-storage-rebalancer-webhook"
	DefaultServiceName       = "ai-storage-rebalancer-webhook"
	DefaultPort              = 9443
)

// Options of the webhook. Namespace is required.
type Options struct {
	// Namespace of the Secret and of the Service.
	Namespace string
	// ConfigurationName is the MutatingWebhookConfiguration to keep in step.
	ConfigurationName string
	// SecretName is the Secret with the certificates. It is created when missing.
	SecretName string
	// ServiceName is the Service by which the API server reaches the webhook.
	ServiceName string
	// URL is where the API server reaches it instead, without a path, when the
	// rebalancer runs outside of the cluster: https://localhost:9443. The host
	// has to be a name: the certificates hold no addresses.
	URL string
	// Host and Port to listen on; an empty host listens on all addresses.
	Host string
	Port int
	// AgentImage is the image of the node agent, whose gate holds a replacement
	// back until its state is restored.
	AgentImage string
	// PullSecrets are the names of Secrets that a replacement with such a gate names
	// beside those of its owner.
	PullSecrets []string
	// Registerer of the metrics; nil registers none.
	Registerer prometheus.Registerer
	// Certificates to serve; nil keeps them as KeepCertificates does.
	Certificates *Certificates
}

// SetupWithManager adds the webhook and its upkeep to a manager whose scheme knows
// Kubernetes and v1alpha1.
func SetupWithManager(mgr ctrl.Manager, o Options) error {
	o = o.withDefaults()
	kept := o.Certificates
	if kept == nil {
		var err error
		if kept, err = KeepCertificates(mgr, o); err != nil {
			return err
		}
	}
	server := webhook.NewServer(webhook.Options{Host: o.Host, Port: o.Port, TLSOpts: []func(*tls.Config){func(c *tls.Config) {
		c.GetCertificate, c.MinVersion = kept.Get, tls.VersionTLS12
	}}})
	server.Register(Path, &admission.Webhook{Handler: NewHandler(mgr.GetAPIReader(), mgr.GetScheme(), o)})
	if err := mgr.Add(server); err != nil {
		return fmt.Errorf("adding the webhook server: %w", err)
	}
	// The Service sends no request to a replica that cannot serve it.
	if err := mgr.AddReadyzCheck("webhook", server.StartedChecker()); err != nil {
		return fmt.Errorf("adding the check of the webhook server: %w", err)
	}
	c := &configurer{live: mgr.GetAPIReader(), writer: mgr.GetClient(), certificates: kept, name: o.ConfigurationName}
	if o.URL != "" {
		c.url = o.URL + Path
	}
	return c.setup(mgr)
}

// KeepCertificates lets a manager keep the Secret of the webhook, with a
// certificate for more names too: those of what else the rebalancer serves.
func KeepCertificates(mgr ctrl.Manager, o Options, names ...string) (*Certificates, error) {
	o = o.withDefaults()
	name, err := o.serverName()
	if err != nil {
		return nil, err
	}
	kept := &Certificates{
		live: mgr.GetAPIReader(), writer: mgr.GetClient(), now: time.Now, names: append([]string{name}, names...),
		secret: types.NamespacedName{Namespace: o.Namespace, Name: o.SecretName},
	}
	if err := mgr.Add(kept); err != nil {
		return nil, fmt.Errorf("adding the certificates of the webhook: %w", err)
	}
	return kept, nil
}

// setup reconciles the configuration once at the start, and on every change of a
// migration.
func (c *configurer) setup(mgr ctrl.Manager) error {
	one := []ctrl.Request{{NamespacedName: types.NamespacedName{Name: c.name}}}
	return ctrl.NewControllerManagedBy(mgr).
		Named("webhook-configuration").
		Watches(&v1alpha1.PodMigration{}, handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []ctrl.Request { return one })).
		WatchesRawSource(once(one[0])).
		Complete(c)
}

func (o Options) withDefaults() Options {
	o.ConfigurationName = cmp.Or(o.ConfigurationName, DefaultConfigurationName)
	o.SecretName = cmp.Or(o.SecretName, DefaultSecretName)
	o.ServiceName = cmp.Or(o.ServiceName, DefaultServiceName)
	o.Port = cmp.Or(o.Port, DefaultPort)
	return o
}

// serverName is the name that the API server looks for in the certificate.
func (o Options) serverName() (string, error) {
	if o.Namespace == "" {
		return "", errors.New("the namespace of the webhook is not set")
	}
	if o.URL == "" {
		return o.ServiceName + "." + o.Namespace + ".svc", nil
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		return "", fmt.Errorf("reading the URL of the webhook: %w", err)
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil || u.Scheme != "https" || u.Hostname() == "" || u.Path != "" {
		return "", fmt.Errorf("the URL of the webhook has to be https://<name>:<port>, with a name and no address: %q", o.URL)
	}
	return u.Hostname(), nil
}

// once is a source of one request, at the start.
func once(request ctrl.Request) source.Source {
	return source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[ctrl.Request]) error {
		queue.Add(request)
		return nil
	})
}
