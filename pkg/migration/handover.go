package migration

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// handingOver evicts the original and, once it is gone, measures and finishes.
func (st *step) handingOver() Decision {
	if st.isCommitted() {
		return st.takeOver()
	}
	if d, stop := st.beforeHandover(); stop {
		return d
	}
	r := st.replacement()
	if d, lost := st.replacementLost(r); lost {
		return d
	}
	if !isWorking(r) {
		return st.wait(st.untilDeadline(), "replacement %s no longer works, not evicting the original: %s", r.Name, startProgress(r))
	}
	if keepsPreviousClaim(st.PreviousClaim, st.Pod, r) {
		return st.do(Action{Type: KeepPreviousClaim, Pod: r, Claim: st.PreviousClaim})
	}
	return st.do(Action{Type: Evict, Pod: st.Pod})
}

// takeOver finishes a migration whose original is going or gone.
func (st *step) takeOver() Decision {
	if o := st.original(); o != nil {
		if o.DeletionTimestamp == nil {
			// Evicted by the kubelet: the pod has failed, its record is left.
			return st.do(Action{Type: Evict, Pod: o})
		}
		return st.wait(pollInterval, "replacement %s works; waiting for pod %s to end", st.Migration.Status.Replacement.Name, o.Name)
	}
	if !st.isTrue(v1alpha1.ConditionHandedOver) {
		st.status().Times.OriginalGone = st.microNow()
		st.condition(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver, "the original is gone")
		st.event(false, st.replacement(), ReasonHandedOver, fmt.Sprintf("Pod %s is gone, replacement %s has taken over", st.Migration.Spec.PodName, st.Migration.Status.Replacement.Name))
		st.say("the original is gone, measuring the replacement")
		return st.decision
	}
	r := st.replacement()
	if d, lost := st.replacementLost(r); lost {
		return d
	}
	if c := st.claim(); c != nil && st.ownsClaim() && !isOwnedByPod(c.OwnerReferences, r) {
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
