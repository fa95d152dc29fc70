package agent

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// duty is what an agent has to do for a migration, on one of its two nodes.
type duty string

const (
	nothing duty = ""
	// measure, copying and seal are the source's.
	measure duty = "measure"
	copying duty = "copy"
	seal    duty = "seal"
	// letGoOn thaws the pod and says so, thaw only thaws.
	letGoOn duty = "let go on"
	thaw    duty = "thaw"
	// stay keeps the pod frozen: it looks again, since its original may end.
	stay duty = "stay frozen"
	// end lets a frozen pod end that was evicted, without letting it work.
	end duty = "end"
	// warmUp, restore and release are the destination's.
	warmUp duty = "warm up"
	// invite lets the containers of a replacement come to where they wait for their
	// processes; withdraw tells them that none will come.
	invite   duty = "invite"
	withdraw duty = "withdraw"
	restore  duty = "restore"
	release  duty = "release"
)

// sourceDuty decides for the agent of the node of the original. frozen tells of
// which attempt the pod was frozen; 0 when it is not. leaving tells that the
// original is gone or being deleted.
func sourceDuty(m *v1alpha1.PodMigration, frozen int32, leaving bool) duty {
	c := m.Status.Checkpoint
	if !c.Carries() {
		return nothing
	}
	report := currentSource(c)
	rolledBack := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionRolledBack) != nil
	switch {
	case frozen != 0 && leaving && !rolledBack && meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionSealed):
		return end
	case m.Status.Phase.IsFinished():
		return thawIf(frozen != 0)
	case c.Step == v1alpha1.StepAbort:
		if frozen == 0 && report != nil && hasEnded(report.Phase) {
			return nothing
		}
		return letGoOn
	case frozen != 0 && frozen != c.Attempt, frozen != 0 && report != nil && hasEnded(report.Phase):
		return thaw
	}
	switch c.Step {
	case v1alpha1.StepMeasure:
		return orNothing(measure, report == nil)
	case v1alpha1.StepCopy:
		if frozen != 0 {
			return thaw
		}
		return orNothing(copying, report == nil || report.Phase == v1alpha1.SourceMeasured || report.Phase == v1alpha1.SourceCopying)
	case v1alpha1.StepSeal:
		if report != nil && report.Phase == v1alpha1.SourceSealed {
			return orNothing(stay, frozen != 0)
		}
		return orNothing(seal, report == nil || !hasEnded(report.Phase))
	case v1alpha1.StepRelease:
		return orNothing(stay, frozen != 0)
	}
	return thawIf(frozen != 0)
}

// destinationDuty decides for the agent of the node of the replacement.
func destinationDuty(m *v1alpha1.PodMigration) duty {
	c := m.Status.Checkpoint
	if c.Carries() && len(c.Processes) > 0 && m.Status.Replacement != nil && m.Status.Replacement.UID != "" && isUndone(m) {
		return withdraw
	}
	if !c.Carries() || m.Status.Phase.IsFinished() || m.Status.Replacement == nil || m.Status.Replacement.UID == "" ||
		meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionRolledBack) != nil {
		return nothing
	}
	source, report := currentSource(c), currentDestination(m)
	failed := report != nil && report.Phase == v1alpha1.DestinationFailed
	switch {
	case failed || source == nil:
		return nothing
	case c.Step == v1alpha1.StepCopy && source.Phase == v1alpha1.SourceCopied:
		return orNothing(warmUp, report == nil || report.Phase == v1alpha1.DestinationRestoring)
	case c.Step == v1alpha1.StepSeal && source.Phase == v1alpha1.SourceCopied && len(c.Processes) > 0:
		return orNothing(invite, report != nil && report.Phase == v1alpha1.DestinationWarm)
	case c.Step == v1alpha1.StepSeal && source.Phase == v1alpha1.SourceSealed:
		return orNothing(restore, report == nil || report.Phase != v1alpha1.DestinationRestored || report.Pass != source.Pass)
	case c.Step == v1alpha1.StepRelease && report != nil && report.Phase == v1alpha1.DestinationRestored:
		return release
	}
	return nothing
}

// isUndone reports whether the replacement will not be let go on.
func isUndone(m *v1alpha1.PodMigration) bool {
	return m.Status.Checkpoint.Step == v1alpha1.StepAbort || m.Status.Phase == v1alpha1.PhaseFailed || m.Status.Phase == v1alpha1.PhaseCancelled ||
		meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionRolledBack) != nil
}

func orNothing(d duty, due bool) duty {
	if due {
		return d
	}
	return nothing
}

func thawIf(frozen bool) duty { return orNothing(thaw, frozen) }

func hasEnded(p v1alpha1.SourcePhase) bool {
	return p == v1alpha1.SourceThawed || p == v1alpha1.SourceFailed
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
		a.Status.Checkpoint.Attempt == b.Status.Checkpoint.Attempt && !b.Status.Phase.IsFinished() &&
		meta.FindStatusCondition(b.Status.Conditions, v1alpha1.ConditionRolledBack) == nil
}

func microTime(t metav1.MicroTime) *metav1.MicroTime { return &t }
