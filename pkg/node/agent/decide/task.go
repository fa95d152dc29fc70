package decide

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Task is what an agent has to do for a migration, on one of its two nodes.
type Task string

const (
	TaskNone Task = ""

	// Of the source: TaskMeasure sizes up what is carried, TaskCopy copies it while
	// the pod runs, TaskSeal freezes the pod and makes the last copy.
	TaskMeasure Task = "measure"
	TaskCopy    Task = "copy"
	TaskSeal    Task = "seal"
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

	// Of the destination: TaskWarmUp restores what was copied so far.
	TaskWarmUp Task = "warm up"
	// TaskPrepare lets the containers of a replacement come to where they wait for their
	// processes; TaskCancel makes those fail for which none will come.
	TaskPrepare Task = "prepare"
	TaskCancel  Task = "cancel"
	// TaskRestore restores the sealed checkpoint, TaskRelease lets the replacement run.
	TaskRestore Task = "restore"
	TaskRelease Task = "release"
)

// fact is something that holds or does not; a set of them is their union.
type fact uint16

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
		then.Status.Checkpoint.Attempt == now.Status.Checkpoint.Attempt && !now.Status.Phase.IsFinished() && !isRolledBack(now)
}

func isRolledBack(m *v1alpha1.PodMigration) bool {
	return meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionRolledBack) != nil
}

// isUndone reports whether the replacement will never be released.
func isUndone(m *v1alpha1.PodMigration) bool {
	return m.Status.Checkpoint.Step == v1alpha1.StepAbort || m.Status.Phase == v1alpha1.PhaseFailed ||
		m.Status.Phase == v1alpha1.PhaseCancelled || isRolledBack(m)
}

// CurrentSource returns the report of the source on this attempt; nil when there is none.
func CurrentSource(c *v1alpha1.CheckpointStatus) *v1alpha1.SourceReport {
	if c.Source == nil || c.Source.Attempt != c.Attempt {
		return nil
	}
	return c.Source
}

// CurrentDestination returns the report of the destination on this attempt and on the
// replacement that there is; nil when there is none.
func CurrentDestination(m *v1alpha1.PodMigration) *v1alpha1.DestinationReport {
	c := m.Status.Checkpoint
	if c.Destination == nil || c.Destination.Attempt != c.Attempt || c.Destination.PodUID != m.Status.Replacement.UID {
		return nil
	}
	return c.Destination
}
