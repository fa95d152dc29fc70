package decide

import "github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"

// Destination is what the agent of a node knows, beside the status, of a migration that is
// to it, or has left something on it.
type Destination struct {
	// Node is its name.
	Node string
	// IsOpen: the volumes of the pod that the destination works for are open in this
	// process for this attempt, and the report has its address and fingerprint.
	IsOpen bool
	// Pass is the number of the last complete pass that this process has received into
	// them; 0 before the first.
	Pass int32
	// Sealed is the digest, "sha256:…", of the manifest of what was sealed in them; ""
	// before that.
	Sealed string
	// Waits: what was sealed waits on this node, and no other pod has been given it.
	Waits bool
	// IsTaken: containers of the replacement are being restored, or were (mode Process).
	IsTaken bool
	// Keeps: this node keeps something of the migration: state, what waits, or a sealed
	// copy on a claim.
	Keeps bool
}

// Facts about a destination.
const (
	// undone: the replacement will never be released.
	undone fact = 1 << iota
	// over: finished; keeps: the node has something to remove; onlyCopy: that may be the
	// only copy of the state.
	over
	keeps
	onlyCopy
	// withProcesses: it waits for processes, not for files alone; taken: they are being
	// restored.
	withProcesses
	taken
	// takesOver: the pod is a replacement that starts when the original has gone. What it
	// gets waits, or is on the claim. elsewhere: it is on another node.
	takesOver
	waits
	claimed
	elsewhere
	// copied and sealed: the source has reported that; restored: the destination has
	// reported exactly what was sealed.
	copied
	sealed
	restored
	// open: volumes and report agree; passed: there is a pass that was not reported;
	// sealedHere: what they have was sealed; asReported: as the source reports it.
	open
	passed
	sealedHere
	asReported
)

// destinationTable is what the destination does in a step of the controller.
var destinationTable = []row[v1alpha1.DestinationPhase]{
	{anyStep, anyDestination, undone | withProcesses, 0, TaskCancel},
	{anyStep, anyDestination, undone | onlyCopy, 0, TaskClose},
	{anyStep, anyDestination, undone | keeps, 0, TaskDiscard},
	{anyStep, anyDestination, over | keeps, 0, TaskDiscard},
	{anyStep, anyDestination, undone, 0, TaskNone},
	{anyStep, anyDestination, over, 0, TaskNone},
	{anyStep, anyDestination, elsewhere, 0, TaskNone},
	{at(v1alpha1.StepRelease), destination(v1alpha1.DestinationRestored), 0, 0, TaskRelease},
	{anyStep, destination(v1alpha1.DestinationFailed), 0, 0, TaskNone},
	{at(v1alpha1.StepSeal), destination(v1alpha1.DestinationRestored), restored, 0, TaskNone},
	{at(v1alpha1.StepSeal), anyDestination, takesOver | sealed | waits, 0, TaskAdopt},
	{at(v1alpha1.StepSeal), anyDestination, takesOver | sealed | claimed, 0, TaskRestore},
	{at(v1alpha1.StepSeal), anyDestination, takesOver | sealed, 0, TaskMiss},
	{anyStep, anyDestination, takesOver, 0, TaskNone},
	{at(v1alpha1.StepSeal), unsealed, withProcesses | taken | sealed, 0, TaskRestoreProcesses},
	{at(v1alpha1.StepSeal), unsealed, withProcesses | taken, 0, TaskNone},
	{at(v1alpha1.StepCopy, v1alpha1.StepSeal), unsealed, 0, open, TaskReceive},
	{at(v1alpha1.StepSeal), unsealed, open | sealedHere, withProcesses, TaskConfirm},
	{at(v1alpha1.StepSeal), unsealed, open | sealedHere | withProcesses | sealed | asReported, 0, TaskRestoreProcesses},
	{at(v1alpha1.StepSeal), destination(v1alpha1.DestinationWarm), open | copied | withProcesses, sealedHere, TaskPrepare},
	{at(v1alpha1.StepCopy, v1alpha1.StepSeal), unsealed, open | passed, sealedHere, TaskWarm},
}

var (
	anyDestination []v1alpha1.DestinationPhase
	// unsealed are the phases before anything is sealed.
	unsealed = destination("", v1alpha1.DestinationReceiving, v1alpha1.DestinationWarm)
)

func destination(phases ...v1alpha1.DestinationPhase) []v1alpha1.DestinationPhase { return phases }

// DestinationTask decides for the agent of the node of the pod that the destination works
// for (v1alpha1.PodMigration.DestinationPod), and for those of others that keep something of
// the migration.
func DestinationTask(m *v1alpha1.PodMigration, d Destination) Task {
	c, pod := m.Status.Checkpoint, m.DestinationPod()
	if !c.Carries() {
		// What is kept is of an attempt that carried the memory of processes alone. At the end
		// it goes from the claim too.
		switch {
		case d.Keeps && m.Status.Phase.IsFinished():
			return TaskDiscard
		case d.Keeps:
			return TaskClose
		}
		return TaskNone
	}
	facts := undone.where(isUndone(m)) | over.where(m.Status.Phase.IsFinished()) | keeps.where(d.Keeps) | onlyCopy.where(KeepsState(m)) |
		withProcesses.where(len(c.Processes) > 0) | taken.where(d.IsTaken)
	isReplacement := pod != nil && pod == m.Status.Replacement
	startsLate := c.RecoveredFrom != "" || m.Status.Handover != nil && m.Status.Handover.Order == v1alpha1.OrderStopFirst
	facts |= elsewhere.where(pod == nil || pod.NodeName != d.Node) | takesOver.where(isReplacement && startsLate) | claimed.where(m.Status.CheckpointClaim != "") | waits.where(d.Waits) | open.where(d.IsOpen) | sealedHere.where(d.Sealed != "")
	var reported v1alpha1.DestinationPhase
	report := CurrentDestination(m)
	if report != nil {
		reported = report.Phase
	}
	facts |= passed.where(d.Pass > 0 && (report == nil || report.Pass != d.Pass || report.Phase != v1alpha1.DestinationWarm))
	if s := CurrentSource(c); s != nil {
		isSealed := s.Phase == v1alpha1.SourceSealed && s.ManifestDigest != ""
		facts |= copied.where(s.Phase == v1alpha1.SourceCopied) | sealed.where(isSealed) |
			restored.where(isSealed && report != nil && report.ManifestDigest == s.ManifestDigest) | asReported.where(isSealed && d.Sealed == s.ManifestDigest)
	}
	return first(destinationTable, c.Step, reported, facts)
}
