package decide

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// complete cleans up after a replacement that is ready, measures it, and ends.
func (b *builder) complete(r *corev1.Pod) Decision {
	if c := b.carrier(); c != nil && c.DeletionTimestamp == nil {
		return b.do(Action{Type: DeleteCarrier, Pod: c})
	}
	if p := b.placeholder(); p != nil && p.DeletionTimestamp == nil {
		return b.do(Action{Type: DeletePlaceholder, Pod: p})
	}
	if c := b.keptClaim(); c != nil && b.ownsClaim() && !isOwnedByPod(c.OwnerReferences, r) {
		return b.do(Action{Type: AdoptClaim, Pod: r, Claim: c})
	}
	if b.newStatus().After == nil {
		if b.Migration.DeletionTimestamp == nil && r.Status.Phase != corev1.PodSucceeded {
			return b.do(Action{Type: MeasureAfter, Pod: r})
		}
		b.markMeasured(r, nil)
	}
	return b.succeed(r)
}

func (b *builder) succeed(r *corev1.Pod) Decision {
	message := fmt.Sprintf("moved from node %s to node %s as pod %s", b.Migration.Status.Original.NodeName, r.Spec.NodeName, r.Name)
	if freed := freedRequests(b.newStatus().Before, b.newStatus().After); freed != "" {
		message += "; requests freed: " + freed
	}
	b.event(false, r, ReasonSucceeded, fmt.Sprintf("Pod %s was %s", b.Migration.Spec.PodName, message))
	return b.finish(v1alpha1.PhaseSucceeded, message)
}

// measureUntil is when the measurement of the replacement is no longer waited for.
func (b *builder) measureUntil() time.Time {
	gone := b.newStatus().Times.OriginalGone
	if gone == nil {
		return b.Now
	}
	return gone.Add(b.Limits.MeasureTimeout)
}

// replacementFailed handles a recorded replacement that is gone, going or failed.
func (b *builder) replacementFailed(r *corev1.Pod) (_ Decision, decided bool) {
	recorded := b.Migration.Status.Replacement
	var reason, message string
	switch {
	case r == nil || r.UID != recorded.UID:
		reason, message = ReasonReplacementDeleted, fmt.Sprintf("replacement %s was deleted by another client", recorded.Name)
	case r.Status.Phase == corev1.PodFailed:
		reason, message = ReasonReplacementFailed, fmt.Sprintf("replacement %s failed on node %s: %s", r.Name, r.Spec.NodeName, podFailure(r))
	case r.DeletionTimestamp != nil:
		reason, message = ReasonReplacementDeleted, fmt.Sprintf("replacement %s is being deleted by another client", recorded.Name)
	default:
		return Decision{}, false
	}
	if !b.IsCommitted() {
		return b.beginRollback(reason, message), true
	}
	// Nothing can be rolled back; removing what is left would only lose more.
	return b.failPermanently(reason, message+" after the original had gone"), true
}

// failPermanently ends a migration that can neither continue nor be rolled back. A
// claim with the only copy of the state is kept. Any other shares the fate of the
// replacement, as its policy says.
func (b *builder) failPermanently(reason, message string) Decision {
	if b.holdsOnlyCopy() {
		return b.failKeepingClaim(reason, message)
	}
	if c, r := b.keptClaim(), b.replacement(); c != nil && c.DeletionTimestamp == nil && b.ownsClaim() {
		if r == nil && b.claim() == nil {
			return b.finishFailed(reason, message)
		}
		if r == nil {
			return b.do(Action{Type: DeleteClaim, Claim: c})
		}
		if !isOwnedByPod(c.OwnerReferences, r) {
			return b.do(Action{Type: AdoptClaim, Pod: r, Claim: c})
		}
	}
	return b.finishFailed(reason, message)
}

// holdsOnlyCopy reports whether state was sealed that no replacement continues with.
// The original has ended by then.
func (s *State) holdsOnlyCopy() bool {
	return s.carries() && s.isTrue(v1alpha1.ConditionSealed) && !s.isTrue(v1alpha1.ConditionReleased)
}

// failKeepingClaim fails, whatever the reclaim policy says, with a claim that no pod
// owns: deleting a pod, which is what a user does next, would delete the claim.
func (b *builder) failKeepingClaim(reason, message string) Decision {
	name, claim := b.Migration.Status.CheckpointClaim, b.keptClaim()
	switch {
	case claim == nil:
		return b.finishFailed(reason, fmt.Sprintf("%s; claim %s, which held what was carried, no longer exists", message, name))
	case claim.DeletionTimestamp != nil:
		return b.finishFailed(reason, fmt.Sprintf("%s; claim %s, which holds what was carried, is being deleted by another client", message, name))
	}
	for _, o := range claim.OwnerReferences {
		if o.Kind == "Pod" {
			owner := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: claim.Namespace, Name: o.Name, UID: o.UID}}
			return b.do(Action{Type: OrphanClaim, Pod: owner, Claim: claim})
		}
	}
	return b.finishFailed(reason, fmt.Sprintf("%s; what was carried is kept on claim %s", message, name))
}

func (b *builder) finishFailed(reason, message string) Decision {
	if c := b.carrier(); c != nil && c.DeletionTimestamp == nil {
		return b.do(Action{Type: DeleteCarrier, Pod: c})
	}
	b.condition(v1alpha1.ConditionReplacementReady, metav1.ConditionFalse, reason, message)
	b.event(true, nil, reason, message)
	return b.finish(v1alpha1.PhaseFailed, message)
}

// keptClaim is the checkpoint claim, created or brought along by the pod.
func (b *builder) keptClaim() *corev1.PersistentVolumeClaim {
	if c := b.Migration.Status.Checkpoint; c != nil && c.ClaimReused {
		return b.Claim
	}
	return b.claim()
}

func (b *builder) ownsClaim() bool {
	return b.Migration.Spec.Checkpoint.ReclaimPolicy != v1alpha1.ClaimRetain
}

func isOwnedByPod(owners []metav1.OwnerReference, pod *corev1.Pod) bool {
	return slices.ContainsFunc(owners, func(o metav1.OwnerReference) bool { return o.UID == pod.UID })
}
