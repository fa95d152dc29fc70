package decide

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// gone is a migration whose original has stopped for its replacement.
func gone(m *v1alpha1.PodMigration) *v1alpha1.PodMigration {
	m.Status.Times.OriginalGone = &metav1.MicroTime{}
	return m
}

func processes(m *v1alpha1.PodMigration) *v1alpha1.PodMigration {
	m.Status.Checkpoint.Processes = []string{"main"}
	return m
}

func recovering(m *v1alpha1.PodMigration) *v1alpha1.PodMigration {
	m.Status.Original, m.Status.Checkpoint.RecoveredFrom = nil, "99999999-9999-9999-9999-999999999999"
	return m
}

func TestDestinationTask(t *testing.T) {
	const copyStep, seal, release = v1alpha1.StepCopy, v1alpha1.StepSeal, v1alpha1.StepRelease
	const copying, copied, sealed = v1alpha1.SourceCopying, v1alpha1.SourceCopied, v1alpha1.SourceSealed
	const receiving, warm, restored = v1alpha1.DestinationReceiving, v1alpha1.DestinationWarm, v1alpha1.DestinationRestored
	const stored, restoring, failed = v1alpha1.DestinationStored, v1alpha1.DestinationRestoring, v1alpha1.DestinationFailed
	moving, stopping := fixture.Moving, fixture.StoppingFirst
	open, wrote := Destination{IsOpen: true}, Destination{IsOpen: true, Pass: 3}
	later := Destination{IsOpen: true, Pass: 4}
	done := Destination{IsOpen: true, Pass: 3, Sealed: fixture.SealedDigest, Keeps: true}
	other := Destination{IsOpen: true, Pass: 3, Sealed: "sha256:other"}
	kept := Destination{Keeps: true}
	unplaced := moving(copyStep, copying)
	unplaced.Status.Replacement.NodeName = ""
	older := reported(moving(copyStep, copying), warm)
	older.Status.Checkpoint.Destination.Attempt = 1
	another := reported(moving(seal, sealed), restored)
	another.Status.Checkpoint.Destination.ManifestDigest = "sha256:other"
	stateless := moving(seal, sealed)
	stateless.Status.Checkpoint.Volumes = nil
	committed := func() *v1alpha1.PodMigration {
		m := with(gone(stopping(seal, sealed)), v1alpha1.ConditionCommitted, metav1.ConditionTrue)
		return with(m, v1alpha1.ConditionSealed, metav1.ConditionTrue)
	}
	claimed := func(m *v1alpha1.PodMigration) *v1alpha1.PodMigration {
		m.Status.CheckpointClaim = "train-claim"
		return m
	}
	third := gone(stopping(seal, sealed))
	third.Status.Replacement.NodeName = "c"
	tests := []struct {
		name string
		m    *v1alpha1.PodMigration
		d    Destination
		want Task
	}{
		{"nothing is carried", stateless, open, TaskNone},
		{"nothing is carried any more", stateless, kept, TaskClose},
		{"nothing was carried in the end", ended(stateless.DeepCopy(), v1alpha1.PhaseSucceeded), kept, TaskDiscard},
		{"nothing is placed", unplaced, Destination{}, TaskNone},
		{"measured", moving(v1alpha1.StepMeasure, v1alpha1.SourceMeasured), Destination{}, TaskNone},
		{"placed", moving(copyStep, v1alpha1.SourceMeasured), Destination{}, TaskReceive},
		{"a placeholder is placed", stopping(copyStep, v1alpha1.SourceMeasured), Destination{}, TaskReceive},
		{"restarted", reported(moving(copyStep, copied), warm), Destination{}, TaskReceive},
		{"the report is of an earlier attempt", older, Destination{}, TaskReceive},
		{"receiving", reported(moving(copyStep, copying), receiving), open, TaskNone},
		{"a pass is complete", reported(moving(copyStep, copying), receiving), wrote, TaskWarm},
		{"it was reported", reported(moving(copyStep, copying), warm), wrote, TaskNone},
		{"another pass is complete", reported(moving(copyStep, copied), warm), later, TaskWarm},
		{"failed", reported(moving(copyStep, copying), failed), Destination{}, TaskNone},
		{"restarted before the seal", reported(moving(seal, copied), warm), Destination{}, TaskReceive},
		{"sealing", reported(moving(seal, copied), warm), wrote, TaskNone},
		{"sealed here, and not reported", reported(moving(seal, copied), warm), done, TaskConfirm},
		{"sealed here and by the source", reported(moving(seal, sealed), warm), done, TaskConfirm},
		{"sealed here before a pass was reported", reported(moving(seal, sealed), receiving), done, TaskConfirm},
		{"sealed onto a placeholder", onPlaceholder(stopping(seal, copied), warm), done, TaskConfirm},
		{"stored", onPlaceholder(stopping(seal, sealed), stored), done, TaskNone},
		{"stored, and restarted", onPlaceholder(stopping(seal, sealed), stored), Destination{Waits: true, Keeps: true}, TaskNone},
		{"restored", reported(moving(seal, sealed), restored), done, TaskNone},
		{"restored, and restarted", reported(moving(seal, sealed), restored), kept, TaskNone},
		{"restored before the source has reported it", reported(moving(seal, copied), restored), done, TaskNone},
		{"something else is restored", another, done, TaskNone},
		{"failed to seal", reported(moving(seal, sealed), failed), kept, TaskNone},

		{"the replacement takes what waits", onPlaceholder(gone(stopping(seal, sealed)), stored), Destination{Waits: true, Keeps: true}, TaskAdopt},
		{"the replacement is on another node", claimed(onPlaceholder(third, stored)), Destination{Node: "c"}, TaskRestore},
		{"the replacement is on another node, and there is no claim", onPlaceholder(gone(stopping(seal, sealed)), stored), Destination{}, TaskMiss},
		{"the replacement is on another node than what waits", third, Destination{Waits: true, Keeps: true}, TaskNone},
		{"on another node, and released", ended(reported(with(third.DeepCopy(), v1alpha1.ConditionReleased, metav1.ConditionTrue), v1alpha1.DestinationReleased), v1alpha1.PhaseSucceeded), Destination{Waits: true, Keeps: true}, TaskDiscard},
		{"the agent was restarted while it restored", claimed(reported(gone(stopping(seal, sealed)), restoring)), kept, TaskRestore},
		{"it has what was sealed", reported(gone(stopping(seal, sealed)), restored), Destination{Waits: true, Keeps: true}, TaskNone},
		{"it could not be restored", reported(gone(stopping(seal, sealed)), failed), kept, TaskNone},
		{"the original has gone, and nothing is sealed", gone(stopping(seal, copied)), Destination{}, TaskNone},
		{"the original has gone while it was copied", gone(stopping(copyStep, copied)), Destination{}, TaskNone},
		{"a pod is recovered", claimed(recovering(moving(seal, sealed))), Destination{}, TaskRestore},
		{"a pod is recovered where the state waits", recovering(moving(seal, sealed)), Destination{Waits: true}, TaskAdopt},

		{"containers wait for their processes", processes(reported(moving(seal, copied), warm)), wrote, TaskPrepare},
		{"processes: restarted", processes(reported(moving(seal, copied), warm)), Destination{}, TaskReceive},
		{"processes: sealed here, and not by the source", processes(reported(moving(seal, copied), warm)), done, TaskNone},
		{"processes: sealed", processes(reported(moving(seal, sealed), warm)), done, TaskRestoreProcesses},
		{"processes: something else is sealed", processes(reported(moving(seal, sealed), warm)), other, TaskNone},
		{"processes: taken by containers, and restarted", processes(reported(moving(seal, sealed), warm)), Destination{IsTaken: true}, TaskRestoreProcesses},
		{"processes: taken by containers, and nothing is sealed", processes(reported(moving(seal, copied), warm)), Destination{IsTaken: true}, TaskNone},
		{"processes: restored", processes(reported(moving(seal, sealed), restored)), Destination{IsTaken: true}, TaskNone},
		{"processes: rolled back", processes(with(moving(seal, sealed), v1alpha1.ConditionRolledBack, metav1.ConditionFalse)), kept, TaskCancel},

		{"release", reported(moving(release, sealed), restored), done, TaskRelease},
		{"release, restarted", reported(moving(release, sealed), restored), kept, TaskRelease},
		{"release what was not restored", reported(moving(release, sealed), warm), wrote, TaskNone},
		{"released", reported(moving(release, sealed), v1alpha1.DestinationReleased), kept, TaskNone},

		{"rolled back", with(moving(seal, sealed), v1alpha1.ConditionRolledBack, metav1.ConditionFalse), done, TaskDiscard},
		{"rolled back, and nothing is here", with(moving(seal, sealed), v1alpha1.ConditionRolledBack, metav1.ConditionFalse), Destination{}, TaskNone},
		{"aborted", moving(v1alpha1.StepAbort, copied), wrote, TaskNone},
		{"aborted, and state is here", moving(v1alpha1.StepAbort, copied), kept, TaskDiscard},
		{"failed before the original has gone", ended(stopping(seal, sealed), v1alpha1.PhaseFailed), kept, TaskDiscard},
		{"failed after the original has gone", ended(committed(), v1alpha1.PhaseFailed), kept, TaskClose},
		{"the claim has the only copy", with(ended(gone(stopping(seal, sealed)), v1alpha1.PhaseFailed), v1alpha1.ConditionCheckpointKept, metav1.ConditionTrue), kept, TaskClose},
		{"failed after the release", ended(reported(with(committed(), v1alpha1.ConditionReleased, metav1.ConditionTrue), v1alpha1.DestinationReleased), v1alpha1.PhaseFailed), kept, TaskDiscard},
		{"succeeded", ended(reported(moving(release, sealed), v1alpha1.DestinationReleased), v1alpha1.PhaseSucceeded), kept, TaskDiscard},
		{"succeeded, and all is removed", ended(reported(moving(release, sealed), v1alpha1.DestinationReleased), v1alpha1.PhaseSucceeded), Destination{}, TaskNone},
	}
	for _, test := range tests {
		if test.d.Node == "" {
			test.d.Node = "b"
		}
		if got := DestinationTask(test.m, test.d); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// Whatever this process knows: only what the destination has restored, and the source has
// sealed, is released, and nothing is written for a migration that is over.
func TestNothingIsWrittenOrReleasedTooLate(t *testing.T) {
	for _, of := range []func(v1alpha1.CheckpointStep, v1alpha1.SourcePhase) *v1alpha1.PodMigration{fixture.Moving, fixture.StoppingFirst} {
		for _, step := range []v1alpha1.CheckpointStep{v1alpha1.StepMeasure, v1alpha1.StepCopy, v1alpha1.StepSeal, v1alpha1.StepRelease, v1alpha1.StepAbort} {
			for _, phase := range []v1alpha1.DestinationPhase{"", v1alpha1.DestinationReceiving, v1alpha1.DestinationWarm, v1alpha1.DestinationStored, v1alpha1.DestinationRestoring, v1alpha1.DestinationRestored, v1alpha1.DestinationReleased, v1alpha1.DestinationFailed} {
				for _, end := range []v1alpha1.Phase{v1alpha1.PhaseHandingOver, v1alpha1.PhaseFailed, v1alpha1.PhaseSucceeded} {
					for bits := range 1 << 6 {
						d := Destination{Node: "b", IsOpen: bits&1 == 1, Waits: bits&2 != 0, IsTaken: bits&4 != 0, Keeps: bits&8 != 0}
						if bits&16 != 0 {
							d.Pass, d.Sealed = 3, fixture.SealedDigest
						}
						m := ended(reported(of(step, v1alpha1.SourceSealed), phase), end)
						if bits&32 != 0 {
							m = gone(m)
						}
						task := DestinationTask(m, d)
						if task == TaskRelease && (step != v1alpha1.StepRelease || phase != v1alpha1.DestinationRestored) {
							t.Errorf("step %s, %s, %+v: released", step, phase, d)
						}
						if end != v1alpha1.PhaseHandingOver && task != TaskNone && task != TaskClose && task != TaskDiscard {
							t.Errorf("phase %s, step %s, %+v: %q", end, step, d, task)
						}
					}
				}
			}
		}
	}
}
