package restapi

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	metricsfake "k8s.io/metrics/pkg/client/clientset/versioned/fake"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/server/restapi/auth"
)

// openAuthorizer knows everybody by the token, and lets them do everything.
type openAuthorizer struct{}

func (openAuthorizer) Identify(r *http.Request) (user.Info, error) {
	token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !found {
		return nil, auth.ErrNoToken
	}
	return &user.DefaultInfo{Name: token}, nil
}

func (openAuthorizer) Allow(context.Context, user.Info, auth.Access) error { return nil }

// willing finds every pod movable.
type willing struct{}

func (willing) Check(_ context.Context, m *v1alpha1.PodMigration) (migration.PreflightResult, error) {
	if m.Spec.PodName == "panic" {
		panic("a bug")
	}
	return migration.PreflightResult{Pod: &corev1.Pod{}}, nil
}

// newServer serves an API without a cluster. The functions may take the place of
// what the API server does.
func newServer(t *testing.T, functions interceptor.Funcs, change func(*Options)) *Server {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	serial := 0
	create := functions.Create
	functions.Create = func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
		if create != nil {
			return create(ctx, c, object, options...)
		}
		serial++
		object.SetUID(types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", serial)))
		return c.Create(ctx, object, options...)
	}
	store := fake.NewClientBuilder().WithScheme(scheme).WithIndex(&v1alpha1.PodMigration{}, IndexByID, IDOf).WithInterceptorFuncs(functions).Build()
	empty := func() cache.Indexer { return cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{}) }
	o := Options{
		Authorizer: openAuthorizer{}, Preflight: willing{}, Cached: store, Live: store, Writer: store,
		StatusStore: &rebalance.StatusStore{Live: store, Namespace: "system"},
		Nodes:       corelisters.NewNodeLister(empty()), Pods: corelisters.NewPodLister(empty()),
		Metrics: metricsfake.NewSimpleClientset().MetricsV1beta1(), Synced: func() bool { return true }, Registerer: prometheus.NewRegistry(),
	}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const goodBody = `{"pod_name":"train","pod_namespace":"ns","source_node":"a","target_node":"b"}`

func (s *Server) send(method, path, body string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(method, path, strings.NewReader(body))
	request.Header.Set("Authorization", "Bearer anna")
	request.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	s.Handler().ServeHTTP(answer, request)
	return answer
}
