package migration

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

func TestMigrationsAreCountedOnceByResultAndReason(t *testing.T) {
	tests := map[string]struct {
		scene  *scene
		phase  v1alpha1.Phase
		reason string
	}{
		"succeeded": {handedOver(), v1alpha1.PhaseSucceeded, ReasonSucceeded},
		"rolled back": {in(v1alpha1.PhasePlacing).set(v1alpha1.ConditionRolledBack, metav1.ConditionTrue, ReasonUnschedulable),
			v1alpha1.PhaseFailed, ReasonUnschedulable},
		"rejected": {in("").set(v1alpha1.ConditionAccepted, metav1.ConditionFalse, ReasonPodNotFound), v1alpha1.PhaseFailed, ReasonPodNotFound},
		"cancelled in the queue": {in(v1alpha1.PhasePending).set(v1alpha1.ConditionAccepted, metav1.ConditionFalse, ReasonWaitingForBudget),
			v1alpha1.PhaseCancelled, ReasonCancelled},
		"lost": {handedOver().set(v1alpha1.ConditionReplacementReady, metav1.ConditionFalse, ReasonReplacementFailed),
			v1alpha1.PhaseFailed, ReasonReplacementFailed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			counter := migrationsTotal.WithLabelValues(string(test.phase), test.reason)
			before := testutil.ToFloat64(counter)
			after := test.scene.Migration.DeepCopy()
			after.Status.Phase, after.Status.Times.Finished = test.phase, ago(0)
			observePhase(test.scene.Migration, after)
			observePhase(after, after)
			if got := testutil.ToFloat64(counter) - before; got != 1 {
				t.Errorf("counted %v times as %s for %s, want once", got, test.phase, test.reason)
			}
		})
	}
}

func TestTimeInAPhase(t *testing.T) {
	m := in(v1alpha1.PhaseHandingOver).Migration
	if got := t0.Sub(enteredAt(m)); got != 20*time.Second {
		t.Errorf("in the phase for %v, want 20s", got)
	}
}
