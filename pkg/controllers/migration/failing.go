package migration

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// beforeHandover holds what ends or restarts a migration that can still be
// undone. It reports whether the decision is made.
func (st *step) beforeHandover() (Decision, bool) {
	o := st.original()
	// With state to carry, the replacement has nothing yet that it could go on with.
	if o != nil && isDisrupted(o) && st.replacement() != nil && !st.carries() && !st.stopsFirst() {
		message := fmt.Sprintf("pod %s is being evicted by somebody else; its replacement goes on", o.Name)
		st.condition(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonDisrupted, message)
		st.event(true, o, ReasonDisrupted, message)
		st.say("%s", message)
		return st.decision, true
	}
	if r := originalLost(st.State); r != nil {
		return st.giveUp(r.Reason, r.Message), true
	}
	if d, late := st.timedOut(); late {
		return d, true
	}
	if d, down := st.nodeDown(); down {
		return d, true
	}
	if !containers.Judge(o, containers.PolicyOf(st.Migration)).SameContainers(st.storedVerdicts()) {
		return st.startOver(ReasonContainersChanged, "a container of the original finished or started meanwhile: the replacement is built anew"), true
	}
	return Decision{}, false
}

// startOver goes back to Preparing: the original has changed, so that the
// replacement would do finished work again or leave out work that has begun, or
// its processes turned out to be immovable.
func (st *step) startOver(reason, message string) Decision {
	if owners.NeedsWebhook(st.method()) && st.Migration.Status.Replacement.UID != "" {
		// Its owner would make another pod at once, before it is known what of.
		return st.giveUp(reason, message+", which is not possible with a pod that its owner made")
	}
	st.status().Phase = v1alpha1.PhasePreparing
	times := &st.status().Times
	times.Prepared, times.Copied, times.Placed, times.HandingOver, times.ReplacementReady = nil, nil, nil, nil, nil
	if st.carries() {
		// Reports about the attempt before are void; the agent of the source thaws.
		c := st.status().Checkpoint
		c.Attempt, c.Step, c.Source, c.Destination = c.Attempt+1, "", nil, nil
	}
	for _, kind := range []string{v1alpha1.ConditionPrepared, v1alpha1.ConditionCopied, v1alpha1.ConditionPlaced, v1alpha1.ConditionReplacementReady} {
		st.condition(kind, metav1.ConditionFalse, reason, message)
	}
	if st.conditionReason(v1alpha1.ConditionSealed) != "" {
		// Not false: how long the next last copy takes is counted from then.
		st.condition(v1alpha1.ConditionSealed, metav1.ConditionUnknown, reason, message)
	}
	st.event(false, st.original(), reason, "Starting over: "+message)
	st.say("%s", message)
	return st.decision
}

// replacementLost handles a recorded replacement that is gone, going or failed.
func (st *step) replacementLost(r *corev1.Pod) (Decision, bool) {
	known := st.Migration.Status.Replacement
	var reason, message string
	switch {
	case r == nil || r.UID != known.UID:
		reason, message = ReasonReplacementGone, fmt.Sprintf("replacement %s was deleted by somebody else", known.Name)
	case r.Status.Phase == corev1.PodFailed:
		reason, message = ReasonReplacementFailed, fmt.Sprintf("replacement %s failed on node %s: %s", r.Name, r.Spec.NodeName, podFailure(r))
	case r.DeletionTimestamp != nil:
		reason, message = ReasonReplacementGone, fmt.Sprintf("replacement %s is being deleted by somebody else", known.Name)
	default:
		return Decision{}, false
	}
	if !st.isCommitted() {
		return st.giveUp(reason, message), true
	}
	// Nothing can be put back; removing what is left would only lose more.
	return st.failForGood(reason, message+" after the original had gone"), true
}

// failForGood ends a migration that can neither go on nor be put back. The
// claim shares the fate of the replacement, as its policy says.
func (st *step) failForGood(reason, message string) Decision {
	if c, r := st.keptClaim(), st.replacement(); c != nil && c.DeletionTimestamp == nil && st.ownsClaim() {
		if r == nil && st.claim() == nil {
			return st.failed(reason, message)
		}
		if r == nil {
			return st.do(Action{Type: DeleteClaim, Claim: c})
		}
		if !isOwnedByPod(c.OwnerReferences, r) {
			return st.do(Action{Type: AdoptClaim, Pod: r, Claim: c})
		}
	}
	return st.failed(reason, message)
}

func (st *step) failed(reason, message string) Decision {
	if c := st.carrier(); c != nil && c.DeletionTimestamp == nil {
		return st.do(Action{Type: DeleteCarrier, Pod: c})
	}
	st.condition(v1alpha1.ConditionReplacementReady, metav1.ConditionFalse, reason, message)
	st.event(true, nil, reason, message)
	return st.finish(v1alpha1.PhaseFailed, message)
}

func wrongNode(m *v1alpha1.PodMigration, r *corev1.Pod) *containers.Refusal {
	node := r.Spec.NodeName
	if node == m.Status.Original.NodeName {
		return &containers.Refusal{Reason: ReasonLandedOnSource, Message: fmt.Sprintf("replacement %s was placed on %s, the node that it should leave", r.Name, node)}
	}
	if m.Spec.TargetNode != "" && node != m.Spec.TargetNode {
		return &containers.Refusal{Reason: ReasonLandedElsewhere, Message: fmt.Sprintf("replacement %s was placed on %s, not on %s", r.Name, node, m.Spec.TargetNode)}
	}
	return nil
}

func (st *step) timedOut() (Decision, bool) {
	if st.Now.Before(st.deadline()) {
		return Decision{}, false
	}
	message := fmt.Sprintf("not done within %d s", st.Migration.Spec.TimeoutSeconds)
	if last := st.Migration.Status.Message; last != "" {
		message += "; last: " + last
	}
	return st.giveUp(ReasonTimedOut, message), true
}

// nodeDown gives up when a node does not answer that is needed: that of the
// replacement, and that of the original while something of it has to be copied or
// to end. The deadline would come much later, and all that time a pod may stand still.
func (st *step) nodeDown() (Decision, bool) {
	node, down := st.destinationNode(), st.DestinationDown
	if down <= st.Limits.AgentGrace && (st.carries() || st.stopsFirst()) {
		node, down = st.Migration.Status.Original.NodeName, st.SourceDown
	}
	if node == "" || down <= st.Limits.AgentGrace {
		return Decision{}, false
	}
	return st.giveUp(ReasonNodeNotReady, fmt.Sprintf("node %s has not been Ready for more than %s", node, st.Limits.AgentGrace)), true
}

// untilDeadline is how long to wait for a watch before looking again. Beyond
// the deadline only a migration without a way back waits, and it has time.
func (st *step) untilDeadline() time.Duration {
	left := st.deadline().Sub(st.Now)
	if left <= 0 {
		return 2 * pollInterval
	}
	return max(time.Second, min(left, 2*pollInterval))
}
