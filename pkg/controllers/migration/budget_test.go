package migration

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
)

// cluster is an API server that counts what is listed from it.
func cluster(t *testing.T, lists *int, objects ...client.Object) client.WithWatch {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, policyv1.AddToScheme, storagev1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&v1alpha1.PodMigration{}).
		WithIndex(&v1alpha1.PodMigration{}, placeIndex, placeKeys).
		WithInterceptorFuncs(interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			*lists++
			return c.List(ctx, list, options...)
		}}).Build()
}

// waiting is a migration that has to wait for a place.
func waiting() *v1alpha1.PodMigration {
	return with(in(v1alpha1.PhasePending), v1alpha1.ConditionAccepted, metav1.ConditionFalse, decide.ReasonWaitingForBudget)
}

// holding is a migration of another pod that has a place.
func holding() *v1alpha1.PodMigration {
	m := with(in(v1alpha1.PhasePlacing), v1alpha1.ConditionAccepted, metav1.ConditionTrue, decide.ReasonAccepted)
	m.Name, m.UID, m.Spec.PodName = "other", "other", "other"
	return m
}

func TestWaitingForTheBudget(t *testing.T) {
	one := budget.Limits{InFlight: 1, PerNode: 9, PerNamespace: 9, PerWorkload: 9}
	onePerNode := budget.Limits{InFlight: 9, PerNode: 1, PerNamespace: 9, PerWorkload: 9}
	full, empty := []client.Object{holding()}, []client.Object(nil)
	tests := []struct {
		name         string
		limits       budget.Limits
		cached, live []client.Object
		change       func(*v1alpha1.PodMigration)
		accepted     bool
		listed       bool
	}{
		{"full: nothing is listed", one, full, full, nil, false, false},
		{"the source node is full, and the request does not name it", onePerNode, full, full, nil, false, false},
		{"full, cancelled", one, full, full, func(m *v1alpha1.PodMigration) { m.Spec.Cancel = true }, false, true},
		{"full, the pod is gone", one, full, full, func(m *v1alpha1.PodMigration) { m.Spec.PodName = "gone" }, false, true},
		{"full, but not for the cache", one, empty, full, nil, false, true},
		{"full only for the cache: asked again later", one, full, empty, nil, false, false},
		{"not full", one, empty, empty, nil, true, true},
		{"new", one, full, full, func(m *v1alpha1.PodMigration) { m.Status.Conditions = nil }, false, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := waiting()
			if test.change != nil {
				test.change(m)
			}
			var fromCache, lists int
			pod := originalPod()
			cached := cluster(t, &fromCache, append(test.cached, m.DeepCopy(), pod)...)
			live := cluster(t, &lists, append(test.live, m.DeepCopy(), pod)...)
			r := &reconciler{client: cached, live: live, recorder: &events.FakeRecorder{}, clock: clocktesting.NewFakePassiveClock(t0), counted: NewMetrics(nil, nil),
				admission: &admission{live: live, cached: cached, limits: test.limits}}
			result, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(m)})
			if err != nil || result.RequeueAfter == 0 {
				t.Errorf("result %v, error %v, want one that looks again", result, err)
			}
			if (lists > 0) != test.listed {
				t.Errorf("%d listings of the API server, want some: %t", lists, test.listed)
			}
			after := &v1alpha1.PodMigration{}
			if err := cached.Get(t.Context(), client.ObjectKeyFromObject(m), after); err != nil {
				t.Fatal(err)
			}
			if got := meta.IsStatusConditionTrue(after.Status.Conditions, v1alpha1.ConditionAccepted); got != test.accepted {
				t.Errorf("accepted: %t (%s), want %t", got, fmt.Sprint(after.Status.Conditions), test.accepted)
			}
		})
	}
}
