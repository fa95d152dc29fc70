package decide

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// guard is what comes before the steps. It decides nothing where it does not apply.
type guard func(*builder) (_ Decision, decided bool)

// guards are asked in this order; the first that decides counts.
var guards = []guard{
	finished, unprotected, rollsBack, cancelledWhilePending,
	withdrawsEviction, losesReplacement, keepsBoth,
	disruptedOriginal, stopped,
}

// stops are what ends or restarts a migration that is not committed.
var stops = []guard{
	cancelled, originalUnfit, timedOut, nodeDown, containersChanged, claimDeleted,
	replacementFailed, placedWrong, injectedBeforeGate, placeholderFailed, agentFailed, frozenTooLong,
}

// finished cleans up after a migration, and removes its record when its time is over.
func finished(b *builder) (Decision, bool) {
	if !b.Migration.Status.Phase.IsFinished() {
		return Decision{}, false
	}
	return walk(b, finishing), true
}

// finishing has no step that waits: the record of what is finished can be deleted at
// any time, also when no controller runs.
var finishing = []step{
	{name: DeleteStray, done: func(s *State) bool { return len(s.Strays) == 0 }, action: func(b *builder) Decision {
		return b.do(DeleteObject{&b.Strays[0]})
	}},
	{name: DeleteStrayClaim, done: func(s *State) bool { return s.StrayClaim == nil || isClaimDeleted(s.StrayClaim) }, action: func(b *builder) Decision {
		if b.StrayClaim.DeletionTimestamp == nil {
			return b.do(DeleteObject{b.StrayClaim})
		}
		return b.do(ChangeObject{b.StrayClaim, withoutClaimFinalizer(b.StrayClaim)})
	}},
	{name: RemoveFinalizer, done: func(s *State) bool { return !slices.Contains(s.Migration.Finalizers, v1alpha1.Finalizer) }, action: func(b *builder) Decision {
		unprotected := b.Migration.DeepCopy()
		unprotected.Finalizers = slices.DeleteFunc(unprotected.Finalizers, func(f string) bool { return f == v1alpha1.Finalizer })
		return b.do(ChangeObject{b.Migration, unprotected})
	}},
	{name: CheckKeptClaim, applies: keepsCopy, done: func(s *State) bool { return s.claim() != nil }, action: checkKeptClaim},
	{name: DeleteMigration, applies: hasTimeToLive, action: func(b *builder) Decision {
		if left := expires(b.State).Sub(b.Now); left > 0 {
			b.decision.Wait = left
			return b.decision
		}
		return b.do(DeleteObject{b.Migration})
	}},
}

// keepsCopy reports whether a finished migration is what the pod is recovered from.
func keepsCopy(s *State) bool { return s.isTrue(v1alpha1.ConditionCheckpointKept) }

func hasTimeToLive(s *State) bool {
	m := s.Migration
	keepsDirectory := m.StateWaits() && m.Status.CheckpointClaim == ""
	return !keepsCopy(s) && !keepsDirectory && m.DeletionTimestamp == nil && m.Spec.TTLSecondsAfterFinished != nil && m.Status.Times.Finished != nil
}

// expires is when the record of a finished migration is removed.
func expires(s *State) time.Time {
	return s.Migration.Status.Times.Finished.Add(time.Duration(*s.Migration.Spec.TTLSecondsAfterFinished) * time.Second)
}

// unprotected adds the finalizer before anything else is done.
func unprotected(b *builder) (Decision, bool) {
	m := b.Migration
	if slices.Contains(m.Finalizers, v1alpha1.Finalizer) {
		return Decision{}, false
	}
	if m.DeletionTimestamp != nil {
		return b.decision, true
	}
	return walk(b, protecting), true
}

var protecting = []step{{name: AddFinalizer, action: func(b *builder) Decision {
	protected := b.Migration.DeepCopy()
	protected.Finalizers = append(protected.Finalizers, v1alpha1.Finalizer)
	return b.do(ChangeObject{b.Migration, protected})
}}}

func rollsBack(b *builder) (Decision, bool) {
	if !b.isRollingBack() {
		return Decision{}, false
	}
	return walk(b, undoing), true
}

// isAccepted reports whether a migration has begun.
func (s *State) isAccepted() bool {
	phase := s.Migration.Status.Phase
	return phase != "" && phase != v1alpha1.PhasePending
}

func isHandingOver(s *State) bool { return s.Migration.Status.Phase == v1alpha1.PhaseHandingOver }

func cancelledWhilePending(b *builder) (Decision, bool) {
	if b.isAccepted() || !b.WantsStop() {
		return Decision{}, false
	}
	message := cancelMessage(b)
	b.event(false, nil, ReasonCancelled, message)
	return b.finish(v1alpha1.PhaseCancelled, message), true
}

func cancelMessage(b *builder) string {
	if b.Migration.DeletionTimestamp != nil {
		return "cancelled because the PodMigration is being deleted"
	}
	return "cancelled on request"
}

// stopped asks what ends or restarts a migration that is not committed.
func stopped(b *builder) (Decision, bool) {
	if !b.isAccepted() || b.IsCommitted() {
		return Decision{}, false
	}
	return firstOf(b, stops)
}

func firstOf(b *builder, list []guard) (Decision, bool) {
	for _, guard := range list {
		if d, decided := guard(b); decided {
			return d, true
		}
	}
	return Decision{}, false
}

func cancelled(b *builder) (Decision, bool) {
	if !b.WantsStop() {
		return Decision{}, false
	}
	return beginRollback(b, ReasonCancelled, cancelMessage(b)), true
}

// disruptedOriginal commits a migration whose original is evicted by another client, where the
// replacement is the only copy that is left: it needs no state, or the state is sealed.
func disruptedOriginal(b *builder) (Decision, bool) {
	o := b.original()
	if r := b.replacement(); !b.IsCommitted() && isHandingOver(b.State) && r != nil && b.isOffered(r) {
		// By a controller that was believed dead: the ReplicaSet deletes the original.
		b.condition(v1alpha1.ConditionCommitted, metav1.ConditionTrue, ReasonOffered, "the ReplicaSet has the replacement, and deletes the original")
		return b.decision, true
	}
	if isReplacedByOwner(b.State) {
		// It may have chosen this one for the replacement of another pod: it takes ours for it.
		b.condition(v1alpha1.ConditionCommitted, metav1.ConditionTrue, ReasonOffered, "the ReplicaSet has deleted the original, and takes the replacement")
		b.say("the original is going, its replacement takes over")
		return b.decision, true
	}
	if b.IsCommitted() || !b.isAccepted() || o == nil || !isDisrupted(o) || !survivesOriginal(b.State) {
		return Decision{}, false
	}
	message := fmt.Sprintf("pod %s is being evicted by another client; its replacement continues", o.Name)
	b.condition(v1alpha1.ConditionCommitted, metav1.ConditionTrue, ReasonDisrupted, message)
	b.event(true, o, ReasonDisrupted, message)
	b.say("%s", message)
	return b.decision, true
}

// isReplacedByOwner reports whether the ReplicaSet of an original that goes can take the
// replacement in its place, which is ready and needs no state.
func isReplacedByOwner(s *State) bool {
	return !s.IsCommitted() && isHandingOver(s) && s.adopts() && !s.carries() && s.originalEnding() &&
		s.Owner.ReplicaSet != nil && s.replacement() != nil && s.isReplacementReady() && owners.Refuse(s.replacement(), s.Owner) == nil
}

// survivesOriginal reports whether the migration can go on without its original.
func survivesOriginal(s *State) bool {
	switch {
	case s.stopsFirst():
		// The owner must not create a pod before it is announced.
		return isHandingOver(s) && (!s.carries() || s.isTrue(v1alpha1.ConditionSealed) && isSealedBySource(s)) &&
			(s.method() != v1alpha1.MethodRecreate || s.isTrue(v1alpha1.ConditionReplacementPending) && s.original() != nil && hasHoldFinalizer(s.original()))
	case s.carries():
		return false
	}
	return s.replacement() != nil
}

// originalUnfit rolls back when the original can no longer be moved.
func originalUnfit(b *builder) (Decision, bool) {
	if b.recovers() {
		return Decision{}, false
	}
	if r := refuseOriginal(b.State); r != nil {
		return beginRollback(b, r.Reason, r.Message), true
	}
	return Decision{}, false
}

// refuseOriginal returns why the original can no longer be moved; nil while it can.
func refuseOriginal(s *State) *containers.Refusal {
	o := s.original()
	switch {
	case o == nil:
		return refusal(ReasonOriginalDeleted, "pod %s was deleted by another client", s.Migration.Spec.PodName)
	case o.Status.Phase == corev1.PodSucceeded:
		return refusal(ReasonOriginalFinished, "pod %s finished its work where it was", o.Name)
	case o.DeletionTimestamp != nil:
		return refusal(ReasonOriginalDeleted, "pod %s is being deleted by another client", o.Name)
	case o.Status.Phase == corev1.PodFailed:
		return refusal(ReasonOriginalFailed, "pod %s failed by itself: %s", o.Name, podFailure(o))
	}
	return nil
}

func timedOut(b *builder) (Decision, bool) {
	if b.Now.Before(b.deadline()) {
		return Decision{}, false
	}
	message := fmt.Sprintf("not done within %d s", b.Migration.Spec.TimeoutSeconds)
	if last := b.Migration.Status.Message; last != "" {
		message += "; last: " + last
	}
	return beginRollback(b, ReasonTimedOut, message), true
}

// nodeDown rolls back when a node is not Ready that is needed: that of the
// replacement, and that of the original while something of it has to be copied or
// to end. The deadline would come much later, and all that time a pod may be frozen.
func nodeDown(b *builder) (Decision, bool) {
	node, down := b.DestinationNode(), b.DestinationDown
	if down <= b.Limits.AgentGrace && (b.carries() || b.stopsFirst()) {
		node, down = b.Migration.Status.Original.NodeName, b.SourceDown
	}
	if node == "" || down <= b.Limits.AgentGrace {
		return Decision{}, false
	}
	return beginRollback(b, ReasonNodeNotReady, fmt.Sprintf("node %s has not been Ready for more than %s", node, b.Limits.AgentGrace)), true
}

// containersChanged restarts the preparation when a container of the original has
// finished or started since it was judged. While it is prepared it is judged anyway.
func containersChanged(b *builder) (Decision, bool) {
	if b.recovers() || b.Migration.Status.Phase == v1alpha1.PhasePreparing || containers.Judge(b.original(), containers.PolicyOf(b.Migration)).SameContainers(b.storedVerdicts()) {
		return Decision{}, false
	}
	return restartPreparation(b, ReasonContainersChanged, "a container of the original finished or started meanwhile: the replacement is rebuilt"), true
}

// claimDeleted rolls back when the claim of the migration is deleted: the one that it
// made, or the one that the pod brought along. That one stays while the original uses it,
// and no replacement can be placed with it.
func claimDeleted(b *builder) (Decision, bool) {
	c := b.claim()
	if reused := b.Migration.Status.Checkpoint; reused != nil && reused.ClaimReused && b.Migration.Status.Phase != v1alpha1.PhasePreparing {
		c = b.Claim
	}
	isMissing := b.Claim == nil && b.needsClaim() && b.Migration.Status.Phase != v1alpha1.PhasePreparing
	if !isMissing && (c == nil || c.DeletionTimestamp == nil) {
		return Decision{}, false
	}
	return beginRollback(b, ReasonClaimDeleted, fmt.Sprintf("claim %s was deleted by another client", b.Migration.Status.CheckpointClaim)), true
}

// replacementFailed rolls back when a recorded replacement is gone, going or failed.
func replacementFailed(b *builder) (Decision, bool) {
	if b.Migration.Status.Phase == v1alpha1.PhasePreparing || b.Migration.Status.Replacement.UID == "" {
		return Decision{}, false
	}
	reason, message := b.replacementLoss()
	if reason == "" {
		return Decision{}, false
	}
	return beginRollback(b, reason, message), true
}

// replacementLoss says why the recorded replacement can no longer take over; "" while
// it can.
func (s *State) replacementLoss() (reason, message string) {
	r, recorded := s.replacement(), s.Migration.Status.Replacement
	switch {
	case r == nil || r.UID != recorded.UID:
		return ReasonReplacementDeleted, fmt.Sprintf("replacement %s was deleted by another client", recorded.Name)
	case r.DeletionTimestamp != nil:
		// Its containers fail because they are ended.
		return ReasonReplacementDeleted, fmt.Sprintf("replacement %s is being deleted by another client", recorded.Name)
	case r.Status.Phase == corev1.PodFailed:
		return ReasonReplacementFailed, fmt.Sprintf("replacement %s failed on node %s: %s", r.Name, r.Spec.NodeName, podFailure(r))
	}
	return "", ""
}

// placedWrong rolls back when the replacement was placed where it may not be.
func placedWrong(b *builder) (Decision, bool) {
	r := b.replacement()
	if b.Migration.Status.Phase == v1alpha1.PhasePreparing || r == nil || r.Spec.NodeName == "" {
		return Decision{}, false
	}
	if wrong := wrongNode(b.Migration, r); wrong != nil {
		return beginRollback(b, wrong.Reason, wrong.Message), true
	}
	return Decision{}, false
}

// injectedBeforeGate rolls back when another client has put a container before the gate of
// the replacement: it runs, and writes, while state is restored.
func injectedBeforeGate(b *builder) (Decision, bool) {
	r := b.replacement()
	if b.Migration.Status.Phase == v1alpha1.PhasePreparing || !b.carries() || r == nil {
		return Decision{}, false
	}
	name := containers.BeforeGate(r)
	if name == "" {
		return Decision{}, false
	}
	return beginRollback(b, ReasonReplacementRejected, fmt.Sprintf("replacement %s has container %s, which another client put before the gate: it would run while the state is restored", r.Name, name)), true
}

// placeholderFailed rolls back when the place that was held is lost.
func placeholderFailed(b *builder) (Decision, bool) {
	recorded := b.Migration.Status.Placeholder
	if b.Migration.Status.Phase == v1alpha1.PhasePreparing || !b.stopsFirst() || recorded == nil || recorded.UID == "" {
		return Decision{}, false
	}
	p := b.placeholder()
	if p != nil && p.UID == recorded.UID && p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodFailed {
		return Decision{}, false
	}
	return beginRollback(b, ReasonPlaceholderDeleted, fmt.Sprintf("placeholder %s was deleted by another client", recorded.Name)), true
}

// agentFailed rolls back when a node agent has failed, or continues without the memory
// of the processes.
func agentFailed(b *builder) (Decision, bool) {
	if !b.carries() || b.Migration.Status.Checkpoint.Step == "" {
		return Decision{}, false
	}
	return firstOf(b, []guard{sourceFailed, destinationFailed})
}

// frozenTooLong rolls back when a sealed original that has to stop first was frozen for
// too long. Where it continues until then, the steps tell what is waited for.
func frozenTooLong(b *builder) (Decision, bool) {
	if !b.stopsFirst() || !isHandingOver(b.State) || !b.isTrue(v1alpha1.ConditionSealed) {
		return Decision{}, false
	}
	return tooLongFrozen(b, "ending the original: "+b.Migration.Status.Message)
}
