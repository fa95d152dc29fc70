package decide

import "github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"

// Facts about a replacement.
const (
	// undone: it will never be released.
	undone fact = 1 << iota
	over
	// withProcesses: it waits for processes, not for files alone.
	withProcesses
	// reports: the source has reported on this attempt; copied and sealed: that.
	reports
	copied
	sealed
	// upToDate: what it has is what was reported last.
	upToDate
)

// destinationTable is what the destination does in a step of the controller.
var destinationTable = []row[v1alpha1.DestinationPhase]{
	{anyStep, anyDestination, undone | withProcesses, 0, TaskCancel},
	{anyStep, anyDestination, undone, 0, TaskNone},
	{anyStep, anyDestination, over, 0, TaskNone},
	{anyStep, anyDestination, 0, reports, TaskNone},
	{at(v1alpha1.StepCopy), destination("", v1alpha1.DestinationRestoring), copied, 0, TaskWarmUp},
	{at(v1alpha1.StepSeal), destination(v1alpha1.DestinationWarm), copied | withProcesses, 0, TaskPrepare},
	{at(v1alpha1.StepSeal), destination(v1alpha1.DestinationFailed), 0, 0, TaskNone},
	{at(v1alpha1.StepSeal), destination(v1alpha1.DestinationRestored), upToDate, 0, TaskNone},
	{at(v1alpha1.StepSeal), anyDestination, sealed, 0, TaskRestore},
	{at(v1alpha1.StepRelease), destination(v1alpha1.DestinationRestored), 0, 0, TaskRelease},
}

var anyDestination []v1alpha1.DestinationPhase

func destination(phases ...v1alpha1.DestinationPhase) []v1alpha1.DestinationPhase { return phases }

// DestinationTask decides for the agent of the node of the replacement.
func DestinationTask(m *v1alpha1.PodMigration) Task {
	c := m.Status.Checkpoint
	if !c.Carries() || m.Status.Replacement == nil || m.Status.Replacement.UID == "" {
		return TaskNone
	}
	facts := undone.where(isUndone(m)) | over.where(m.Status.Phase.IsFinished()) | withProcesses.where(len(c.Processes) > 0)
	var reported v1alpha1.DestinationPhase
	var pass int32
	if report := CurrentDestination(m); report != nil {
		reported, pass = report.Phase, report.Pass
	}
	if s := CurrentSource(c); s != nil {
		facts |= reports | copied.where(s.Phase == v1alpha1.SourceCopied) | sealed.where(s.Phase == v1alpha1.SourceSealed) | upToDate.where(pass == s.Pass)
	}
	return first(destinationTable, c.Step, reported, facts)
}
