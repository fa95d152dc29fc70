package kubectl

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
)

// session is a cluster, and the namespace in which names are looked up.
type session struct {
	client    client.WithWatch
	namespace string
	// judge says what the controller would do with a request.
	judge *migration.Preflight
}

// Requests per second, as kubectl allows itself.
const (
	clientQPS   = 50
	clientBurst = 300
)

var scheme = newScheme()

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme, metricsv1beta1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err) // two of the lists name the same kind: a mistake in this program
		}
	}
	return s
}

func (c *cli) connectByFlags() (*session, error) {
	config, err := c.flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	config.QPS, config.Burst = clientQPS, clientBurst
	config.WarningHandler = rest.NewWarningWriter(c.ErrOut, rest.WarningWriterOptions{Deduplicate: true})
	namespace, _, err := c.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, fmt.Errorf("reading the namespace of the kubeconfig: %w", err)
	}
	mapper, err := c.flags.ToRESTMapper()
	if err != nil {
		return nil, fmt.Errorf("asking the cluster for its APIs: %w", err)
	}
	api, err := client.NewWithWatch(config, client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		return nil, fmt.Errorf("connecting to the cluster: %w", err)
	}
	return newSession(api, namespace), nil
}

// anyAgentImage stands for the image of the node agent: only the rebalancer knows
// whether there is one, and it judges a request again.
const anyAgentImage = "node-agent"

func newSession(api client.WithWatch, namespace string) *session {
	return &session{client: api, namespace: namespace, judge: migration.NewPreflight(api, api, migration.Options{AgentImage: anyAgentImage})}
}

// key names an object given as NAME or kind/NAME.
func (s *session) key(argument string, kinds ...string) (client.ObjectKey, error) {
	name := argument
	if kind, rest, given := strings.Cut(argument, "/"); given {
		name = rest
		known := false
		for _, k := range kinds {
			known = known || strings.EqualFold(kind, k)
		}
		if !known {
			return client.ObjectKey{}, usage("%q: expected a name, or %s/NAME", argument, kinds[0])
		}
	}
	if name == "" {
		return client.ObjectKey{}, usage("%q: the name is empty", argument)
	}
	return client.ObjectKey{Namespace: s.namespace, Name: name}, nil
}

var migrationKinds = []string{"podmigration", "podmigrations", "pmig", "podmigration." + v1alpha1.GroupName, "podmigrations." + v1alpha1.GroupName}

func (s *session) migration(ctx context.Context, argument string) (*v1alpha1.PodMigration, error) {
	key, err := s.key(argument, migrationKinds...)
	if err != nil {
		return nil, err
	}
	m := &v1alpha1.PodMigration{}
	return m, s.client.Get(ctx, key, m)
}

// explain adds to an error of the cluster what the user can do about it.
func explain(err error) string {
	if meta.IsNoMatchError(err) && strings.Contains(err.Error(), v1alpha1.GroupName) {
		return fmt.Sprintf("this cluster does not know PodMigrations: apply the manifests of the orchestrator first (%v)", err)
	}
	if request := (*url.Error)(nil); errors.As(err, &request) && !errors.Is(err, context.Canceled) {
		cluster := request.URL
		if at, err := url.Parse(request.URL); err == nil {
			cluster = at.Scheme + "://" + at.Host
		}
		return fmt.Sprintf("the cluster at %s cannot be reached: %v. Does the kubeconfig name the right one?", cluster, request.Err)
	}
	return err.Error()
}

// serves reports whether the cluster knows a kind.
func (s *session) serves(kind schema.GroupVersionKind) (bool, error) {
	_, err := s.client.RESTMapper().RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		return false, nil
	}
	return err == nil, err
}
