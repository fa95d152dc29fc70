package migration

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// preparing decides the containers, measures the original and makes the claim.
// It is also where a migration begins anew when containers have changed.
func (st *step) preparing() Decision {
	if r := originalLost(st.State); r != nil {
		return st.giveUp(r.Reason, r.Message)
	}
	if d, late := st.timedOut(); late {
		return d
	}
	if d, down := st.nodeDown(); down {
		return d
	}
	if r := st.replacement(); r != nil {
		if r.DeletionTimestamp == nil {
			return st.do(Action{Type: DeleteReplacement, Pod: r})
		}
		return st.wait(pollInterval, "waiting for replacement %s to end, to build another one", r.Name)
	}
	if p := st.placeholder(); p != nil {
		if p.DeletionTimestamp == nil {
			return st.do(Action{Type: DeletePlaceholder, Pod: p})
		}
		return st.wait(time.Second, "waiting for placeholder %s to end, to make another one", p.Name)
	}
	if p := st.status().Placeholder; p != nil {
		*p = v1alpha1.PodReference{Name: p.Name}
	}
	*st.status().Replacement = v1alpha1.PodReference{Name: st.Migration.Status.Replacement.Name}
	verdicts, refusal := containers.Assess(st.Pod, containers.PolicyOf(st.Migration), st.Claims)
	if refusal != nil {
		return st.giveUp(lateRefusal(refusal.Reason), refusal.Message)
	}
	st.status().Containers = verdicts.Containers
	if d, made := st.recheckProcesses(verdicts); made {
		return d
	}
	if st.status().Before == nil {
		return st.do(Action{Type: MeasureBefore, Pod: st.Pod})
	}
	if st.carries() {
		if d, made := st.measuring(); made {
			return d
		}
	}
	if d, made := st.claiming(); made {
		return d
	}
	if st.carries() {
		if d, made := st.copying(); made {
			return d
		}
	}
	st.status().Phase = v1alpha1.PhasePlacing
	st.status().Times.Prepared = st.microNow()
	st.condition(v1alpha1.ConditionPrepared, metav1.ConditionTrue, ReasonPrepared, stripSentence(verdicts))
	st.say("placing a replacement: %s", stripSentence(verdicts))
	st.event(false, st.Pod, ReasonPrepared, fmt.Sprintf("Prepared the move of pod %s: %s", st.Pod.Name, stripSentence(verdicts)))
	return st.decision
}

// claiming makes the checkpoint claim, unless the pod brought one along.
func (st *step) claiming() (Decision, bool) {
	if c := st.status().Checkpoint; c != nil && c.ClaimReused {
		return st.checkReusedClaim()
	}
	switch {
	case st.Claim == nil:
		return st.do(Action{Type: CreateClaim, Claim: buildClaim(st.State)}), true
	case st.claim() == nil:
		return st.giveUp(ReasonNameTaken, fmt.Sprintf("claim %s exists and belongs to somebody else", st.Claim.Name)), true
	case st.Claim.DeletionTimestamp != nil:
		return st.wait(pollInterval, "waiting for the old claim %s to go", st.Claim.Name), true
	}
	return Decision{}, false
}

func (st *step) checkReusedClaim() (Decision, bool) {
	if st.Claim == nil || st.Claim.DeletionTimestamp != nil {
		return st.giveUp(ReasonClaimRejected, fmt.Sprintf("claim %s, which the pod brought along, is gone", st.Migration.Status.CheckpointClaim)), true
	}
	capacity, needed := st.Claim.Status.Capacity[corev1.ResourceStorage], claimSize(st.State)
	if st.carries() && !capacity.IsZero() && capacity.Cmp(needed) < 0 {
		return st.giveUp(ReasonClaimTooSmall, fmt.Sprintf("claim %s, which the pod brought along, has %s, and %s are needed", st.Claim.Name, capacity.String(), needed.String())), true
	}
	return Decision{}, false
}

// lateRefusal names what happened when a pod that could be moved no longer
// can: when no container is left, its work is done.
func lateRefusal(reason string) string {
	switch reason {
	case containers.RefusalNothingRemains, containers.RefusalOnlySidecars, containers.RefusalFinished:
		return ReasonOriginalFinished
	}
	return reason
}

// placing creates the replacement and watches it until it works.
func (st *step) placing() Decision {
	if !st.isCommitted() {
		if d, stop := st.beforeHandover(); stop {
			return d
		}
	}
	if st.stopsFirst() && !st.isCommitted() {
		if d, made := st.holdPlace(); made {
			return d
		}
	}
	r := st.replacement()
	if known := st.Migration.Status.Replacement; known.UID == "" {
		switch {
		case st.method() == v1alpha1.MethodRecreate:
			return st.toStop()
		case st.method() == v1alpha1.MethodRelease && !st.isCommitted():
			return st.releaseOriginal(r)
		}
		return st.create(r)
	} else if d, lost := st.replacementLost(r); lost {
		return d
	}
	if st.stopsFirst() {
		return st.toStop()
	}
	if r.Spec.NodeName == "" {
		return st.unplaced(r)
	}
	if wrong := wrongNode(st.Migration, r); wrong != nil && !st.isCommitted() {
		return st.giveUp(wrong.Reason, wrong.Message)
	}
	if !st.isTrue(v1alpha1.ConditionPlaced) {
		st.placed(r)
	}
	if d, stuck := st.cannotStart(r); stuck {
		return d
	}
	if st.carries() {
		if !st.isWarm() {
			return st.awaitWarm(r)
		}
		if d, differ := st.imagesDiffer(r); differ {
			return d
		}
		st.beginHandover()
		st.say("the first copy is restored on node %s, handing over", r.Spec.NodeName)
		return st.decision
	}
	if !isWorking(r) {
		return st.wait(st.untilDeadline(), "waiting for replacement %s on node %s: %s", r.Name, r.Spec.NodeName, startProgress(r))
	}
	st.beginHandover()
	st.works(r)
	return st.decision
}

func (st *step) beginHandover() {
	st.status().Phase = v1alpha1.PhaseHandingOver
	st.status().Times.HandingOver = st.microNow()
}

// works records that the replacement does.
func (st *step) works(r *corev1.Pod) {
	st.status().Times.ReplacementReady = st.microNow()
	st.status().Downtime = st.downtime()
	st.restored()
	st.condition(v1alpha1.ConditionReplacementReady, metav1.ConditionTrue, ReasonReady, "the replacement works on node "+r.Spec.NodeName)
	st.say("replacement %s works on node %s, handing over", r.Name, r.Spec.NodeName)
	st.event(false, r, ReasonReady, fmt.Sprintf("Replacement %s works on node %s; the original may go", r.Name, r.Spec.NodeName))
}

// cannotStart gives up on a replacement of which a container cannot be started,
// for a reason that seldom passes.
func (st *step) cannotStart(r *corev1.Pod) (Decision, bool) {
	reason := startFailure(r)
	scheduled := podCondition(r, corev1.PodScheduled)
	if reason == "" || st.isCommitted() || scheduled == nil || st.Now.Sub(scheduled.LastTransitionTime.Time) < st.Limits.StartGrace {
		return Decision{}, false
	}
	return st.giveUp(ReasonCannotStart, fmt.Sprintf("replacement %s cannot start on node %s: %s", r.Name, r.Spec.NodeName, reason)), true
}

func (st *step) create(existing *corev1.Pod) Decision {
	switch {
	case existing != nil:
		return st.created(existing)
	case st.Replacement != nil:
		return st.giveUp(ReasonNameTaken, fmt.Sprintf("pod %s exists and belongs to somebody else", st.Replacement.Name))
	case st.isCommitted():
		// The original was evicted by others, and the replacement deleted before
		// it was recorded.
		return st.failForGood(ReasonReplacementGone, "the original and its replacement were both removed by others")
	}
	pod, err := containers.BuildReplacement(st.Pod, st.storedVerdicts(), st.replacementOptions())
	if err != nil {
		return st.giveUp(ReasonReplacementRejected, err.Error())
	}
	if st.adopts() {
		if r := owners.Refuse(st.Pod, st.Owner); r != nil {
			return st.giveUp(r.Reason, r.Message)
		}
		pod = owners.Unmatched(pod, st.Owner)
	}
	return st.do(Action{Type: CreateReplacement, Pod: pod})
}

func (st *step) replacementOptions() containers.ReplacementOptions {
	return ReplacementOptions(st.Migration, st.AgentImage)
}

// ReplacementOptions are what the replacement of an accepted migration is bound to.
func ReplacementOptions(m *v1alpha1.PodMigration, agentImage string) containers.ReplacementOptions {
	options := containers.ReplacementOptions{
		Name: m.Status.Replacement.Name, MigrationUID: m.UID, ClaimName: m.Status.CheckpointClaim,
		TargetNode: m.Spec.TargetNode, PlannedNode: m.Spec.PlannedNode,
		WaitForOriginal: m.Status.Handover != nil && m.Status.Handover.Order == v1alpha1.OrderStopFirst,
	}
	if m.Status.Checkpoint.Carries() {
		options.GateImage = agentImage
	}
	return options
}

// toStop goes on to the handover of a migration whose original has to stop.
func (st *step) toStop() Decision {
	st.beginHandover()
	st.say("the place on node %s is held, handing over", st.status().Placeholder.NodeName)
	return st.decision
}

func (st *step) created(r *corev1.Pod) Decision {
	st.status().Replacement = &v1alpha1.PodReference{Name: r.Name, UID: r.UID, NodeName: r.Spec.NodeName}
	st.condition(v1alpha1.ConditionPlaced, metav1.ConditionFalse, ReasonCreated, "waiting for the scheduler")
	st.say("waiting for scheduler %s to place replacement %s", r.Spec.SchedulerName, r.Name)
	st.event(false, st.original(), ReasonCreated, fmt.Sprintf("Created replacement %s; pod %s keeps running until it works", r.Name, st.Migration.Spec.PodName))
	return st.decision
}

func (st *step) placed(r *corev1.Pod) {
	st.status().Replacement.NodeName = r.Spec.NodeName
	st.status().Times.Placed = st.microNow()
	st.condition(v1alpha1.ConditionPlaced, metav1.ConditionTrue, ReasonPlaced, "bound to node "+r.Spec.NodeName)
	st.event(false, st.original(), ReasonPlaced, fmt.Sprintf("Replacement %s was placed on node %s", r.Name, r.Spec.NodeName))
}

// unplaced waits for the scheduler, and gives up when it has found no place
// for longer than the grace. While a node is nominated, room is being made;
// and making the volume of a claim can take longer than the grace.
func (st *step) unplaced(r *corev1.Pod) Decision {
	scheduled := podCondition(r, corev1.PodScheduled)
	if scheduled == nil || scheduled.Status != corev1.ConditionFalse {
		return st.wait(st.untilDeadline(), "waiting for scheduler %s to place replacement %s", r.Spec.SchedulerName, r.Name)
	}
	st.condition(v1alpha1.ConditionPlaced, metav1.ConditionFalse, cmp.Or(scheduled.Reason, ReasonUnschedulable), scheduled.Message)
	if scheduled.Reason != corev1.PodReasonUnschedulable || r.Status.NominatedNodeName != "" ||
		st.isCommitted() || st.volumeIsComing(scheduled.Message) {
		return st.wait(st.untilDeadline(), "the scheduler has not placed replacement %s yet: %s", r.Name, scheduled.Message)
	}
	why := scheduled.Message
	if st.Migration.CheckpointMode() == v1alpha1.CheckpointProcess {
		why += fmt.Sprintf(" (its processes can only be restored on nodes with the label %s=true, by their node agents)", v1alpha1.ProcessNodeLabel)
	}
	givesUpAt := scheduled.LastTransitionTime.Add(st.Limits.UnschedulableGrace)
	if st.Now.Before(givesUpAt) {
		return st.wait(min(givesUpAt.Sub(st.Now), st.untilDeadline()), "the scheduler finds no place for replacement %s: %s", r.Name, why)
	}
	return st.giveUp(ReasonUnschedulable, "the scheduler found no place for the replacement: "+why)
}

// unboundClaim is how plugin VolumeBinding says that a claim of binding mode
// Immediate has no volume yet (k8s.io/kubernetes/pkg/scheduler/framework/plugins/volumebinding).
const unboundClaim = "unbound immediate PersistentVolumeClaims"

// volumeIsComing reports whether the scheduler waits for the checkpoint claim,
// and the claim has a class to make its volume.
func (st *step) volumeIsComing(refusal string) bool {
	c := st.claim()
	return strings.Contains(refusal, unboundClaim) && c != nil && ptr.Deref(c.Spec.StorageClassName, "") != ""
}
