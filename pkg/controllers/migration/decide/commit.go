package decide

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// withdrawsEviction reverts that the original is to end, where something speaks against
// it and it has not begun to. The barrier comes first: an eviction that an
// older leader has prepared fails from then on.
func withdrawsEviction(b *builder) (Decision, bool) {
	if !b.isAccepted() {
		return Decision{}, false
	}
	if b.hasBarrier() {
		return walk(b, withdrawing), true
	}
	if !canWithdraw(b.State) {
		return Decision{}, false
	}
	_, isStopped := firstOf(newBuilder(b.State), stops)
	if isStopped || b.conditionReason(v1alpha1.ConditionHandedOver) == ReasonEvictionBlocked {
		return walk(b, withdrawing), true
	}
	return Decision{}, false
}

// canWithdraw reports whether a committed migration can still be undone: the original
// runs, and no replacement has begun to work in its place.
func canWithdraw(s *State) bool {
	o, r := s.original(), s.replacement()
	return s.IsCommitted() && s.conditionReason(v1alpha1.ConditionCommitted) != ReasonDisrupted && o != nil && o.DeletionTimestamp == nil &&
		!s.isTrue(v1alpha1.ConditionReleased) && (r == nil || !s.isOffered(r))
}

var withdrawing = []step{
	{name: WithdrawEviction, done: (*State).hasBarrier, action: setBarrier},
	{name: WithdrawEviction, action: func(b *builder) Decision {
		b.newStatus().Handover.Withdrawals++
		why := "what was prepared to end the original is void"
		if b.conditionReason(v1alpha1.ConditionHandedOver) == ReasonEvictionBlocked {
			why = b.Migration.Status.Message
		}
		b.condition(v1alpha1.ConditionCommitted, metav1.ConditionFalse, ReasonWithdrawn, why)
		b.decision.Wait = evictionWait(b)
		return b.decision
	}},
}

// losesReplacement ends a committed migration whose replacement is lost.
func losesReplacement(b *builder) (Decision, bool) {
	if !b.IsCommitted() || b.Migration.Status.Phase == v1alpha1.PhasePreparing {
		return Decision{}, false
	}
	reason, message := committedLoss(b.State)
	if reason == "" {
		return Decision{}, false
	}
	o := b.original()
	switch {
	case o == nil || b.isTrue(v1alpha1.ConditionHandedOver) || isDisrupted(o) && o.Status.Phase == corev1.PodFailed:
		if reason != ReasonRestoreFailed {
			message += " after the original had gone"
		}
		return failPermanently(b, reason, message), true
	case o.DeletionTimestamp == nil:
		return walk(b, returning), true
	}
	return b.wait(PollInterval, "%s; waiting for pod %s to end", message, o.Name), true
}

// keepsBoth ends a migration whose ReplicaSet has both pods and wants both, and whose
// original may not be evicted in time: it has deleted another pod for the replacement.
func keepsBoth(b *builder) (Decision, bool) {
	r := b.replacement()
	if !b.IsCommitted() || r == nil || !originalRuns(b.State) || !b.isOffered(r) || b.isTrue(v1alpha1.ConditionReleased) ||
		b.conditionReason(v1alpha1.ConditionHandedOver) != ReasonEvictionBlocked || b.Now.Before(b.deadline()) {
		return Decision{}, false
	}
	return failPermanently(b, ReasonEvictionBlocked, fmt.Sprintf("ReplicaSet %s has taken replacement %s and kept pod %s, which may not be evicted: both run", b.Owner.ReplicaSet.Name, r.Name, b.original().Name)), true
}

// committedLoss says why a committed migration has lost its replacement; "" while it
// has one, or expects one.
func committedLoss(s *State) (reason, message string) {
	if node := waitsOn(s); node != "" && s.DestinationDown == NodeGone {
		return ReasonRestoreFailed, fmt.Sprintf("what was carried was on a disk of node %s alone, which no longer exists: there was no checkpoint claim", node)
	}
	if s.Migration.Status.Replacement.UID == "" {
		if s.replacement() != nil || s.method() == v1alpha1.MethodRecreate && s.stopsFirst() {
			return "", ""
		}
		return ReasonReplacementDeleted, fmt.Sprintf("replacement %s was deleted by another client", s.Migration.Status.Replacement.Name)
	}
	if reason, message = s.replacementLoss(); reason != "" {
		return reason, message
	}
	if cannotMount(s) {
		return ReasonClaimDeleted, fmt.Sprintf("claim %s was deleted by another client, so that no replacement can mount it", s.Migration.Status.CheckpointClaim)
	}
	if d := s.destination(); d != nil && d.Phase == v1alpha1.DestinationFailed && s.carries() && d.PodUID == s.Migration.Status.Replacement.UID {
		return ReasonRestoreFailed, fmt.Sprintf("the checkpoint could not be restored on node %s (%s): %s", d.Node, d.Reason, d.Message)
	}
	return "", ""
}

// returning returns to an original that runs, or is frozen, and whose replacement is
// lost. While that may still work, on a node that does not answer, two copies would be
// worse than a pause.
var returning = []step{
	{name: DiscardReplacement, done: func(s *State) bool { r := s.replacement(); return r == nil || r.DeletionTimestamp != nil }, action: func(b *builder) Decision {
		return discard(b, b.replacement())
	}},
	{name: AwaitReplacementGone, done: func(s *State) bool { return s.replacement() == nil }, action: func(b *builder) Decision {
		r := b.replacement()
		return b.wait(PollInterval, "replacement %s is ending; pod %s is not touched before it is gone from node %s for certain", r.Name, b.Migration.Spec.PodName, r.Spec.NodeName)
	}},
	{name: ReturnToOriginal, action: func(b *builder) Decision {
		reason, message := committedLoss(b.State)
		if b.isTrue(v1alpha1.ConditionReleased) {
			message += "; the original continues from where it was frozen, what the replacement did since is lost"
		}
		return beginRollback(b, reason, message)
	}},
}

// protection keeps a claim that a pod on a node uses (pvc_protection_controller.go).
const protection = "kubernetes.io/pvc-protection"

// cannotMount reports whether the replacement waits for a claim that is lost. The scheduler
// does not place it then, and the kubelet of a node to which it was bound at that moment does
// not mount what is being deleted without that protection (k8s.io/kubernetes/pkg/kubelet/volumemanager/populator,
// getPVCExtractPV). What is mounted already may take a moment to start.
func cannotMount(s *State) bool {
	r := s.replacement()
	if r == nil || !isClaimLost(s) {
		return false
	}
	isMounted := hasStarted(r) || s.Claim != nil && slices.Contains(s.Claim.Finalizers, protection)
	return r.Spec.NodeName == "" || !isMounted && s.isTrue(v1alpha1.ConditionPlaced) && s.since(v1alpha1.ConditionPlaced) >= s.Limits.StartGrace
}

// isClaimLost reports whether the claim that the replacement mounts is gone, or being
// deleted.
func isClaimLost(s *State) bool {
	return s.needsClaim() && !s.isTrue(v1alpha1.ConditionReleased) && (s.Claim == nil || s.Claim.DeletionTimestamp != nil)
}
