package migration

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
)

// placeIndex finds, in the cache, the migrations that hold a place in the budget.
const (
	placeIndex = "place"
	placeHeld  = "held"
)

func placeKeys(object client.Object) []string {
	if budget.HoldsPlace(object.(*v1alpha1.PodMigration)) {
		return []string{placeHeld}
	}
	return nil
}

// admission decides how much may be disrupted at once.
type admission struct {
	// live has no cache: who is admitted is counted exactly.
	live client.Reader
	// cached may be a moment behind. A thousand migrations that wait for their
	// turn are answered by it, without a thousand listings of them all.
	cached client.Reader
	limits budget.Limits
}

// admit returns why the migration of a pod may not start now; "" when it may.
// Calls come one at a time, and an acceptance is in the API before the next call.
func (a *admission) admit(ctx context.Context, m *v1alpha1.PodMigration, pod *corev1.Pod) (string, error) {
	held := &v1alpha1.PodMigrationList{}
	if err := a.live.List(ctx, held); err != nil {
		return "", fmt.Errorf("counting migrations in flight: %w", err)
	}
	return a.check(m, pod, held.Items), nil
}

// looksFull returns why the migration of a pod has to wait, by the cache. ""
// means only that it is time to ask admit.
func (a *admission) looksFull(ctx context.Context, m *v1alpha1.PodMigration, pod *corev1.Pod) (string, error) {
	held := &v1alpha1.PodMigrationList{}
	if err := a.cached.List(ctx, held, client.MatchingFields{placeIndex: placeHeld}); err != nil {
		return "", fmt.Errorf("counting migrations in flight in the cache: %w", err)
	}
	return a.check(m, pod, held.Items), nil
}

// check counts every migration that holds a place, of all namespaces.
func (a *admission) check(m *v1alpha1.PodMigration, pod *corev1.Pod, migrations []v1alpha1.PodMigration) string {
	ledger := budget.NewLedger(a.limits)
	for i := range migrations {
		if other := &migrations[i]; other.UID != m.UID && budget.HoldsPlace(other) {
			ledger.Add(budget.MoveOf(other))
		}
	}
	move := budget.MoveOf(m)
	// The request need not name the source.
	move.From = pod.Spec.NodeName
	move.Workload = budget.WorkloadOf(pod.Namespace, pod.Name, metav1.GetControllerOf(pod))
	return ledger.Check(move)
}
