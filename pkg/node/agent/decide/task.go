package decide

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Task is what an agent has to do for a migration, on one of its two nodes.
type Task string

const (
	TaskNone Task = ""

	// Of the source: TaskMeasure sizes up what is carried, TaskCopy sends it to the
	// destination while the pod runs, TaskSeal freezes the pod and sends the last changes.
	TaskMeasure Task = "measure"
	TaskCopy    Task = "copy"
	TaskSeal    Task = "seal"
	// TaskIntroduce reports the fingerprint of this process, without which the destination
	// admits no connection.
	TaskIntroduce Task = "introduce"
	// TaskSealAgain is about a pod that was frozen by an agent that died before it reported
	// a seal: it is reported as being sealed, and thawed. What that agent knew of the files
	// is lost, so that the pod runs while they are compared.
	TaskSealAgain Task = "seal again"
	// TaskVoidSeal is the same where the destination has sealed what that agent sent. It
	// takes nothing more in this attempt: the pod is reported as thawed, and thawed.
	TaskVoidSeal Task = "void seal"
	// TaskKeepFrozen looks again: the original may be deleted meanwhile.
	TaskKeepFrozen Task = "keep frozen"
	// TaskKillAndHold freezes an original again that ran, or could have, after its replacement
	// was released, and ends what it has started: of two copies only one may work.
	TaskKillAndHold Task = "kill and hold"
	// TaskStrand keeps a pod frozen whose migration has failed and was not rolled back,
	// while its released replacement may still run. A person has to decide.
	TaskStrand Task = "strand"
	// TaskReportAndThaw reports first that the pod is thawed, so that no replacement
	// is released beside it; TaskThaw only thaws.
	TaskReportAndThaw Task = "report and thaw"
	TaskThaw          Task = "thaw"
	// TaskKill ends a frozen pod that was evicted, without letting it run.
	TaskKill Task = "kill"

	// Of the destination: TaskReceive opens the volumes for the agent of the source and
	// reports where it is to connect, TaskWarm reports a complete pass.
	TaskReceive Task = "receive"
	TaskWarm    Task = "warm"
	// TaskConfirm reports that what was sealed is there, verified and synced.
	TaskConfirm Task = "confirm"
	// TaskAdopt gives what waits on this node to the replacement, TaskRestore what is on the
	// claim.
	TaskAdopt   Task = "adopt"
	TaskRestore Task = "restore"
	// TaskMiss reports that the state of the replacement is on another node.
	TaskMiss Task = "miss"
	// TaskPrepare lets the containers of a replacement come to where they wait for their
	// processes, TaskRestoreProcesses restores these; TaskCancel makes the containers fail
	// for which no processes will come.
	TaskPrepare          Task = "prepare"
	TaskRestoreProcesses Task = "restore processes"
	TaskCancel           Task = "cancel"
	// TaskRelease lets the replacement run.
	TaskRelease Task = "release"
	// TaskClose ends the reception, TaskDiscard removes what the node keeps of a migration
	// too.
	TaskClose   Task = "close"
	TaskDiscard Task = "discard"
)

// fact is something that holds or does not; a set of them is their union.
type fact uint32

func (f fact) where(holds bool) fact {
	if holds {
		return f
	}
	return 0
}

// row is one case of a table. An empty column matches all.
type row[Phase comparable] struct {
	steps []v1alpha1.CheckpointStep
	// reported phases of this agent in this attempt; "" is none so far.
	reported []Phase
	// is are the facts that must hold, not those that must not.
	is, not fact
	task    Task
}

// first returns the task of the first row that matches.
func first[Phase comparable](table []row[Phase], step v1alpha1.CheckpointStep, reported Phase, facts fact) Task {
	for _, r := range table {
		if matches(r.steps, step) && matches(r.reported, reported) && facts&r.is == r.is && facts&r.not == 0 {
			return r.task
		}
	}
	return TaskNone
}

func matches[T comparable](wanted []T, value T) bool {
	return len(wanted) == 0 || slices.Contains(wanted, value)
}

var anyStep []v1alpha1.CheckpointStep

func at(steps ...v1alpha1.CheckpointStep) []v1alpha1.CheckpointStep { return steps }

// IsSame reports whether what an agent is doing for a migration, as it read it then, is
// still wanted now.
func IsSame(then, now *v1alpha1.PodMigration) bool {
	return then.UID == now.UID && now.Status.Checkpoint != nil && then.Status.Checkpoint.Step == now.Status.Checkpoint.Step &&
		then.Status.Checkpoint.Attempt == now.Status.Checkpoint.Attempt && destinationUID(then) == destinationUID(now) &&
		!now.Status.Phase.IsFinished() && !isRolledBack(now)
}

// destinationUID is the UID of the pod that the destination works for; "" without one.
func destinationUID(m *v1alpha1.PodMigration) types.UID {
	if pod := m.DestinationPod(); pod != nil {
		return pod.UID
	}
	return ""
}

func isRolledBack(m *v1alpha1.PodMigration) bool {
	return meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionRolledBack) != nil
}

// isUndone reports whether the replacement will never be released.
func isUndone(m *v1alpha1.PodMigration) bool {
	return m.Status.Checkpoint.Step == v1alpha1.StepAbort || m.Status.Phase == v1alpha1.PhaseFailed ||
		m.Status.Phase == v1alpha1.PhaseCancelled || isRolledBack(m)
}

// KeepsState reports whether what was sealed may be the only copy of the state although
// the migration has failed.
func KeepsState(m *v1alpha1.PodMigration) bool { return m.KeepsOnlyCopy() || m.StateWaits() }

// CurrentSource returns the report of the source on this attempt; nil when there is none.
func CurrentSource(c *v1alpha1.CheckpointStatus) *v1alpha1.SourceReport {
	if c.Source == nil || c.Source.Attempt != c.Attempt {
		return nil
	}
	return c.Source
}

// CurrentDestination returns the report of the destination on this attempt and on the pod
// that it works for now; nil when there is none.
func CurrentDestination(m *v1alpha1.PodMigration) *v1alpha1.DestinationReport {
	c, pod := m.Status.Checkpoint, m.DestinationPod()
	if c.Destination == nil || pod == nil || c.Destination.Attempt != c.Attempt || c.Destination.PodUID != pod.UID {
		return nil
	}
	return c.Destination
}

// Receiver returns the report of a destination that the source can connect to; nil when
// there is none.
func Receiver(m *v1alpha1.PodMigration) *v1alpha1.DestinationReport {
	report := CurrentDestination(m)
	if report == nil || report.Address == "" || report.Fingerprint == "" || report.Phase == v1alpha1.DestinationFailed {
		return nil
	}
	return report
}
