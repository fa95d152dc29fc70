package decide

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// moving is a migration in a step, with what the source has reported.
func moving(step v1alpha1.CheckpointStep, phase v1alpha1.SourcePhase) *v1alpha1.PodMigration {
	m := &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "m", UID: "11111111-1111-1111-1111-111111111111"},
		Status: v1alpha1.PodMigrationStatus{
			Phase:       v1alpha1.PhaseHandingOver,
			Original:    &v1alpha1.PodReference{Name: "train", UID: "original", NodeName: "a"},
			Replacement: &v1alpha1.PodReference{Name: "train-r", UID: "replacement", NodeName: "b"},
			Checkpoint: &v1alpha1.CheckpointStatus{
				Mode: v1alpha1.CheckpointFrozen, Volumes: []string{"work"}, Attempt: 2, Step: step,
				Carrier: &v1alpha1.PodReference{Name: "carrier", UID: "carrier", NodeName: "a"},
			},
		},
	}
	if phase != "" {
		m.Status.Checkpoint.Source = &v1alpha1.SourceReport{Node: "a", Attempt: 2, Phase: phase, Pass: 3, ManifestDigest: "sha256:x"}
	}
	return m
}

func reported(m *v1alpha1.PodMigration, phase v1alpha1.DestinationPhase) *v1alpha1.PodMigration {
	m.Status.Checkpoint.Destination = &v1alpha1.DestinationReport{Node: "b", Attempt: 2, Phase: phase, PodUID: "replacement", Pass: 3}
	return m
}

func with(m *v1alpha1.PodMigration, condition string, status metav1.ConditionStatus) *v1alpha1.PodMigration {
	meta.SetStatusCondition(&m.Status.Conditions, metav1.Condition{Type: condition, Status: status, Reason: "X"})
	return m
}

func ended(m *v1alpha1.PodMigration, phase v1alpha1.Phase) *v1alpha1.PodMigration {
	m.Status.Phase = phase
	return m
}

func TestSourceTask(t *testing.T) {
	const sealed = v1alpha1.ConditionSealed
	yes, no := metav1.ConditionTrue, metav1.ConditionFalse
	older := moving(v1alpha1.StepCopy, v1alpha1.SourceCopied)
	older.Status.Checkpoint.Source.Attempt = 1
	stateless := moving(v1alpha1.StepSeal, "")
	stateless.Status.Checkpoint.Volumes = nil
	tests := []struct {
		name    string
		m       *v1alpha1.PodMigration
		frozen  int32
		leaving bool
		want    Task
	}{
		{"nothing is carried", stateless, 0, false, TaskNone},
		{"not asked yet", moving("", ""), 0, false, TaskNone},
		{"not asked yet, and frozen", moving("", ""), 2, false, TaskThaw},
		{"measure", moving(v1alpha1.StepMeasure, ""), 0, false, TaskMeasure},
		{"measured", moving(v1alpha1.StepMeasure, v1alpha1.SourceMeasured), 0, false, TaskNone},
		{"copy", moving(v1alpha1.StepCopy, v1alpha1.SourceMeasured), 0, false, TaskCopy},
		{"copy: interrupted", moving(v1alpha1.StepCopy, v1alpha1.SourceCopying), 0, false, TaskCopy},
		{"copy: the report is of an earlier attempt", older, 0, false, TaskCopy},
		{"copied", moving(v1alpha1.StepCopy, v1alpha1.SourceCopied), 0, false, TaskNone},
		{"copy failed", moving(v1alpha1.StepCopy, v1alpha1.SourceFailed), 0, false, TaskNone},
		{"copy while frozen", moving(v1alpha1.StepCopy, ""), 2, false, TaskThaw},
		{"seal", moving(v1alpha1.StepSeal, v1alpha1.SourceCopied), 0, false, TaskSeal},
		{"seal: interrupted", moving(v1alpha1.StepSeal, v1alpha1.SourceCopied), 2, false, TaskSeal},
		{"sealed: stays frozen", moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), 2, false, TaskKeepFrozen},
		{"sealed without freezing", moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), 0, false, TaskNone},
		{"seal failed", moving(v1alpha1.StepSeal, v1alpha1.SourceFailed), 2, false, TaskThaw},
		{"frozen by an earlier attempt", moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), 1, false, TaskThaw},
		{"released: stays frozen", moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), 2, false, TaskKeepFrozen},
		{"released and evicted", with(moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), sealed, yes), 2, true, TaskKill},
		{"deleted by another client before the seal was accepted", with(moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), sealed, no), 2, true, TaskKeepFrozen},
		{"rolled back", moving(v1alpha1.StepAbort, v1alpha1.SourceSealed), 2, false, TaskReportAndThaw},
		{"rolled back and deleted by its user", with(with(moving(v1alpha1.StepAbort, v1alpha1.SourceSealed), sealed, yes), v1alpha1.ConditionRolledBack, no), 2, true, TaskReportAndThaw},
		{"rolled back, said so, not thawed yet", moving(v1alpha1.StepAbort, v1alpha1.SourceThawed), 2, false, TaskReportAndThaw},
		{"rolled back and thawed", moving(v1alpha1.StepAbort, v1alpha1.SourceThawed), 0, false, TaskNone},
		{"ended without success, still frozen", ended(moving(v1alpha1.StepAbort, v1alpha1.SourceThawed), v1alpha1.PhaseFailed), 2, false, TaskThaw},
		{"ended with success, still frozen", ended(with(moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), sealed, yes), v1alpha1.PhaseSucceeded), 2, true, TaskKill},
		{"ended", ended(moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), v1alpha1.PhaseSucceeded), 0, false, TaskNone},
	}
	for _, test := range tests {
		if got := SourceTask(test.m, Original{FrozenIn: test.frozen, IsLeaving: test.leaving}); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
