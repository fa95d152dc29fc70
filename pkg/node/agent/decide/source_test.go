package decide

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

func reported(m *v1alpha1.PodMigration, phase v1alpha1.DestinationPhase) *v1alpha1.PodMigration {
	m.Status.Checkpoint.Destination = &v1alpha1.DestinationReport{Node: "b", Attempt: 2, Phase: phase, PodUID: fixture.ReplacementUID, Pass: 3, Address: "192.0.2.2:10271", Fingerprint: "sha256:b", ManifestDigest: fixture.SealedDigest}
	return m
}

func receiving(m *v1alpha1.PodMigration) *v1alpha1.PodMigration {
	m = reported(m, v1alpha1.DestinationReceiving)
	m.Status.Checkpoint.Destination.Pass, m.Status.Checkpoint.Destination.ManifestDigest = 0, ""
	return m
}

func onPlaceholder(m *v1alpha1.PodMigration, phase v1alpha1.DestinationPhase) *v1alpha1.PodMigration {
	m = reported(m, phase)
	m.Status.Checkpoint.Destination.PodUID = fixture.PlaceholderUID
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
	older := fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceCopied)
	older.Status.Checkpoint.Source.Attempt = 1
	stateless := fixture.Moving(v1alpha1.StepSeal, "")
	stateless.Status.Checkpoint.Volumes = nil
	const rolledBack = v1alpha1.ConditionRolledBack
	released := func() *v1alpha1.PodMigration {
		return with(with(fixture.Moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), sealed, yes), v1alpha1.ConditionReleased, yes)
	}
	undone := func(m *v1alpha1.PodMigration) *v1alpha1.PodMigration {
		m.Status.Checkpoint.Step = v1alpha1.StepAbort
		return with(m, rolledBack, no)
	}
	accepted := func() *v1alpha1.PodMigration {
		return with(fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), sealed, yes)
	}
	unaddressed := receiving(fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceMeasured))
	unaddressed.Status.Checkpoint.Destination.Address = ""
	earlier := onPlaceholder(fixture.StoppingFirst(v1alpha1.StepCopy, v1alpha1.SourceCopying), v1alpha1.DestinationWarm)
	earlier.Status.Placeholder.UID = fixture.ReplacementUID
	tests := []struct {
		name    string
		m       *v1alpha1.PodMigration
		frozen  int32
		leaving bool
		want    Task
	}{
		{"nothing is carried", stateless, 0, false, TaskNone},
		{"nothing is carried any more", stateless, 1, false, TaskThaw},
		{"not asked yet", fixture.Moving("", ""), 0, false, TaskNone},
		{"not asked yet, and frozen", fixture.Moving("", ""), 2, false, TaskThaw},
		{"measure", fixture.Moving(v1alpha1.StepMeasure, ""), 0, false, TaskMeasure},
		{"measured", fixture.Moving(v1alpha1.StepMeasure, v1alpha1.SourceMeasured), 0, false, TaskNone},
		{"copy failed", fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceFailed), 0, false, TaskNone},
		{"copy while frozen", fixture.Moving(v1alpha1.StepCopy, ""), 2, false, TaskThaw},
		{"sealed: stays frozen", fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), 2, false, TaskKeepFrozen},
		{"sealed without freezing", fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), 0, false, TaskNone},
		{"seal failed", fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceFailed), 2, false, TaskThaw},
		{"frozen by an earlier attempt", fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), 1, false, TaskThaw},
		{"released: stays frozen", fixture.Moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), 2, false, TaskKeepFrozen},
		{"released and evicted", with(fixture.Moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), sealed, yes), 2, true, TaskKill},
		{"deleted by another client before the seal was accepted", with(fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), sealed, no), 2, true, TaskKeepFrozen},
		{"rolled back", fixture.Moving(v1alpha1.StepAbort, v1alpha1.SourceSealed), 2, false, TaskReportAndThaw},
		{"rolled back and deleted by its user", with(with(fixture.Moving(v1alpha1.StepAbort, v1alpha1.SourceSealed), sealed, yes), v1alpha1.ConditionRolledBack, no), 2, true, TaskReportAndThaw},
		{"rolled back, said so, not thawed yet", fixture.Moving(v1alpha1.StepAbort, v1alpha1.SourceThawed), 2, false, TaskReportAndThaw},
		{"rolled back and thawed", fixture.Moving(v1alpha1.StepAbort, v1alpha1.SourceThawed), 0, false, TaskNone},
		{"ended without success, still frozen", ended(fixture.Moving(v1alpha1.StepAbort, v1alpha1.SourceThawed), v1alpha1.PhaseFailed), 2, false, TaskThaw},
		{"ended with success, still frozen", ended(with(fixture.Moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), sealed, yes), v1alpha1.PhaseSucceeded), 2, true, TaskKill},
		{"ended", ended(fixture.Moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), v1alpha1.PhaseSucceeded), 0, false, TaskNone},
	}
	for _, test := range []struct {
		name     string
		m        *v1alpha1.PodMigration
		original Original
		want     Task
	}{
		{"copy: nothing receives yet", fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceMeasured), Original{IsIntroduced: true}, TaskNone},
		{"copy: the destination does not know this process", receiving(fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceMeasured)), Original{}, TaskIntroduce},
		{"copy: nor does it know an agent that was restarted", receiving(fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceCopied)), Original{}, TaskIntroduce},
		{"copy", receiving(fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceMeasured)), Original{IsIntroduced: true}, TaskCopy},
		{"copy: without an address", unaddressed, Original{IsIntroduced: true}, TaskNone},
		{"copy: the destination has failed", reported(fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceCopying), v1alpha1.DestinationFailed), Original{IsIntroduced: true}, TaskNone},
		{"copy: of an earlier placeholder", earlier, Original{IsIntroduced: true}, TaskNone},
		{"copy: interrupted", receiving(fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceCopying)), Original{IsIntroduced: true}, TaskCopy},
		{"copy: the report is of an earlier attempt", receiving(older), Original{IsIntroduced: true}, TaskCopy},
		{"copied", reported(fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceCopied), v1alpha1.DestinationWarm), Original{IsIntroduced: true}, TaskNone},
		{"copied to a destination that has been replaced", receiving(fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceCopied)), Original{IsIntroduced: true}, TaskCopy},
		{"copy failed, by an agent that was restarted", receiving(fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceFailed)), Original{}, TaskNone},
		{"seal: restarted", reported(fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceCopied), v1alpha1.DestinationWarm), Original{}, TaskIntroduce},
		{"seal", reported(fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceCopied), v1alpha1.DestinationWarm), Original{IsIntroduced: true}, TaskSeal},
		{"seal onto a placeholder", onPlaceholder(fixture.StoppingFirst(v1alpha1.StepSeal, v1alpha1.SourceCopied), v1alpha1.DestinationWarm), Original{IsIntroduced: true}, TaskSeal},
		{"seal: nothing receives", fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceCopied), Original{IsIntroduced: true}, TaskNone},
		{"seal: interrupted while frozen", reported(fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceCopied), v1alpha1.DestinationWarm), Original{FrozenIn: 2}, TaskSealAgain},
		{"seal: interrupted while frozen, and nothing receives", fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceCopied), Original{FrozenIn: 2, IsIntroduced: true}, TaskSealAgain},
		{"seal: not reported, and restored", reported(fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealing), v1alpha1.DestinationRestored), Original{FrozenIn: 2}, TaskVoidSeal},
		{"seal: not reported, and stored", onPlaceholder(fixture.StoppingFirst(v1alpha1.StepSeal, v1alpha1.SourceSealing), v1alpha1.DestinationStored), Original{FrozenIn: 2}, TaskVoidSeal},
		{"sealed, and restarted", reported(fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), v1alpha1.DestinationRestored), Original{FrozenIn: 2}, TaskKeepFrozen},
		{"sealed and disturbed", fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), Original{FrozenIn: 2, IsDisturbed: true}, TaskReportAndThaw},
		{"disturbed before the report arrived", fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceCopied), Original{FrozenIn: 2, IsDisturbed: true}, TaskReportAndThaw},
		{"accepted and disturbed, not evicted yet", accepted(), Original{FrozenIn: 2, IsDisturbed: true}, TaskReportAndThaw},
		{"accepted, disturbed and evicted", accepted(), Original{FrozenIn: 2, IsDisturbed: true, IsLeaving: true}, TaskKill},
		{"released and disturbed", released(), Original{FrozenIn: 2, IsDisturbed: true}, TaskKillAndHold},
		{"released, disturbed and evicted", released(), Original{FrozenIn: 2, IsDisturbed: true, IsLeaving: true}, TaskKill},
		{"released, disturbed and rolled back", undone(released()), Original{FrozenIn: 2, IsDisturbed: true}, TaskReportAndThaw},
		{"released, failed and disturbed", ended(released(), v1alpha1.PhaseFailed), Original{FrozenIn: 2, IsDisturbed: true}, TaskKillAndHold},
		{"thawed by ourselves: not to be disturbed", fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceThawed), Original{FrozenIn: 2, IsDisturbed: true}, TaskThaw},
		{"sealed and overdue", fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), Original{FrozenIn: 2, IsOverdue: true}, TaskReportAndThaw},
		{"overdue before the report arrived", fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceCopied), Original{FrozenIn: 2, IsOverdue: true}, TaskReportAndThaw},
		{"accepted and overdue: the controller has stopped", accepted(), Original{FrozenIn: 2, IsOverdue: true}, TaskReportAndThaw},
		{"committed and overdue", with(accepted(), v1alpha1.ConditionCommitted, yes), Original{FrozenIn: 2, IsOverdue: true}, TaskKeepFrozen},
		{"withdrawn and overdue", with(accepted(), v1alpha1.ConditionCommitted, no), Original{FrozenIn: 2, IsOverdue: true}, TaskReportAndThaw},
		{"released and overdue", released(), Original{FrozenIn: 2, IsOverdue: true}, TaskKeepFrozen},
		{"released, its step not written", with(accepted(), v1alpha1.ConditionReleased, yes), Original{FrozenIn: 2}, TaskKeepFrozen},
		{"released and rolled back", undone(released()), Original{FrozenIn: 2}, TaskReportAndThaw},
		{"released and to be aborted, no rollback written down", with(with(fixture.Moving(v1alpha1.StepAbort, v1alpha1.SourceSealed), sealed, yes), v1alpha1.ConditionReleased, yes), Original{FrozenIn: 2}, TaskKeepFrozen},
		{"released and failed", ended(released(), v1alpha1.PhaseFailed), Original{FrozenIn: 2}, TaskStrand},
		{"released and cancelled", ended(released(), v1alpha1.PhaseCancelled), Original{FrozenIn: 2}, TaskStrand},
		{"released, failed and evicted", ended(released(), v1alpha1.PhaseFailed), Original{FrozenIn: 2, IsLeaving: true}, TaskKill},
		{"released, rolled back and failed", ended(undone(released()), v1alpha1.PhaseFailed), Original{FrozenIn: 2}, TaskThaw},
		{"released and succeeded", ended(released(), v1alpha1.PhaseSucceeded), Original{FrozenIn: 2}, TaskKill},
		{"released, succeeded, nothing frozen", ended(released(), v1alpha1.PhaseSucceeded), Original{}, TaskNone},
	} {
		if got := SourceTask(test.m, test.original); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	for _, test := range tests {
		if got := SourceTask(test.m, Original{FrozenIn: test.frozen, IsLeaving: test.leaving}); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
