package decide

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// handingOver carries state over, evicts the original and, once it is gone,
// measures and finishes.
func (b *builder) handingOver() Decision {
	if b.stopsFirst() {
		if b.IsCommitted() {
			return b.stopped()
		}
		return b.stopping()
	}
	if !b.IsCommitted() {
		if d, decided := b.beforeHandover(); decided {
			return d
		}
		if d, decided := b.replacementFailed(b.replacement()); decided {
			return d
		}
		if d, decided := b.carryState(); decided {
			return d
		}
	}
	o := b.original()
	if o == nil || o.DeletionTimestamp != nil {
		return b.takeOver()
	}
	return b.evictOriginal(o)
}

// carryState carries state over at the handover. Nothing is decided when the
// replacement has its state, or has none to wait for.
func (b *builder) carryState() (_ Decision, decided bool) {
	c := b.Migration.Status.Checkpoint
	if !b.carries() || b.isTrue(v1alpha1.ConditionReleased) {
		return Decision{}, false
	}
	if d, decided := b.sourceFailed(); decided {
		return d, true
	}
	if d, decided := b.destinationFailed(); decided {
		return d, true
	}
	if c.Step == v1alpha1.StepCopy {
		// A frozen pod is disrupted: the budgets have a say in that too.
		return b.do(Action{Type: CheckEviction, Pod: b.Pod}), true
	}
	s, d := b.source(), b.destination()
	if s == nil || s.Phase != v1alpha1.SourceSealed {
		return b.awaitFrozen(b.lastCopy()), true
	}
	if d == nil || d.Phase != v1alpha1.DestinationRestored || d.Pass != s.Pass {
		return b.awaitFrozen(fmt.Sprintf("restoring and verifying the checkpoint on node %s", b.Migration.Status.Replacement.NodeName)), true
	}
	return b.markReleased(s), true
}

// evictOriginal evicts the original, or has its ReplicaSet delete it, once the
// replacement is ready.
func (b *builder) evictOriginal(o *corev1.Pod) Decision {
	r := b.replacement()
	if d, decided := b.replacementFailed(r); decided {
		return d
	}
	if !b.isReplacementReady(r) {
		return b.wait(readyPoll, "replacement %s is not ready, not evicting the original: %s", r.Name, startProgress(r))
	}
	if !b.isTrue(v1alpha1.ConditionReplacementReady) {
		b.markReplacementReady(r)
		return b.decision
	}
	if c := b.carrier(); c != nil && c.DeletionTimestamp == nil {
		return b.do(Action{Type: DeleteCarrier, Pod: c})
	}
	if keepsPreviousClaim(b.PreviousClaim, o, r) {
		return b.do(Action{Type: KeepPreviousClaim, Pod: r, Claim: b.PreviousClaim})
	}
	if !b.adopts() {
		return b.do(Action{Type: Evict, Pod: o})
	}
	return b.offerToReplicaSet(o, r)
}

const (
	// readyPoll is how often a replacement is looked at that was ready, or had its
	// state, and is not ready.
	readyPoll = 2 * time.Second
	// adoptionGrace is how long the ReplicaSet may take to delete the original once
	// it has the replacement.
	adoptionGrace = 10 * time.Second
	// Bounds of the wait before the Eviction API is asked again, and the part of the
	// time blocked so far that it is.
	minEvictionWait = time.Second
	maxEvictionWait = 30 * time.Second
	evictionBackoff = 4
)

// offerToReplicaSet has the ReplicaSet take the replacement for the original. The budgets
// are asked first, though one more pod than wanted is running at that moment.
func (b *builder) offerToReplicaSet(o, r *corev1.Pod) Decision {
	switch {
	case b.Owner.ReplicaSet == nil:
		// Nobody counts the pod any more.
		return b.do(Action{Type: Evict, Pod: o})
	case owners.IsAdopted(r, b.Owner):
		if b.conditionReason(v1alpha1.ConditionHandedOver) != ReasonOffered {
			b.condition(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonOffered, "the ReplicaSet has the replacement, and deletes the original")
			return b.decision
		}
		if left := adoptionGrace - b.since(v1alpha1.ConditionHandedOver); left > 0 {
			return b.wait(min(left, shortPoll), "waiting for ReplicaSet %s to delete pod %s", b.Owner.ReplicaSet.Name, o.Name)
		}
		// It wants one pod more by now: the original is still the one to go.
		return b.do(Action{Type: Evict, Pod: o})
	case !owners.HasLowestDeletionCost(o):
		return b.do(Action{Type: MarkOriginal, Pod: o, Becomes: owners.WithLowestDeletionCost(o)})
	}
	return b.do(Action{Type: OfferReplacement, Pod: r, Becomes: owners.Adopted(r, b.Owner), Evicts: o})
}

// takeOver finishes a migration whose original is going or gone.
func (b *builder) takeOver() Decision {
	r := b.replacement()
	if !b.isTrue(v1alpha1.ConditionReplacementReady) && r != nil && b.isReplacementReady(r) {
		b.markReplacementReady(r)
		return b.decision
	}
	if o := b.original(); o != nil {
		return b.wait(PollInterval, "replacement %s takes over; waiting for pod %s to end", b.Migration.Status.Replacement.Name, o.Name)
	}
	if !b.isTrue(v1alpha1.ConditionHandedOver) {
		b.newStatus().Times.OriginalGone = b.microNow()
		b.condition(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver, "the original is gone")
		b.event(false, b.replacement(), ReasonHandedOver, fmt.Sprintf("Pod %s is gone, replacement %s has taken over", b.Migration.Spec.PodName, b.Migration.Status.Replacement.Name))
		b.say("the original is gone, measuring the replacement")
		return b.decision
	}
	if d, decided := b.replacementFailed(r); decided {
		return d
	}
	if !b.isTrue(v1alpha1.ConditionReplacementReady) {
		return b.wait(PollInterval, "the original is gone; waiting for replacement %s on node %s: %s", r.Name, r.Spec.NodeName, startProgress(r))
	}
	if b.adopts() && b.Owner.ReplicaSet != nil && !owners.IsAdopted(r, b.Owner) {
		// The ReplicaSet has released the original for the replacement of another
		// pod, whose original is now the one too many.
		return b.do(Action{Type: OfferReplacement, Pod: r, Becomes: owners.Adopted(r, b.Owner)})
	}
	return b.complete(r)
}

// evictionWait grows with the time that the handover has been blocked, from
// one second to thirty. It needs no memory but the status.
func (b *builder) evictionWait() time.Duration {
	ready := b.Migration.Status.Times.ReplacementReady
	if ready == nil {
		return minEvictionWait
	}
	wait := min(maxEvictionWait, max(minEvictionWait, b.Now.Sub(ready.Time)/evictionBackoff))
	if left := b.deadline().Sub(b.Now); left > 0 {
		wait = max(minEvictionWait, min(wait, left))
	}
	return wait
}

// keepsPreviousClaim reports whether the checkpoint claim of the migration
// before would be collected together with the original. The replacement does
// not mount it; what an application wrote there is kept for as long as the
// replacement lives.
func keepsPreviousClaim(claim *corev1.PersistentVolumeClaim, original, replacement *corev1.Pod) bool {
	return claim != nil && claim.DeletionTimestamp == nil &&
		isOwnedByPod(claim.OwnerReferences, original) && !isOwnedByPod(claim.OwnerReferences, replacement)
}
