package integration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
)

// samples serves measurements of pods, new at every moment.
type samples struct {
	metricsclient.PodMetricsInterface
	none bool
}

func (s samples) PodMetricses(string) metricsclient.PodMetricsInterface { return s }

func (s samples) Get(_ context.Context, name string, _ metav1.GetOptions) (*metricsv1beta1.PodMetrics, error) {
	if s.none {
		return nil, apierrors.NewNotFound(metricsv1beta1.Resource("pods"), name)
	}
	return &metricsv1beta1.PodMetrics{
		Timestamp: metav1.NewTime(time.Now().Add(time.Second)), Window: metav1.Duration{Duration: time.Second},
		Containers: []metricsv1beta1.ContainerMetrics{
			{Name: "serve", Usage: fixture.Amounts("300m", "20Mi")},
			{Name: "log", Usage: fixture.Amounts("100m", "10Mi")},
		},
	}, nil
}

var errKilled = errors.New("the controller was killed by the test")

// crashAt runs a controller that is killed when it reaches a step. Whether the
// status is written while it only waits depends on how fast the world is: a
// step of that kind may not come before the migration has ended. No crash is no
// proof: the test is skipped then, which .ci/run knows of these steps only.
func (w *world) crashAt(step string, o migration.Options) {
	w.t.Helper()
	var dead atomic.Bool
	o.OnStep = func(_ types.NamespacedName, at string) error {
		if at == step {
			dead.Store(true)
		}
		if dead.Load() {
			return errKilled
		}
		return nil
	}
	stop := w.controller(o)
	mayNotCome := slices.ContainsFunc([]v1alpha1.Step{decide.RemoveLeftovers, decide.PlaceReplacement, decide.StartReplacement, decide.AwaitReady, decide.AwaitOriginalGone, decide.AwaitTakeover},
		func(s v1alpha1.Step) bool { return step == "step "+string(s) })
	eventually(w.t, 30*time.Second, func(ctx context.Context) error {
		m := &v1alpha1.PodMigration{}
		w.must(k8s.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: "m"}, m))
		if dead.Load() || mayNotCome && m.Status.Phase.IsFinished() {
			return nil
		}
		return fmt.Errorf("the controller never came to %q", step)
	})
	stop()
	if !dead.Load() {
		w.t.Skipf("the migration ended without coming to %q: nothing was killed", step)
	}
}

// controller runs the migration controller for one namespace, with the rights
// of its service account, until the test ends or stop is called.
func (w *world) controller(o migration.Options) (stop func()) {
	w.t.Helper()
	if o.Metrics == nil {
		o.Metrics = samples{}
	}
	// Nothing probes the pods of these tests, which are Ready when the test says so.
	o.Settling = cmp.Or(o.Settling, time.Millisecond)
	mgr, err := ctrl.NewManager(rebalancerConfig(w.t), ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		Controller: controllers,
		Cache:      cache.Options{DefaultNamespaces: map[string]cache.Config{w.namespace: {}}},
	})
	w.must(err)
	w.must(migration.SetupWithManager(mgr, o))
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.t.Errorf("the manager ended with: %v", err)
			}
		})
	}
	w.t.Cleanup(stop)
	return stop
}

var applyRBAC sync.Once

// rebalancerConfig acts as the rebalancer's service account, so that a right
// that is missing in the manifests fails here.
func rebalancerConfig(t *testing.T) *rest.Config {
	t.Helper()
	applyRBAC.Do(func() {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ai-storage-system"}}
		if err := k8s.Create(t.Context(), ns); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		for _, object := range readManifests(t, "base/rebalancer-rbac.yaml") {
			if err := k8s.Create(t.Context(), object); err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatalf("applying %s %s: %v", object.GetKind(), object.GetName(), err)
			}
		}
	})
	c := rest.CopyConfig(restConfig)
	c.Impersonate = rest.ImpersonationConfig{
		UserName: rebalancerAccount,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:ai-storage-system", "system:authenticated"},
	}
	return c
}
