package decide

import (
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Original is what the agent of the source node knows of the original.
type Original struct {
	// FrozenIn is the attempt in which the agent froze it; 0 when it is not frozen.
	FrozenIn int32
	// IsLeaving: it is gone or being deleted.
	IsLeaving bool
	// IsDisturbed: since the seal it has been thawed, a container of it has ended or was
	// started, or its node was started again.
	IsDisturbed bool
	// IsOverdue: it has been frozen for longer than it may be.
	IsOverdue bool
	// IsIntroduced: the report of the source has the fingerprint of this process.
	IsIntroduced bool
}

// Facts about an original.
const (
	// frozen: the agent has frozen it, of an earlier attempt: in one that is over.
	frozen fact = 1 << iota
	ofEarlierAttempt
	leaving
	disturbed
	overdue
	// accepted: the controller has accepted the seal; committed: the original is about to
	// be evicted, or is being.
	accepted
	committed
	// released: the replacement may run.
	released
	// rolledBack: a rollback is written down. After a release it is begun only when the
	// replacement is gone for certain.
	rolledBack
	// succeeded or not: finished.
	finished
	succeeded
	// introduced: the destination admits this process.
	introduced
	// receiver: the destination can be connected to; warm: it has a complete pass; stored:
	// it has sealed what it has.
	receiver
	warm
	stored
)

// sourceTable is what the source does in a step of the controller.
var sourceTable = []row[v1alpha1.SourcePhase]{
	{anyStep, anySource, frozen | leaving | accepted, rolledBack, TaskKill},
	{anyStep, anySource, frozen | released | succeeded, rolledBack, TaskKill},
	{anyStep, anySource, frozen | released | disturbed, rolledBack, TaskKillAndHold},
	{anyStep, anySource, frozen | released | finished, rolledBack, TaskStrand},
	{anyStep, anySource, frozen | released, rolledBack, TaskKeepFrozen},
	{anyStep, anySource, frozen | finished, 0, TaskThaw},
	{anyStep, anySource, finished, 0, TaskNone},
	{at(v1alpha1.StepAbort), anySource, frozen, 0, TaskReportAndThaw},
	{anyStep, anySource, frozen | ofEarlierAttempt, 0, TaskThaw},
	{at(v1alpha1.StepAbort), endPhases, 0, frozen, TaskNone},
	{at(v1alpha1.StepAbort), anySource, 0, frozen, TaskReportAndThaw},
	{anyStep, endPhases, frozen, 0, TaskThaw},
	{at(v1alpha1.StepMeasure), source(""), 0, 0, TaskMeasure},
	{at(v1alpha1.StepCopy), anySource, frozen, 0, TaskThaw},
	{at(v1alpha1.StepSeal), anySource, frozen | disturbed, 0, TaskReportAndThaw},
	{at(v1alpha1.StepSeal), anySource, frozen | overdue, committed, TaskReportAndThaw},
	{at(v1alpha1.StepSeal), source(v1alpha1.SourceSealed), frozen, 0, TaskKeepFrozen},
	{at(v1alpha1.StepSeal), anySource, frozen | stored, 0, TaskVoidSeal},
	{at(v1alpha1.StepSeal), anySource, frozen, 0, TaskSealAgain},
	{at(v1alpha1.StepSeal), source(v1alpha1.SourceSealed), 0, frozen, TaskNone},
	{at(v1alpha1.StepCopy, v1alpha1.StepSeal), endPhases, 0, frozen, TaskNone},
	{at(v1alpha1.StepCopy, v1alpha1.StepSeal), anySource, 0, frozen | introduced, TaskIntroduce},
	{at(v1alpha1.StepCopy), source("", v1alpha1.SourceMeasured, v1alpha1.SourceCopying), receiver, frozen, TaskCopy},
	{at(v1alpha1.StepCopy), source(v1alpha1.SourceCopied), receiver, frozen | warm, TaskCopy},
	{at(v1alpha1.StepSeal), anySource, receiver, frozen, TaskSeal},
	{at(""), anySource, frozen, 0, TaskThaw},
}

var (
	anySource []v1alpha1.SourcePhase
	endPhases = source(v1alpha1.SourceThawed, v1alpha1.SourceFailed)
)

func source(phases ...v1alpha1.SourcePhase) []v1alpha1.SourcePhase { return phases }

// SourceTask decides for the agent of the node of the original.
func SourceTask(m *v1alpha1.PodMigration, original Original) Task {
	c := m.Status.Checkpoint
	if !c.Carries() {
		if original.FrozenIn != 0 && !IsReleased(m) {
			// It was frozen for the memory of its processes, which cannot move, and it has no
			// volumes to carry: its replacement starts afresh.
			return TaskThaw
		}
		return TaskNone
	}
	var reported v1alpha1.SourcePhase
	if report := CurrentSource(c); report != nil {
		reported = report.Phase
	}
	isFrozen := original.FrozenIn != 0
	return first(sourceTable, c.Step, reported,
		frozen.where(isFrozen)|
			ofEarlierAttempt.where(isFrozen && original.FrozenIn != c.Attempt)|
			leaving.where(original.IsLeaving)|
			disturbed.where(original.IsDisturbed)|
			overdue.where(original.IsOverdue)|
			accepted.where(meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionSealed))|
			committed.where(meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionCommitted))|
			released.where(IsReleased(m))|
			rolledBack.where(isRolledBack(m))|
			finished.where(m.Status.Phase.IsFinished())|
			succeeded.where(m.Status.Phase == v1alpha1.PhaseSucceeded)|
			introduced.where(original.IsIntroduced)|
			receiverFacts(m))
}

// receiverFacts are the facts about the destination that the source decides from.
func receiverFacts(m *v1alpha1.PodMigration) fact {
	report := CurrentDestination(m)
	if report == nil {
		return 0
	}
	isStored := report.Phase == v1alpha1.DestinationStored || report.Phase == v1alpha1.DestinationRestored
	return receiver.where(Receiver(m) != nil) | warm.where(report.Phase == v1alpha1.DestinationWarm) | stored.where(isStored)
}

// IsReleased reports whether the replacement runs with the carried state, or may at any
// moment.
func IsReleased(m *v1alpha1.PodMigration) bool {
	c := m.Status.Checkpoint
	return c != nil && c.Step == v1alpha1.StepRelease || meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionReleased)
}
