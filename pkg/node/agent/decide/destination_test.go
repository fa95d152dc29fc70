package decide

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

func TestDestinationTask(t *testing.T) {
	other := reported(fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), v1alpha1.DestinationRestored)
	other.Status.Checkpoint.Destination.PodUID = "an earlier replacement"
	later := reported(fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), v1alpha1.DestinationRestored)
	later.Status.Checkpoint.Source.Pass = 4
	tests := []struct {
		name string
		m    *v1alpha1.PodMigration
		want Task
	}{
		{"nothing is copied", fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceCopying), TaskNone},
		{"copied", fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceCopied), TaskWarmUp},
		{"warm", reported(fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceCopied), v1alpha1.DestinationWarm), TaskNone},
		{"sealing", reported(fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceCopied), v1alpha1.DestinationWarm), TaskNone},
		{"sealed", reported(fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), v1alpha1.DestinationWarm), TaskRestore},
		{"sealed, never warm", fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), TaskRestore},
		{"sealed again", later, TaskRestore},
		{"restored into another pod", other, TaskRestore},
		{"restored", reported(fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), v1alpha1.DestinationRestored), TaskNone},
		{"failed", reported(fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), v1alpha1.DestinationFailed), TaskNone},
		{"release", reported(fixture.Moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), v1alpha1.DestinationRestored), TaskRelease},
		{"release what was not restored", reported(fixture.Moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), v1alpha1.DestinationWarm), TaskNone},
		{"released", reported(fixture.Moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), v1alpha1.DestinationReleased), TaskNone},
		{"rolled back", with(fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), v1alpha1.ConditionRolledBack, metav1.ConditionFalse), TaskNone},
	}
	for _, test := range tests {
		if got := DestinationTask(test.m); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
