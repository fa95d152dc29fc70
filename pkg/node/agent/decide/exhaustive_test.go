package decide

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// everyState calls visit with every combination of what the source decides from.
func everyState(visit func(m *v1alpha1.PodMigration, o Original)) {
	conditions := []string{v1alpha1.ConditionSealed, v1alpha1.ConditionReleased, v1alpha1.ConditionRolledBack, v1alpha1.ConditionCommitted}
	for _, step := range []v1alpha1.CheckpointStep{"", v1alpha1.StepMeasure, v1alpha1.StepCopy, v1alpha1.StepSeal, v1alpha1.StepRelease, v1alpha1.StepAbort} {
		for _, reported := range []v1alpha1.SourcePhase{"", v1alpha1.SourceMeasured, v1alpha1.SourceCopying, v1alpha1.SourceCopied, v1alpha1.SourceSealing, v1alpha1.SourceSealed, v1alpha1.SourceThawed, v1alpha1.SourceFailed} {
			for _, phase := range []v1alpha1.Phase{v1alpha1.PhaseHandingOver, v1alpha1.PhaseSucceeded, v1alpha1.PhaseFailed, v1alpha1.PhaseCancelled} {
				for bits := range 1 << 7 {
					m := ended(fixture.Moving(step, reported), phase)
					for i, condition := range conditions {
						if bits>>i&1 == 1 {
							m = with(m, condition, metav1.ConditionTrue)
						}
					}
					for attempt := range int32(3) {
						visit(m, Original{FrozenIn: attempt, IsLeaving: bits>>4&1 == 1, IsDisturbed: bits>>5&1 == 1, IsOverdue: bits>>6&1 == 1, IsIntroduced: true})
					}
				}
			}
		}
	}
}

// Whatever was reported and whatever happened: a frozen original does not run beside a
// replacement that was released, unless a rollback says that it is gone.
func TestNothingThawsAnOriginalWhoseReplacementMayRun(t *testing.T) {
	states := 0
	everyState(func(m *v1alpha1.PodMigration, o Original) {
		if o.FrozenIn == 0 || !IsReleased(m) || isRolledBack(m) {
			return
		}
		states++
		switch task := SourceTask(m, o); task {
		case TaskKill:
			if !o.IsLeaving && m.Status.Phase != v1alpha1.PhaseSucceeded {
				t.Errorf("%+v in step %q, phase %s: killed, and its kubelet would start it again", o, m.Status.Checkpoint.Step, m.Status.Phase)
			}
		case TaskKeepFrozen, TaskKillAndHold, TaskStrand:
		default:
			t.Errorf("%+v in step %q, phase %s: %q", o, m.Status.Checkpoint.Step, m.Status.Phase, task)
		}
	})
	if states == 0 {
		t.Error("no state was looked at")
	}
}

// A seal that the controller may accept at any moment is void before the pod runs.
func TestASealIsVoidBeforeThePodRuns(t *testing.T) {
	everyState(func(m *v1alpha1.PodMigration, o Original) {
		c := m.Status.Checkpoint
		mayBeAccepted := c.Step == v1alpha1.StepSeal && c.Source != nil && c.Source.Phase == v1alpha1.SourceSealed && !m.Status.Phase.IsFinished()
		if task := SourceTask(m, o); mayBeAccepted && o.FrozenIn == c.Attempt && task == TaskThaw {
			t.Errorf("%+v: thawed without a report", o)
		}
	})
}
