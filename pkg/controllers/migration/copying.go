package migration

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// measuring asks the agent of the source node how much there is to carry. It
// reports whether the decision is made.
func (st *step) measuring() (Decision, bool) {
	c := st.status().Checkpoint
	if c.Step == "" {
		c.Step = v1alpha1.StepMeasure
		st.condition(v1alpha1.ConditionCopied, metav1.ConditionFalse, ReasonMeasuring, "the node agent measures the volumes")
		st.say("asking the node agent of %s how much is to be carried", st.Migration.Status.Original.NodeName)
		return st.decision, true
	}
	if d, failed := st.sourceFailed(); failed {
		return d, true
	}
	if st.source() == nil {
		return st.awaitAgent(st.Migration.Status.Original.NodeName, st.since(v1alpha1.ConditionCopied)), true
	}
	return Decision{}, false
}

// copying makes the carrier and waits for a complete copy, while the pod runs.
func (st *step) copying() (Decision, bool) {
	c := st.status().Checkpoint
	if st.isTrue(v1alpha1.ConditionCopied) {
		return Decision{}, false
	}
	carrier := st.carrier()
	switch {
	case carrier == nil && st.Carrier != nil:
		return st.giveUp(ReasonNameTaken, fmt.Sprintf("pod %s exists and belongs to somebody else", st.Carrier.Name)), true
	case carrier == nil && c.Carrier.UID != "":
		return st.giveUp(ReasonCheckpointFailed, fmt.Sprintf("carrier %s was deleted by somebody else", c.Carrier.Name)), true
	case carrier == nil:
		return st.do(Action{Type: CreateCarrier, Pod: containers.BuildCarrier(st.Pod, c.Carrier.Name, st.Migration.Status.CheckpointClaim, st.Migration.UID, st.AgentImage)}), true
	case c.Carrier.UID != carrier.UID || c.Step == v1alpha1.StepMeasure:
		c.Carrier.UID, c.Step = carrier.UID, v1alpha1.StepCopy
		st.condition(v1alpha1.ConditionCopied, metav1.ConditionFalse, ReasonCopying, "the node agent copies the volumes while the pod runs")
		st.say("copying %d bytes while the pod runs", c.Source.Bytes)
		return st.decision, true
	}
	if d, failed := st.sourceFailed(); failed {
		return d, true
	}
	if s := st.source(); s != nil && s.Phase == v1alpha1.SourceCopied {
		st.status().Times.Copied = st.microNow()
		st.condition(v1alpha1.ConditionCopied, metav1.ConditionTrue, ReasonCopied, fmt.Sprintf("%d bytes in %d files, %d passes", s.Bytes, s.Files, s.Pass))
		return Decision{}, false
	}
	return st.awaitCopy(carrier), true
}

func (st *step) awaitCopy(carrier *corev1.Pod) Decision {
	if carrier.Status.Phase != corev1.PodRunning {
		if scheduled := podCondition(carrier, corev1.PodScheduled); scheduled != nil && scheduled.Status == corev1.ConditionFalse {
			return st.wait(st.untilDeadline(), "the carrier cannot be placed on node %s: %s", st.Migration.Status.Original.NodeName, scheduled.Message)
		}
		return st.wait(st.untilDeadline(), "waiting for carrier %s to mount claim %s: %s", carrier.Name, st.Migration.Status.CheckpointClaim, startProgress(carrier))
	}
	s := st.source()
	return st.wait(st.untilDeadline(), "copying while the pod runs: pass %d, %d bytes in %d files", s.Pass, s.Bytes, s.Files)
}

// awaitAgent waits for a node agent, and gives up on one that does not answer.
func (st *step) awaitAgent(node string, silent time.Duration) Decision {
	if silent > st.Limits.AgentGrace {
		return st.giveUp(ReasonNodeAgentMissing, fmt.Sprintf("the node agent of node %s has not answered for %s: is it running there?", node, silent.Round(time.Second)))
	}
	return st.wait(st.untilGraceEnds(silent), "waiting for the node agent of node %s", node)
}

// untilGraceEnds is how long to wait for what an agent was silent about for so long.
func (st *step) untilGraceEnds(silent time.Duration) time.Duration {
	return min(st.untilDeadline(), max(time.Second, st.Limits.AgentGrace-silent))
}

// sourceFailed gives up when the agent of the source node has.
func (st *step) sourceFailed() (Decision, bool) {
	s := st.source()
	if s == nil || s.Phase != v1alpha1.SourceFailed {
		return Decision{}, false
	}
	if s.Reason == v1alpha1.ReportProcessNotMovable {
		return st.processesStay(ReasonProcessNotMovable, fmt.Sprintf("on node %s: %s", s.Node, s.Message)), true
	}
	reason := ReasonCheckpointFailed
	if s.Reason == v1alpha1.ReportNoSpace {
		reason = ReasonClaimTooSmall
	}
	return st.giveUp(reason, fmt.Sprintf("the checkpoint could not be made on node %s (%s): %s", s.Node, s.Reason, s.Message)), true
}

// destinationFailed gives up when the agent of the destination has.
func (st *step) destinationFailed() (Decision, bool) {
	d := st.destination()
	if d == nil || d.Phase != v1alpha1.DestinationFailed {
		return Decision{}, false
	}
	if d.Reason == v1alpha1.ReportProcessNotMovable {
		return st.processesStay(ReasonRestoreFailed, fmt.Sprintf("on node %s: %s", d.Node, d.Message)), true
	}
	return st.giveUp(ReasonRestoreFailed, fmt.Sprintf("the checkpoint could not be restored on node %s (%s): %s", d.Node, d.Reason, d.Message)), true
}

// Room on the claim beyond what was measured: the pod goes on writing, and a
// file system needs some of its own.
const (
	growthPercent = 25
	growthBytes   = 64 << 20
)

// claimSize is what was asked for, or more when the pod holds more.
func claimSize(s *State) resource.Quantity {
	size := defaultClaimSize
	if wanted := s.Migration.Spec.Checkpoint.Size; wanted != nil {
		size = *wanted
	}
	if source := s.source(); source != nil && s.carries() {
		const mebibyte = 1 << 20
		needed := source.Bytes + source.Bytes*growthPercent/100 + growthBytes
		needed = (needed + mebibyte - 1) / mebibyte * mebibyte
		if size.CmpInt64(needed) < 0 {
			size = *resource.NewQuantity(needed, resource.BinarySI)
		}
	}
	return size
}

// carryOver carries state over at the handover. It reports whether the decision
// is made: not when the replacement has its state, or never had any to wait for.
func (st *step) carryOver() (Decision, bool) {
	c := st.status().Checkpoint
	if !st.carries() || st.isTrue(v1alpha1.ConditionReleased) {
		return Decision{}, false
	}
	if d, failed := st.sourceFailed(); failed {
		return d, true
	}
	if d, failed := st.destinationFailed(); failed {
		return d, true
	}
	if c.Step == v1alpha1.StepCopy {
		// A frozen pod does not work: the budgets have a say in that too.
		return st.do(Action{Type: CheckEviction, Pod: st.Pod}), true
	}
	s, d := st.source(), st.destination()
	if s == nil || s.Phase != v1alpha1.SourceSealed {
		return st.standStill("the pod stands still for the last copy"), true
	}
	if d == nil || d.Phase != v1alpha1.DestinationRestored || d.Pass != s.Pass {
		return st.standStill(fmt.Sprintf("restoring and verifying the checkpoint on node %s", st.Migration.Status.Replacement.NodeName)), true
	}
	return st.release(s), true
}

// standStill waits while the original stands still, and gives up on what takes too
// long: the original then goes on. The agent's own bound does not hold when an agent
// dies, and the deadline of the migration is far.
func (st *step) standStill(what string) Decision {
	if d, late := st.frozenTooLong(what); late {
		return d
	}
	left := st.Migration.Spec.Checkpoint.MaxFreeze() - st.since(v1alpha1.ConditionSealed)
	return st.wait(min(st.untilDeadline(), max(time.Second, left)), "%s", what)
}

// frozenTooLong gives up when the original has stood still for too long, for a
// seal or, once there is one, for what comes after it.
func (st *step) frozenTooLong(what string) (Decision, bool) {
	limit := st.Migration.Spec.Checkpoint.MaxFreeze()
	if !st.carries() || st.Migration.CheckpointMode() == v1alpha1.CheckpointLive || st.since(v1alpha1.ConditionSealed) < limit {
		return Decision{}, false
	}
	return st.giveUp(ReasonFrozenTooLong, fmt.Sprintf("not done within spec.checkpoint.maxFreezeSeconds, %s of standing still: %s", limit, what)), true
}

// seal asks for the last copy.
func (st *step) seal() Decision {
	st.status().Checkpoint.Step = v1alpha1.StepSeal
	st.condition(v1alpha1.ConditionSealed, metav1.ConditionFalse, ReasonSealing, "the pod stands still for the last copy")
	st.say("the last copy is made")
	return st.decision
}

// release lets the replacement go on, in one write: the point of no return.
func (st *step) release(s *v1alpha1.SourceReport) Decision {
	times := &st.status().Times
	times.Stopped, times.Sealed, times.Released = s.FrozenAt, s.SealedAt, st.microNow()
	st.status().Checkpoint.Step = v1alpha1.StepRelease
	st.condition(v1alpha1.ConditionSealed, metav1.ConditionTrue, ReasonSealed, fmt.Sprintf("%d bytes in %d files, manifest %s", s.Bytes, s.Files, s.ManifestDigest))
	st.condition(v1alpha1.ConditionReleased, metav1.ConditionTrue, ReasonReleased, "the replacement goes on with the carried state")
	st.say("replacement %s goes on with the carried state", st.Migration.Status.Replacement.Name)
	st.event(false, st.replacement(), ReasonReleased, fmt.Sprintf("Pod %s stopped, its state (%d bytes in %d files) is verified on node %s", st.Migration.Spec.PodName, s.Bytes, s.Files, st.Migration.Status.Replacement.NodeName))
	return st.decision
}

// isWarm reports whether everything is on the destination that can be there
// while the original runs.
func (st *step) isWarm() bool {
	d := st.destination()
	return d != nil && (d.Phase == v1alpha1.DestinationWarm || d.Phase == v1alpha1.DestinationRestored)
}

// awaitWarm waits for the gate of the replacement and the first restoration.
func (st *step) awaitWarm(r *corev1.Pod) Decision {
	if d, failed := st.destinationFailed(); failed {
		return d
	}
	if d, failed := st.sourceFailed(); failed {
		return d
	}
	waiting := gateSince(r)
	if waiting == nil {
		return st.wait(st.untilDeadline(), "waiting for replacement %s on node %s: %s", r.Name, r.Spec.NodeName, startProgress(r))
	}
	silent, d := st.Now.Sub(waiting.Time), st.destination()
	switch {
	case d == nil:
		return st.awaitAgent(r.Spec.NodeName, silent)
	case d.Reason == v1alpha1.ReportNoManifest:
		return st.awaitManifest(r.Spec.NodeName, silent)
	}
	return st.wait(st.untilDeadline(), "restoring the first copy on node %s: %d bytes in %d files", r.Spec.NodeName, d.Bytes, d.Files)
}

// awaitManifest waits for the destination to see what the source has written, and
// gives up on storage that is not the same on both nodes.
func (st *step) awaitManifest(node string, since time.Duration) Decision {
	if since > st.Limits.AgentGrace {
		return st.giveUp(ReasonRestoreFailed, fmt.Sprintf("claim %s holds nothing on node %s, and a copy of the pod's state on node %s: its storage is not the same on both",
			st.Migration.Status.CheckpointClaim, node, st.Migration.Status.Original.NodeName))
	}
	return st.wait(st.untilGraceEnds(since), "waiting for node %s to see the copy on claim %s", node, st.Migration.Status.CheckpointClaim)
}

// gateSince is when the gate began to wait; nil before.
func gateSince(pod *corev1.Pod) *metav1.Time {
	for _, s := range pod.Status.InitContainerStatuses {
		if s.Name == v1alpha1.GateContainer && s.State.Running != nil {
			return &s.State.Running.StartedAt
		}
	}
	return nil
}

// downtime is the time in which neither pod could work.
func (st *step) downtime() *metav1.Duration {
	times := st.status().Times
	if times.Stopped == nil || times.ReplacementReady == nil {
		return &metav1.Duration{}
	}
	return &metav1.Duration{Duration: max(0, times.ReplacementReady.Sub(times.Stopped.Time))}
}
