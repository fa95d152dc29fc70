package agent

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// task is what an agent has to do for a migration, on one of its two nodes.
type task string

const (
	taskNone task = ""

	// Of the source: taskMeasure sizes up what is carried, taskCopy copies it while
	// the pod runs, taskSeal freezes the pod and makes the last copy.
	taskMeasure task = "measure"
	taskCopy    task = "copy"
	taskSeal    task = "seal"
	// taskKeepFrozen looks again: the original may be deleted meanwhile.
	taskKeepFrozen task = "keep frozen"
	// taskReportAndThaw reports first that the pod is thawed, so that no replacement
	// is released beside it; taskThaw only thaws.
	taskReportAndThaw task = "report and thaw"
	taskThaw          task = "thaw"
	// taskKill ends a frozen pod that was evicted, without letting it run.
	taskKill task = "kill"

	// Of the destination: taskWarmUp restores what was copied so far.
	taskWarmUp task = "warm up"
	// taskPrepare lets the containers of a replacement come to where they wait for their
	// processes; taskCancel makes those fail for which none will come.
	taskPrepare task = "prepare"
	taskCancel  task = "cancel"
	// taskRestore restores the sealed checkpoint, taskRelease lets the replacement run.
	taskRestore task = "restore"
	taskRelease task = "release"
)

// sourceTasks are what the source does in a step of the controller, by what it has
// reported in this attempt and by whether it has frozen the pod in it. The first row
// that matches counts; without one there is nothing to do.
var sourceTasks = []struct {
	steps  []v1alpha1.CheckpointStep
	frozen []bool
	// reported phases; "" is none so far.
	reported []v1alpha1.SourcePhase
	task     task
}{
	{at(v1alpha1.StepAbort), isFrozen, anyPhase, taskReportAndThaw},
	{at(v1alpha1.StepAbort), isThawed, endPhases, taskNone},
	{at(v1alpha1.StepAbort), isThawed, anyPhase, taskReportAndThaw},
	{anyStep, isFrozen, endPhases, taskThaw},
	{at(v1alpha1.StepMeasure), either, none, taskMeasure},
	{at(v1alpha1.StepCopy), isFrozen, anyPhase, taskThaw},
	{at(v1alpha1.StepCopy), isThawed, phases("", v1alpha1.SourceMeasured, v1alpha1.SourceCopying), taskCopy},
	{at(v1alpha1.StepSeal), isFrozen, phases(v1alpha1.SourceSealed), taskKeepFrozen},
	{at(v1alpha1.StepSeal), isThawed, phases(v1alpha1.SourceSealed, v1alpha1.SourceThawed, v1alpha1.SourceFailed), taskNone},
	{at(v1alpha1.StepSeal), either, anyPhase, taskSeal},
	{at(v1alpha1.StepRelease), isFrozen, anyPhase, taskKeepFrozen},
	{at(""), isFrozen, anyPhase, taskThaw},
}

// Columns of sourceTasks; an empty one matches all.
var (
	anyStep   []v1alpha1.CheckpointStep
	either    []bool
	isFrozen  = []bool{true}
	isThawed  = []bool{false}
	anyPhase  []v1alpha1.SourcePhase
	none      = phases("")
	endPhases = phases(v1alpha1.SourceThawed, v1alpha1.SourceFailed)
)

func at(steps ...v1alpha1.CheckpointStep) []v1alpha1.CheckpointStep { return steps }
func phases(p ...v1alpha1.SourcePhase) []v1alpha1.SourcePhase       { return p }

func matches[T comparable](wanted []T, value T) bool {
	return len(wanted) == 0 || slices.Contains(wanted, value)
}

// sourceTask decides for the agent of the node of the original. attempt is that in
// which the pod was frozen; 0 when it is not frozen. leaving tells that the original is
// gone or being deleted.
func sourceTask(m *v1alpha1.PodMigration, attempt int32, leaving bool) task {
	c, frozen := m.Status.Checkpoint, attempt != 0
	if !c.Carries() {
		return taskNone
	}
	isSealed := meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionSealed)
	switch {
	case frozen && leaving && isSealed && !isRolledBack(m):
		return taskKill
	case frozen && m.Status.Phase.IsFinished():
		return taskThaw
	case m.Status.Phase.IsFinished():
		return taskNone
	case frozen && attempt != c.Attempt && c.Step != v1alpha1.StepAbort:
		return taskThaw
	}
	var reported v1alpha1.SourcePhase
	if report := currentSource(c); report != nil {
		reported = report.Phase
	}
	for _, row := range sourceTasks {
		if matches(row.steps, c.Step) && matches(row.frozen, frozen) && matches(row.reported, reported) {
			return row.task
		}
	}
	return taskNone
}

// destinationTask decides for the agent of the node of the replacement.
func destinationTask(m *v1alpha1.PodMigration) task {
	c := m.Status.Checkpoint
	if !c.Carries() || m.Status.Replacement == nil || m.Status.Replacement.UID == "" {
		return taskNone
	}
	if isUndone(m) && len(c.Processes) > 0 {
		return taskCancel
	}
	source := currentSource(c)
	if isUndone(m) || m.Status.Phase.IsFinished() || source == nil {
		return taskNone
	}
	var reported v1alpha1.DestinationPhase
	var pass int32
	if report := currentDestination(m); report != nil {
		reported, pass = report.Phase, report.Pass
	}
	if reported == v1alpha1.DestinationFailed {
		return taskNone
	}
	copied, sealed := source.Phase == v1alpha1.SourceCopied, source.Phase == v1alpha1.SourceSealed
	isRestored := reported == v1alpha1.DestinationRestored
	switch {
	case c.Step == v1alpha1.StepCopy && copied && (reported == "" || reported == v1alpha1.DestinationRestoring):
		return taskWarmUp
	case c.Step == v1alpha1.StepSeal && copied && len(c.Processes) > 0 && reported == v1alpha1.DestinationWarm:
		return taskPrepare
	case c.Step == v1alpha1.StepSeal && sealed && (!isRestored || pass != source.Pass):
		return taskRestore
	case c.Step == v1alpha1.StepRelease && isRestored:
		return taskRelease
	}
	return taskNone
}

func isRolledBack(m *v1alpha1.PodMigration) bool {
	return meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionRolledBack) != nil
}

// isUndone reports whether the replacement will never be released.
func isUndone(m *v1alpha1.PodMigration) bool {
	return m.Status.Checkpoint.Step == v1alpha1.StepAbort || m.Status.Phase == v1alpha1.PhaseFailed ||
		m.Status.Phase == v1alpha1.PhaseCancelled || isRolledBack(m)
}

// currentSource and currentDestination return the reports of this attempt, about
// the replacement that there is.
func currentSource(c *v1alpha1.CheckpointStatus) *v1alpha1.SourceReport {
	if c.Source == nil || c.Source.Attempt != c.Attempt {
		return nil
	}
	return c.Source
}

func currentDestination(m *v1alpha1.PodMigration) *v1alpha1.DestinationReport {
	c := m.Status.Checkpoint
	if c.Destination == nil || c.Destination.Attempt != c.Attempt || c.Destination.PodUID != m.Status.Replacement.UID {
		return nil
	}
	return c.Destination
}

// isSame reports whether what an agent is doing is still wanted.
func isSame(a, b *v1alpha1.PodMigration) bool {
	return a.UID == b.UID && b.Status.Checkpoint != nil && a.Status.Checkpoint.Step == b.Status.Checkpoint.Step &&
		a.Status.Checkpoint.Attempt == b.Status.Checkpoint.Attempt && !b.Status.Phase.IsFinished() && !isRolledBack(b)
}

func microTime(t metav1.MicroTime) *metav1.MicroTime { return &t }
