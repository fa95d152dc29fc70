package migration

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// handingOver carries state over, lets the original go and, once it is gone,
// measures and finishes.
func (st *step) handingOver() Decision {
	if st.stopsFirst() {
		if st.isCommitted() {
			return st.stopped()
		}
		return st.stopping()
	}
	if !st.isCommitted() {
		if d, stop := st.beforeHandover(); stop {
			return d
		}
		if d, lost := st.replacementLost(st.replacement()); lost {
			return d
		}
		if d, made := st.carryOver(); made {
			return d
		}
	}
	o := st.original()
	if o == nil || o.DeletionTimestamp != nil {
		return st.takeOver()
	}
	return st.letGo(o)
}

// letGo removes the original, once the replacement works.
func (st *step) letGo(o *corev1.Pod) Decision {
	r := st.replacement()
	if d, lost := st.replacementLost(r); lost {
		return d
	}
	if !st.goesOn(r) {
		return st.wait(2*time.Second, "replacement %s does not work, not removing the original: %s", r.Name, startProgress(r))
	}
	if !st.isTrue(v1alpha1.ConditionReplacementReady) {
		st.works(r)
		return st.decision
	}
	if c := st.carrier(); c != nil && c.DeletionTimestamp == nil {
		return st.do(Action{Type: DeleteCarrier, Pod: c})
	}
	if keepsPreviousClaim(st.PreviousClaim, o, r) {
		return st.do(Action{Type: KeepPreviousClaim, Pod: r, Claim: st.PreviousClaim})
	}
	if !st.adopts() {
		return st.do(Action{Type: Evict, Pod: o})
	}
	return st.swap(o, r)
}

// adoptionGrace is how long the ReplicaSet may take to delete the original once
// it has the replacement.
const adoptionGrace = 10 * time.Second

// swap has the ReplicaSet take the replacement for the original. The budgets
// are asked first, though one more pod than wanted works at that moment.
func (st *step) swap(o, r *corev1.Pod) Decision {
	switch {
	case st.Owner.ReplicaSet == nil:
		// Nobody counts the pod any more.
		return st.do(Action{Type: Evict, Pod: o})
	case owners.IsAdopted(r, st.Owner):
		if st.conditionReason(v1alpha1.ConditionHandedOver) != ReasonOffered {
			st.condition(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonOffered, "the ReplicaSet has the replacement, and deletes the original")
			return st.decision
		}
		if left := adoptionGrace - st.since(v1alpha1.ConditionHandedOver); left > 0 {
			return st.wait(min(left, time.Second), "waiting for ReplicaSet %s to delete pod %s", st.Owner.ReplicaSet.Name, o.Name)
		}
		// It wants one pod more by now: the original is still the one to go.
		return st.do(Action{Type: Evict, Pod: o})
	case !owners.HasLowestDeletionCost(o):
		return st.do(Action{Type: MarkOriginal, Pod: o, Becomes: owners.WithLowestDeletionCost(o)})
	}
	return st.do(Action{Type: OfferReplacement, Pod: r, Becomes: owners.Adopted(r, st.Owner), Evicts: o})
}

// takeOver finishes a migration whose original is going or gone.
func (st *step) takeOver() Decision {
	r := st.replacement()
	if !st.isTrue(v1alpha1.ConditionReplacementReady) && r != nil && st.goesOn(r) {
		st.works(r)
		return st.decision
	}
	if o := st.original(); o != nil {
		return st.wait(pollInterval, "replacement %s takes over; waiting for pod %s to end", st.Migration.Status.Replacement.Name, o.Name)
	}
	if !st.isTrue(v1alpha1.ConditionHandedOver) {
		st.status().Times.OriginalGone = st.microNow()
		st.condition(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver, "the original is gone")
		st.event(false, st.replacement(), ReasonHandedOver, fmt.Sprintf("Pod %s is gone, replacement %s has taken over", st.Migration.Spec.PodName, st.Migration.Status.Replacement.Name))
		st.say("the original is gone, measuring the replacement")
		return st.decision
	}
	if d, lost := st.replacementLost(r); lost {
		return d
	}
	if !st.isTrue(v1alpha1.ConditionReplacementReady) {
		return st.wait(pollInterval, "the original is gone; waiting for replacement %s on node %s: %s", r.Name, r.Spec.NodeName, startProgress(r))
	}
	if st.adopts() && st.Owner.ReplicaSet != nil && !owners.IsAdopted(r, st.Owner) {
		// The ReplicaSet has let the original go for the replacement of another
		// pod, whose original is now the one too many.
		return st.do(Action{Type: OfferReplacement, Pod: r, Becomes: owners.Adopted(r, st.Owner)})
	}
	return st.complete(r)
}

// complete cleans up after a replacement that works, measures it, and ends.
func (st *step) complete(r *corev1.Pod) Decision {
	if c := st.carrier(); c != nil && c.DeletionTimestamp == nil {
		return st.do(Action{Type: DeleteCarrier, Pod: c})
	}
	if p := st.placeholder(); p != nil && p.DeletionTimestamp == nil {
		return st.do(Action{Type: DeletePlaceholder, Pod: p})
	}
	if c := st.keptClaim(); c != nil && st.ownsClaim() && !isOwnedByPod(c.OwnerReferences, r) {
		return st.do(Action{Type: AdoptClaim, Pod: r, Claim: c})
	}
	if st.status().After == nil {
		if st.Migration.DeletionTimestamp == nil && r.Status.Phase != corev1.PodSucceeded {
			return st.do(Action{Type: MeasureAfter, Pod: r})
		}
		st.measured(r, nil)
	}
	return st.succeed(r)
}

func (st *step) succeed(r *corev1.Pod) Decision {
	message := fmt.Sprintf("moved from node %s to node %s as pod %s", st.Migration.Status.Original.NodeName, r.Spec.NodeName, r.Name)
	if freed := freedRequests(st.status().Before, st.status().After); freed != "" {
		message += "; requests freed: " + freed
	}
	st.event(false, r, ReasonSucceeded, fmt.Sprintf("Pod %s was %s", st.Migration.Spec.PodName, message))
	return st.finish(v1alpha1.PhaseSucceeded, message)
}

// evictionWait grows with the time that the handover has been blocked, from
// one second to thirty. It needs no memory but the status.
func (st *step) evictionWait() time.Duration {
	ready := st.Migration.Status.Times.ReplacementReady
	if ready == nil {
		return time.Second
	}
	wait := min(30*time.Second, max(time.Second, st.Now.Sub(ready.Time)/4))
	if left := st.deadline().Sub(st.Now); left > 0 {
		wait = max(time.Second, min(wait, left))
	}
	return wait
}

// measureUntil is when the measurement of the replacement is given up.
func (st *step) measureUntil() time.Time {
	gone := st.status().Times.OriginalGone
	if gone == nil {
		return st.Now
	}
	return gone.Add(st.Limits.MeasureTimeout)
}

// keptClaim is the checkpoint claim, made or brought along.
func (st *step) keptClaim() *corev1.PersistentVolumeClaim {
	if c := st.Migration.Status.Checkpoint; c != nil && c.ClaimReused {
		return st.Claim
	}
	return st.claim()
}

func (st *step) ownsClaim() bool {
	return st.Migration.Spec.Checkpoint.ReclaimPolicy != v1alpha1.ClaimRetain
}

// keepsPreviousClaim reports whether the checkpoint claim of the migration
// before would be collected together with the original. The replacement does
// not mount it; what an application wrote there is kept for as long as the
// replacement lives.
func keepsPreviousClaim(claim *corev1.PersistentVolumeClaim, original, replacement *corev1.Pod) bool {
	return claim != nil && claim.DeletionTimestamp == nil &&
		isOwnedByPod(claim.OwnerReferences, original) && !isOwnedByPod(claim.OwnerReferences, replacement)
}

func isOwnedByPod(owners []metav1.OwnerReference, pod *corev1.Pod) bool {
	return slices.ContainsFunc(owners, func(o metav1.OwnerReference) bool { return o.UID == pod.UID })
}
