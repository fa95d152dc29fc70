package decide

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// Next decides the next step of a migration. It is pure: the same state gives
// the same decision.
func Next(s State) Decision {
	b := newBuilder(&s)
	m := s.Migration
	switch {
	case m.Status.Phase.IsFinished():
		return b.finished()
	case !slices.Contains(m.Finalizers, v1alpha1.Finalizer):
		if m.DeletionTimestamp != nil {
			return b.decision
		}
		return b.do(Action{Type: AddFinalizer})
	case s.isRollingBack():
		return b.rollback()
	case s.WantsStop() && !s.IsCommitted():
		return b.cancel()
	}
	switch m.Status.Phase {
	case v1alpha1.PhasePreparing:
		return b.preparing()
	case v1alpha1.PhasePlacing:
		return b.placing()
	case v1alpha1.PhaseHandingOver:
		return b.handingOver()
	default:
		return b.pending()
	}
}

// finished cleans up the record itself. What is finished has nothing left to
// roll back: its record can be deleted at any time, also when no controller runs.
func (b *builder) finished() Decision {
	m := b.Migration
	if slices.Contains(m.Finalizers, v1alpha1.Finalizer) {
		return b.do(Action{Type: RemoveFinalizer})
	}
	if m.DeletionTimestamp != nil {
		return b.decision
	}
	if m.Spec.TTLSecondsAfterFinished == nil || m.Status.Times.Finished == nil {
		return b.decision
	}
	expires := m.Status.Times.Finished.Add(time.Duration(*m.Spec.TTLSecondsAfterFinished) * time.Second)
	if b.Now.Before(expires) {
		b.decision.Wait = expires.Sub(b.Now)
		return b.decision
	}
	return b.do(Action{Type: DeleteMigration})
}

func (b *builder) cancel() Decision {
	message := "cancelled on request"
	if b.Migration.DeletionTimestamp != nil {
		message = "cancelled because the PodMigration is being deleted"
	}
	if b.Migration.Status.Phase == "" || b.Migration.Status.Phase == v1alpha1.PhasePending {
		b.event(false, nil, ReasonCancelled, message)
		return b.finish(v1alpha1.PhaseCancelled, message)
	}
	return b.beginRollback(ReasonCancelled, message)
}

// beforeHandover is what ends or restarts a migration that is not committed.
func (b *builder) beforeHandover() (_ Decision, decided bool) {
	o := b.original()
	// With state to carry, the replacement has nothing yet to continue with.
	if o != nil && isDisrupted(o) && b.replacement() != nil && !b.carries() && !b.stopsFirst() {
		message := fmt.Sprintf("pod %s is being evicted by another client; its replacement continues", o.Name)
		b.condition(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonDisrupted, message)
		b.event(true, o, ReasonDisrupted, message)
		b.say("%s", message)
		return b.decision, true
	}
	if r := refuseOriginal(b.State); r != nil {
		return b.beginRollback(r.Reason, r.Message), true
	}
	if d, decided := b.timedOut(); decided {
		return d, true
	}
	if d, decided := b.nodeDown(); decided {
		return d, true
	}
	if !containers.Judge(o, containers.PolicyOf(b.Migration)).SameContainers(b.storedVerdicts()) {
		return b.restartPreparation(ReasonContainersChanged, "a container of the original finished or started meanwhile: the replacement is rebuilt"), true
	}
	return Decision{}, false
}

// refuseOriginal returns why the original can no longer be moved; nil while it can.
func refuseOriginal(s *State) *containers.Refusal {
	o := s.original()
	switch {
	case o == nil:
		return &containers.Refusal{Reason: ReasonOriginalDeleted, Message: fmt.Sprintf("pod %s was deleted by another client", s.Migration.Spec.PodName)}
	case o.Status.Phase == corev1.PodSucceeded:
		return &containers.Refusal{Reason: ReasonOriginalFinished, Message: fmt.Sprintf("pod %s finished its work where it was", o.Name)}
	case o.DeletionTimestamp != nil:
		return &containers.Refusal{Reason: ReasonOriginalDeleted, Message: fmt.Sprintf("pod %s is being deleted by another client", o.Name)}
	case o.Status.Phase == corev1.PodFailed:
		return &containers.Refusal{Reason: ReasonOriginalFailed, Message: fmt.Sprintf("pod %s failed by itself: %s", o.Name, podFailure(o))}
	}
	return nil
}

func (b *builder) timedOut() (_ Decision, decided bool) {
	if b.Now.Before(b.deadline()) {
		return Decision{}, false
	}
	message := fmt.Sprintf("not done within %d s", b.Migration.Spec.TimeoutSeconds)
	if last := b.Migration.Status.Message; last != "" {
		message += "; last: " + last
	}
	return b.beginRollback(ReasonTimedOut, message), true
}

// nodeDown rolls back when a node is not Ready that is needed: that of the
// replacement, and that of the original while something of it has to be copied or
// to end. The deadline would come much later, and all that time a pod may be frozen.
func (b *builder) nodeDown() (_ Decision, decided bool) {
	node, down := b.DestinationNode(), b.DestinationDown
	if down <= b.Limits.AgentGrace && (b.carries() || b.stopsFirst()) {
		node, down = b.Migration.Status.Original.NodeName, b.SourceDown
	}
	if node == "" || down <= b.Limits.AgentGrace {
		return Decision{}, false
	}
	return b.beginRollback(ReasonNodeNotReady, fmt.Sprintf("node %s has not been Ready for more than %s", node, b.Limits.AgentGrace)), true
}

// untilDeadline is how long to wait for a watch before looking again. Beyond
// the deadline only a migration without a way back waits, and it has time.
func (b *builder) untilDeadline() time.Duration {
	left := b.deadline().Sub(b.Now)
	if left <= 0 {
		return longPoll
	}
	return max(shortPoll, min(left, longPoll))
}
