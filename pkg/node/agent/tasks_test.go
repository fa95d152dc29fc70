package agent

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
		want    task
	}{
		{"nothing is carried", stateless, 0, false, taskNone},
		{"not asked yet", moving("", ""), 0, false, taskNone},
		{"not asked yet, and frozen", moving("", ""), 2, false, taskThaw},
		{"measure", moving(v1alpha1.StepMeasure, ""), 0, false, taskMeasure},
		{"measured", moving(v1alpha1.StepMeasure, v1alpha1.SourceMeasured), 0, false, taskNone},
		{"copy", moving(v1alpha1.StepCopy, v1alpha1.SourceMeasured), 0, false, taskCopy},
		{"copy: interrupted", moving(v1alpha1.StepCopy, v1alpha1.SourceCopying), 0, false, taskCopy},
		{"copy: the report is of an earlier attempt", older, 0, false, taskCopy},
		{"copied", moving(v1alpha1.StepCopy, v1alpha1.SourceCopied), 0, false, taskNone},
		{"copy failed", moving(v1alpha1.StepCopy, v1alpha1.SourceFailed), 0, false, taskNone},
		{"copy while frozen", moving(v1alpha1.StepCopy, ""), 2, false, taskThaw},
		{"seal", moving(v1alpha1.StepSeal, v1alpha1.SourceCopied), 0, false, taskSeal},
		{"seal: interrupted", moving(v1alpha1.StepSeal, v1alpha1.SourceCopied), 2, false, taskSeal},
		{"sealed: stays frozen", moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), 2, false, taskKeepFrozen},
		{"sealed without freezing", moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), 0, false, taskNone},
		{"seal failed", moving(v1alpha1.StepSeal, v1alpha1.SourceFailed), 2, false, taskThaw},
		{"frozen by an earlier attempt", moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), 1, false, taskThaw},
		{"released: stays frozen", moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), 2, false, taskKeepFrozen},
		{"released and evicted", with(moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), sealed, yes), 2, true, taskKill},
		{"deleted by another client before the seal was accepted", with(moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), sealed, no), 2, true, taskKeepFrozen},
		{"rolled back", moving(v1alpha1.StepAbort, v1alpha1.SourceSealed), 2, false, taskReportAndThaw},
		{"rolled back and deleted by its user", with(with(moving(v1alpha1.StepAbort, v1alpha1.SourceSealed), sealed, yes), v1alpha1.ConditionRolledBack, no), 2, true, taskReportAndThaw},
		{"rolled back, said so, not thawed yet", moving(v1alpha1.StepAbort, v1alpha1.SourceThawed), 2, false, taskReportAndThaw},
		{"rolled back and thawed", moving(v1alpha1.StepAbort, v1alpha1.SourceThawed), 0, false, taskNone},
		{"ended without success, still frozen", ended(moving(v1alpha1.StepAbort, v1alpha1.SourceThawed), v1alpha1.PhaseFailed), 2, false, taskThaw},
		{"ended with success, still frozen", ended(with(moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), sealed, yes), v1alpha1.PhaseSucceeded), 2, true, taskKill},
		{"ended", ended(moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), v1alpha1.PhaseSucceeded), 0, false, taskNone},
	}
	for _, test := range tests {
		if got := sourceTask(test.m, test.frozen, test.leaving); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestDestinationTask(t *testing.T) {
	other := reported(moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), v1alpha1.DestinationRestored)
	other.Status.Checkpoint.Destination.PodUID = "an earlier replacement"
	later := reported(moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), v1alpha1.DestinationRestored)
	later.Status.Checkpoint.Source.Pass = 4
	tests := []struct {
		name string
		m    *v1alpha1.PodMigration
		want task
	}{
		{"nothing is copied", moving(v1alpha1.StepCopy, v1alpha1.SourceCopying), taskNone},
		{"copied", moving(v1alpha1.StepCopy, v1alpha1.SourceCopied), taskWarmUp},
		{"warm", reported(moving(v1alpha1.StepCopy, v1alpha1.SourceCopied), v1alpha1.DestinationWarm), taskNone},
		{"sealing", reported(moving(v1alpha1.StepSeal, v1alpha1.SourceCopied), v1alpha1.DestinationWarm), taskNone},
		{"sealed", reported(moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), v1alpha1.DestinationWarm), taskRestore},
		{"sealed, never warm", moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), taskRestore},
		{"sealed again", later, taskRestore},
		{"restored into another pod", other, taskRestore},
		{"restored", reported(moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), v1alpha1.DestinationRestored), taskNone},
		{"failed", reported(moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), v1alpha1.DestinationFailed), taskNone},
		{"release", reported(moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), v1alpha1.DestinationRestored), taskRelease},
		{"release what was not restored", reported(moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), v1alpha1.DestinationWarm), taskNone},
		{"released", reported(moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), v1alpha1.DestinationReleased), taskNone},
		{"rolled back", with(moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), v1alpha1.ConditionRolledBack, metav1.ConditionFalse), taskNone},
	}
	for _, test := range tests {
		if got := destinationTask(test.m); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
