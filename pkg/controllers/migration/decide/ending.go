package decide

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// endPlaceholder removes the placeholder, if it is left. Nobody waits for it to be gone.
var endPlaceholder = step{name: DeletePlaceholder, done: func(s *State) bool { return isLeaving(s.placeholder()) }, action: func(b *builder) Decision {
	return b.do(DeleteObject{b.placeholder()})
}}

// ending are the steps after a replacement is ready, and the original gone; leaving those
// before the last.
var (
	ending  = slices.Concat(leaving, []step{lastStep})
	leaving = []step{
		endPlaceholder,
		{name: AdoptClaim, done: claimHasOwner, action: adoptClaim},
		{name: MeasureAfter, done: func(s *State) bool { return s.Migration.Status.After != nil || isNotMeasured(s) }, action: func(b *builder) Decision {
			return b.do(MeasurePod{b.replacement()})
		}, settle: measuredAfter},
	}
	lastStep = step{name: Succeed, action: succeed}
)

// unmarkReplacement takes the mark off by which the ReplicaSet kept the replacement, once it
// has deleted another pod.
var unmarkReplacement = step{name: UnmarkReplacement, applies: (*State).adopts, done: func(s *State) bool {
	return s.replacement() == nil || !owners.HasHighestDeletionCost(s.replacement())
}, action: func(b *builder) Decision {
	r := b.replacement()
	if !owners.HasChosen(r, b.Owner) && b.Now.Before(choosesBy(b.State)) {
		return b.wait(shortPoll, "waiting for ReplicaSet %s to take replacement %s, and to delete the pod that is one too many", b.Owner.ReplicaSet.Name, r.Name)
	}
	return b.do(ChangeObject{r, owners.WithoutDeletionCost(r)})
}}

// isNotMeasured reports whether nobody waits for a measurement of the replacement.
func isNotMeasured(s *State) bool {
	return s.recovers() || s.Migration.DeletionTimestamp != nil || s.replacement().Status.Phase == corev1.PodSucceeded
}

// claimHasOwner reports whether the checkpoint claim is as it should be once it has been
// used: without the finalizer of the migration, and owned by the replacement, as its
// policy says. One that a migration did not create is not touched.
func claimHasOwner(s *State) bool {
	c := keptClaim(s)
	if c == nil {
		return true
	}
	isOwned := !ownsClaim(s) || isOwnedByPod(c.OwnerReferences, s.replacement())
	return isFree(s, c) && (c.DeletionTimestamp != nil || isOwned)
}

// isFree reports whether neither the finalizer nor the ownership of the migration is
// on a claim.
func isFree(s *State, c *corev1.PersistentVolumeClaim) bool {
	return !hasClaimFinalizer(c) && !isOwnedBy(c.OwnerReferences, s.Migration.UID)
}

func adoptClaim(b *builder) Decision {
	c := withoutOwner(withoutClaimFinalizer(keptClaim(b.State)), b.Migration.UID)
	if ownsClaim(b.State) && c.DeletionTimestamp == nil {
		c = withOwner(c, b.replacement())
	}
	return b.do(ChangeObject{keptClaim(b.State), c})
}

func succeed(b *builder) Decision {
	r := b.replacement()
	if b.newStatus().After == nil && !b.recovers() {
		markMeasured(b, r, nil)
	}
	message := fmt.Sprintf("moved from node %s to node %s as pod %s", b.Migration.Status.Original.NodeName, r.Spec.NodeName, r.Name)
	if b.recovers() {
		b.event(false, r, ReasonSucceeded, fmt.Sprintf("Pod %s was recovered on node %s", r.Name, r.Spec.NodeName))
		return b.finish(v1alpha1.PhaseSucceeded, fmt.Sprintf("pod %s runs on node %s with the state that PodMigration %s had kept", r.Name, r.Spec.NodeName, b.Migration.Spec.RecoverFrom))
	}
	if freed := freedRequests(b.newStatus().Before, b.newStatus().After); freed != "" {
		message += "; requests freed: " + freed
	}
	b.event(false, r, ReasonSucceeded, fmt.Sprintf("Pod %s was %s", b.Migration.Spec.PodName, message))
	return b.finish(v1alpha1.PhaseSucceeded, message)
}

// measureUntil is when the measurement of the replacement is no longer waited for.
func measureUntil(b *builder) time.Time {
	gone := b.newStatus().Times.OriginalGone
	if gone == nil {
		return b.Now
	}
	return gone.Add(b.Limits.MeasureTimeout)
}

// failPermanently ends a migration that can neither continue nor be rolled back. What
// it made is removed, but a claim with the only copy of the state is kept. Any other
// shares the fate of the replacement, as its policy says.
func failPermanently(b *builder, reason, message string) Decision {
	b.condition(v1alpha1.ConditionReplacementReady, metav1.ConditionFalse, reason, message)
	return walk(b, failing)
}

var failing = []step{
	{name: UnmarkOriginal, applies: originalRuns, done: func(s *State) bool { return !owners.HasLowestDeletionCost(s.original()) }, action: func(b *builder) Decision {
		return b.do(ChangeObject{b.original(), owners.WithoutDeletionCost(b.original())})
	}},
	unmarkReplacement,
	// One without a node, or without its claim, has never run, and would wait for ever.
	{name: DiscardReplacement, applies: func(s *State) bool {
		r := s.replacement()
		return r != nil && (r.Spec.NodeName == "" || cannotMount(s)) && r.DeletionTimestamp == nil && !pods.IsTerminal(r)
	}, action: func(b *builder) Decision {
		return discard(b, b.replacement())
	}},
	endPlaceholder,
	{name: KeepClaim, applies: (*State).holdsOnlyCopy, done: isClaimKept, action: keepClaim},
	{name: AdoptClaim, applies: func(s *State) bool { return !s.holdsOnlyCopy() && s.replacement() != nil }, done: claimHasOwner, action: adoptClaim},
	{name: DeleteClaim, applies: func(s *State) bool { return !s.holdsOnlyCopy() && s.replacement() == nil && ownsClaim(s) }, done: func(s *State) bool { return isClaimDeleted(s.claim()) }, action: deleteClaim},
	{name: AdoptClaim, applies: func(s *State) bool { return !s.holdsOnlyCopy() && s.replacement() == nil && !ownsClaim(s) }, done: func(s *State) bool { return s.claim() == nil || isFree(s, s.claim()) }, action: func(b *builder) Decision {
		return b.do(ChangeObject{b.claim(), withoutOwner(withoutClaimFinalizer(b.claim()), b.Migration.UID)})
	}},
	{name: FinishFailed, action: finishFailed},
}

func finishFailed(b *builder) Decision {
	var reason, message string
	for _, c := range b.newStatus().Conditions {
		if c.Type == v1alpha1.ConditionReplacementReady {
			reason, message = c.Reason, c.Message
		}
	}
	message += markKept(b)
	b.condition(v1alpha1.ConditionReplacementReady, metav1.ConditionFalse, reason, message)
	b.event(true, nil, reason, message)
	return b.finish(v1alpha1.PhaseFailed, message)
}

// holdsOnlyCopy reports whether state was sealed, and is on the claim, that no replacement
// continues with, and the original has ended. One that was released and has never been Ready does not
// count: it may have been deleted before it began.
func (s *State) holdsOnlyCopy() bool {
	if s.recovers() && s.claim() == nil {
		return false // it is still that of the failed migration
	}
	hasStarted := s.isTrue(v1alpha1.ConditionReleased) && s.Migration.Status.Times.ReplacementReady != nil
	return s.carries() && s.needsClaim() && isSealed(s) && !hasStarted && s.originalEnding()
}

// isClaimKept reports whether the claim has the mark of this migration, and no pod owns
// it: deleting a pod, which is what a user does next, would delete it. A claim that is being deleted keeps its finalizer.
func isClaimKept(s *State) bool {
	c := keptClaim(s)
	return c == nil || v1alpha1.OwnedBy(c.Labels, s.Migration.UID) && !slices.ContainsFunc(c.OwnerReferences, mayGo) && (c.DeletionTimestamp != nil || !hasClaimFinalizer(c))
}

// mayGo reports whether an owner goes with a pod, or with the record of a migration.
func mayGo(o metav1.OwnerReference) bool {
	return o.Kind == "Pod" && o.APIVersion == "v1" || o.Kind == "PodMigration" && o.APIVersion == v1alpha1.SchemeGroupVersion.String()
}

func keepClaim(b *builder) Decision {
	kept := keptClaim(b.State).DeepCopy()
	kept.OwnerReferences = slices.DeleteFunc(kept.OwnerReferences, mayGo)
	// One that an earlier migration of the pod has created is recovered from this one.
	kept.Labels[v1alpha1.MigrationUIDLabel] = string(b.Migration.UID)
	if kept.DeletionTimestamp == nil {
		kept = withoutClaimFinalizer(kept)
	}
	return b.do(ChangeObject{keptClaim(b.State), kept})
}

// keptCopy says where the only copy of the state is.
func keptCopy(b *builder) string {
	name, claim := b.Migration.Status.CheckpointClaim, b.Claim
	switch {
	case claim == nil:
		return fmt.Sprintf("claim %s, which held what was carried, no longer exists", name)
	case claim.DeletionTimestamp != nil:
		return fmt.Sprintf("claim %s, which holds what was carried, is being deleted by another client: finalizer %s keeps it until you have copied its content and remove the finalizer", name, v1alpha1.CheckpointFinalizer)
	}
	return fmt.Sprintf("what was carried is kept on claim %s", name)
}

// isClaimDeleted reports whether a claim of the migration is gone, or about to be: its
// deletion waits for the last user (kubernetes.io/pvc-protection).
func isClaimDeleted(c *corev1.PersistentVolumeClaim) bool {
	return c == nil || c.DeletionTimestamp != nil && !hasClaimFinalizer(c)
}

// deleteClaim deletes the claim of the migration, then removes its finalizer.
func deleteClaim(b *builder) Decision {
	c := b.claim()
	if c.DeletionTimestamp == nil {
		return b.do(DeleteObject{c})
	}
	return b.do(ChangeObject{c, withoutClaimFinalizer(c)})
}

// isClaimProtected reports whether the claim may become the only copy of the state:
// whoever deletes it has to wait, and it does not go with the record of the migration.
func isClaimProtected(s *State) bool {
	c := keptClaim(s)
	return c == nil || hasClaimFinalizer(c) && !isOwnedBy(c.OwnerReferences, s.Migration.UID)
}

func protectClaim(b *builder) Decision {
	c := keptClaim(b.State)
	protected := withoutOwner(c, b.Migration.UID)
	if !hasClaimFinalizer(protected) {
		protected.Finalizers = append(protected.Finalizers, v1alpha1.CheckpointFinalizer)
	}
	return b.do(ChangeObject{c, protected})
}

func hasClaimFinalizer(c *corev1.PersistentVolumeClaim) bool {
	return slices.Contains(c.Finalizers, v1alpha1.CheckpointFinalizer)
}

func withoutClaimFinalizer(c *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	free := c.DeepCopy()
	free.Finalizers = slices.DeleteFunc(free.Finalizers, func(f string) bool { return f == v1alpha1.CheckpointFinalizer })
	return free
}

// withOwner is a claim that goes when the pod goes, and not before.
func withOwner(c *corev1.PersistentVolumeClaim, pod *corev1.Pod) *corev1.PersistentVolumeClaim {
	owned := c.DeepCopy()
	if !isOwnedByPod(c.OwnerReferences, pod) {
		owned.OwnerReferences = append(owned.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID})
	}
	return owned
}

// withoutOwner is a claim that outlives an owner.
func withoutOwner(c *corev1.PersistentVolumeClaim, owner types.UID) *corev1.PersistentVolumeClaim {
	kept := c.DeepCopy()
	kept.OwnerReferences = slices.DeleteFunc(kept.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == owner })
	return kept
}

func isOwnedBy(owners []metav1.OwnerReference, uid types.UID) bool {
	return slices.ContainsFunc(owners, func(o metav1.OwnerReference) bool { return o.UID == uid })
}

// keptClaim is the checkpoint claim: created by this migration, or by an earlier one of
// the pod. It is nil where a user has made it: that claim is never owned or deleted.
func keptClaim(s *State) *corev1.PersistentVolumeClaim {
	if c := s.Migration.Status.Checkpoint; c != nil && c.ClaimReused {
		if s.Claim == nil || s.Claim.Labels[v1alpha1.MigrationUIDLabel] == "" {
			return nil
		}
		return s.Claim
	}
	return s.claim()
}

func ownsClaim(s *State) bool {
	return s.Migration.Spec.Checkpoint.ReclaimPolicy != v1alpha1.ClaimRetain
}

func isOwnedByPod(owners []metav1.OwnerReference, pod *corev1.Pod) bool {
	return isOwnedBy(owners, pod.UID)
}

// measuredAfter waits for a sample that is about the replacement alone: its whole
// window lies after the replacement was ready.
func measuredAfter(b *builder, r Result) (Decision, error) {
	from := b.newStatus().Times.ReplacementReady
	if from != nil && r.Sample.startedAfter(from.Time) {
		markMeasured(b, b.replacement(), r.Sample)
		return b.decision, nil
	}
	if until := measureUntil(b); b.Now.Before(until) {
		return b.wait(min(PollInterval, until.Sub(b.Now)), "the original is gone, waiting for a measurement of the replacement"), nil
	}
	markMeasured(b, b.replacement(), nil)
	return b.decision, nil
}

func markMeasured(b *builder, replacement *corev1.Pod, sample *Sample) {
	b.newStatus().After = record(pods.Requests(replacement), sample)
	if sample == nil {
		b.condition(v1alpha1.ConditionMeasured, metav1.ConditionFalse, ReasonUnavailable, fmt.Sprintf("no measurement of the replacement came within %s", b.Limits.MeasureTimeout))
		return
	}
	b.condition(v1alpha1.ConditionMeasured, metav1.ConditionTrue, ReasonMeasured, "measured by metrics.k8s.io")
}
