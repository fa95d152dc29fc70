package decide

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// beginRollback writes down that the migration is rolled back, and why. Nothing is
// removed before that is in the status.
func (b *builder) beginRollback(reason, message string) Decision {
	b.condition(v1alpha1.ConditionRolledBack, metav1.ConditionFalse, reason, message)
	if updated := b.newStatus().Checkpoint; updated != nil && updated.Step != "" {
		updated.Step = v1alpha1.StepAbort
	}
	if b.isTrue(v1alpha1.ConditionReplacementPending) {
		b.condition(v1alpha1.ConditionReplacementPending, metav1.ConditionFalse, reason, message)
	}
	b.say("rolling back: %s", message)
	return b.decision
}

// rollback deletes what the migration created, and finishes.
func (b *builder) rollback() Decision {
	if d, decided := b.readopt(); decided {
		return d
	}
	if r := b.replacement(); r != nil && !b.isOnDeadNode(r, b.DestinationDown) {
		return b.removeReplacement(r)
	}
	for _, made := range []struct {
		pod    *corev1.Pod
		down   time.Duration
		remove ActionType
	}{{b.carrier(), b.SourceDown, DeleteCarrier}, {b.placeholder(), b.DestinationDown, DeletePlaceholder}} {
		if made.pod == nil || b.isOnDeadNode(made.pod, made.down) {
			continue
		}
		if made.pod.DeletionTimestamp == nil {
			return b.do(Action{Type: made.remove, Pod: made.pod})
		}
		b.decision.Wait = shortPoll
		return b.decision
	}
	if d, decided := b.unmarkOriginal(); decided {
		return d
	}
	// Its deletion waits for the last user (kubernetes.io/pvc-protection).
	if c := b.claim(); c != nil && c.DeletionTimestamp == nil {
		return b.do(Action{Type: DeleteClaim, Claim: c})
	}
	reason, message := b.conditionReason(v1alpha1.ConditionRolledBack), b.rollbackMessage()+b.leftOnDeadNodes()
	b.condition(v1alpha1.ConditionRolledBack, metav1.ConditionTrue, reason, message)
	phase := v1alpha1.PhaseFailed
	if isCancellation(reason) {
		phase = v1alpha1.PhaseCancelled
	}
	note := fmt.Sprintf("%s %s; pod %s was left as it is", phase, reason, b.Migration.Spec.PodName)
	if b.original() == nil {
		note = fmt.Sprintf("%s %s", phase, reason)
	}
	b.event(phase == v1alpha1.PhaseFailed, b.original(), reason, note+": "+message)
	return b.finish(phase, message)
}

// isOnDeadNode reports whether a pod that was removed cannot end, since its node
// does not answer. Kubernetes ends it when the node is back, or removed, and nobody
// has to wait for that: where state is carried, its gate is closed.
func (b *builder) isOnDeadNode(pod *corev1.Pod, down time.Duration) bool {
	return pod.DeletionTimestamp != nil && pod.Spec.NodeName != "" && down > b.Limits.AgentGrace
}

// leftOnDeadNodes names the pods that end only when their node is back.
func (b *builder) leftOnDeadNodes() (sentence string) {
	for _, pod := range []*corev1.Pod{b.replacement(), b.carrier(), b.placeholder()} {
		if pod != nil {
			sentence += fmt.Sprintf("; pod %s ends when node %s is Ready again, or removed", pod.Name, pod.Spec.NodeName)
		}
	}
	return sentence
}

// readopt returns a released original to its owner. A pod that the
// owner could prefer to it goes first, without being counted as failed.
func (b *builder) readopt() (_ Decision, decided bool) {
	o := b.original()
	if o == nil || o.DeletionTimestamp != nil || !owners.IsReleased(o) {
		return Decision{}, false
	}
	// It is released only after the migration was prepared.
	since := b.Now
	if prepared := b.Migration.Status.Times.Prepared; prepared != nil {
		since = prepared.Time
	}
	for i := range b.Siblings {
		if rival := &b.Siblings[i]; owners.IsRival(rival, o, b.Migration.UID, since) {
			return b.discard(rival), true
		}
	}
	restored, err := owners.Restored(o)
	if err != nil {
		return b.wait(PollInterval, "the original cannot be returned to its owner: %v", err), true
	}
	return b.do(Action{Type: ReadoptOriginal, Pod: o, Becomes: restored}), true
}

// removeReplacement waits for the owner to remove a pod that is one too many, and
// does it otherwise.
func (b *builder) removeReplacement(r *corev1.Pod) Decision {
	if r.DeletionTimestamp != nil {
		b.decision.Wait = PollInterval
		return b.decision
	}
	return b.discard(r)
}

func (b *builder) discard(pod *corev1.Pod) Decision {
	if discarded := owners.Discarded(pod); len(discarded.Finalizers) < len(pod.Finalizers) {
		return b.do(Action{Type: DiscardPod, Pod: pod, Becomes: discarded})
	}
	return b.do(Action{Type: DeleteReplacement, Pod: pod})
}

// unmarkOriginal makes sure that the original runs as before: it is thawed,
// and no mark is left. The barrier changes its resourceVersion, so that every
// write fails that a controller which is believed dead has prepared.
func (b *builder) unmarkOriginal() (_ Decision, decided bool) {
	o := b.original()
	if o == nil || o.DeletionTimestamp != nil {
		return Decision{}, false
	}
	wasFrozen := b.conditionReason(v1alpha1.ConditionSealed) != ""
	if s := b.source(); wasFrozen && b.SourceDown == 0 && s != nil && s.Phase != v1alpha1.SourceThawed && s.Phase != v1alpha1.SourceFailed {
		return b.wait(shortPoll, "waiting for the node agent of %s to thaw pod %s", s.Node, o.Name), true
	}
	replacementExisted := b.Migration.Status.Replacement != nil && b.Migration.Status.Replacement.UID != ""
	if replacementExisted && o.Annotations[v1alpha1.RollbackBarrierAnnotation] != string(b.Migration.UID) || owners.HasLowestDeletionCost(o) || hasHoldFinalizer(o) {
		return b.do(Action{Type: SetRollbackBarrier, Pod: o, Becomes: withRollbackBarrier(o, b.Migration.UID)}), true
	}
	return Decision{}, false
}

func withRollbackBarrier(original *corev1.Pod, migration types.UID) *corev1.Pod {
	pod := withoutHoldFinalizer(original)
	if owners.HasLowestDeletionCost(original) {
		pod = owners.WithoutDeletionCost(pod)
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[v1alpha1.RollbackBarrierAnnotation] = string(migration)
	return pod
}

func (b *builder) rollbackMessage() string {
	for _, c := range b.Migration.Status.Conditions {
		if c.Type == v1alpha1.ConditionRolledBack {
			return c.Message
		}
	}
	return ""
}
