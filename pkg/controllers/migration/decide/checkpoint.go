package decide

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// awaitAgent waits for a node agent, and rolls back when it does not answer.
func awaitAgent(b *builder, node string, silent time.Duration) Decision {
	if silent > b.Limits.AgentGrace {
		return beginRollback(b, ReasonNodeAgentMissing, fmt.Sprintf("the node agent of node %s has not answered for %s: is it running there?", node, silent.Round(time.Second)))
	}
	return b.wait(untilGraceEnds(b, silent), "waiting for the node agent of node %s", node)
}

// untilGraceEnds is how long to wait for what an agent was silent about for so long.
func untilGraceEnds(b *builder, silent time.Duration) time.Duration {
	return min(b.untilDeadline(), max(shortPoll, b.Limits.AgentGrace-silent))
}

// sourceFailed rolls back when the agent of the source node has failed.
func sourceFailed(b *builder) (_ Decision, decided bool) {
	s := b.source()
	switch {
	case s == nil:
		return Decision{}, false
	case s.Phase == v1alpha1.SourceThawed && b.Migration.Status.Checkpoint.Step == v1alpha1.StepSeal:
		reason := ReasonCheckpointFailed
		if s.Reason == v1alpha1.ReportFreezeTooLong {
			reason = ReasonFrozenTooLong
		}
		return beginRollback(b, reason, fmt.Sprintf("the pod is no longer frozen on node %s, so that its seal is void (%s): %s", s.Node, s.Reason, s.Message)), true
	case s.Phase != v1alpha1.SourceFailed:
		return Decision{}, false
	}
	if s.Reason == v1alpha1.ReportProcessNotMovable {
		return processesNotMovable(b, ReasonProcessNotMovable, fmt.Sprintf("on node %s: %s", s.Node, s.Message)), true
	}
	reason := ReasonCheckpointFailed
	if s.Reason == v1alpha1.ReportNoSpace {
		reason = ReasonClaimTooSmall
	}
	return beginRollback(b, reason, fmt.Sprintf("the checkpoint could not be written on node %s (%s): %s", s.Node, s.Reason, s.Message)), true
}

// destinationFailed rolls back when the agent of the destination has failed.
func destinationFailed(b *builder) (_ Decision, decided bool) {
	d := b.destination()
	if d == nil || d.Phase != v1alpha1.DestinationFailed {
		return Decision{}, false
	}
	if d.Reason == v1alpha1.ReportProcessNotMovable {
		return processesNotMovable(b, ReasonRestoreFailed, fmt.Sprintf("on node %s: %s", d.Node, d.Message)), true
	}
	return beginRollback(b, ReasonRestoreFailed, fmt.Sprintf("the checkpoint could not be restored on node %s (%s): %s", d.Node, d.Reason, d.Message)), true
}

// isWarm reports whether everything is on the destination that can be there
// while the original runs.
func (s *State) isWarm() bool {
	d := s.destination()
	return d != nil && (d.Phase == v1alpha1.DestinationWarm || d.Phase == v1alpha1.DestinationRestored)
}

// awaitWarm waits for the gate of the replacement and the first restoration.
func awaitWarm(b *builder) Decision {
	r := b.replacement()
	if d, decided := cannotStart(b, r); decided {
		return d
	}
	waiting := gateSince(r)
	if waiting == nil {
		return b.wait(b.untilDeadline(), "waiting for replacement %s on node %s: %s", r.Name, r.Spec.NodeName, startProgress(r))
	}
	silent, d := b.waited(*waiting, v1alpha1.ConditionPlaced), b.destination()
	switch {
	case d == nil:
		return awaitAgent(b, r.Spec.NodeName, silent)
	case d.Reason == v1alpha1.ReportNoManifest:
		return awaitManifest(b, r.Spec.NodeName, silent)
	}
	return b.wait(b.untilDeadline(), "restoring the first copy on node %s: %d bytes in %d files", r.Spec.NodeName, d.Bytes, d.Files)
}

// awaitManifest waits for the destination to see what the source has written, and
// rolls back when the storage is not the same on both nodes.
func awaitManifest(b *builder, node string, since time.Duration) Decision {
	if since > b.Limits.AgentGrace {
		return beginRollback(b, ReasonRestoreFailed, fmt.Sprintf("claim %s holds nothing on node %s, and a copy of the pod's state on node %s: its storage is not the same on both",
			b.Migration.Status.CheckpointClaim, node, b.Migration.Status.Original.NodeName))
	}
	return b.wait(untilGraceEnds(b, since), "waiting for node %s to see the copy on claim %s", node, b.Migration.Status.CheckpointClaim)
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

// differingImage says which image the destination has another one of under the same
// name: the programs in memory would not be those on disk. The containers that pulled
// the images early tell. "" when all are the same.
func differingImage(s *State) string {
	r, pulled := s.replacement(), map[string]string{}
	for _, c := range r.Spec.InitContainers {
		for _, status := range r.Status.InitContainerStatuses {
			if status.Name == c.Name && v1alpha1.IsGateContainer(c.Name) && status.ImageID != "" {
				pulled[c.Image] = status.ImageID
			}
		}
	}
	for _, status := range slices.Concat(s.Pod.Status.InitContainerStatuses, s.Pod.Status.ContainerStatuses) {
		image := imageOf(s.Pod, status.Name)
		if there := pulled[image]; slices.Contains(s.Migration.Status.Checkpoint.Processes, status.Name) && there != "" && status.ImageID != "" && there != status.ImageID {
			return fmt.Sprintf("container %s runs image %s as %s, and node %s has %s", status.Name, image, status.ImageID, r.Spec.NodeName, there)
		}
	}
	return ""
}

func imageOf(pod *corev1.Pod, container string) string {
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.Name == container {
			return c.Image
		}
	}
	return ""
}

// beginSeal asks for the last copy.
func beginSeal(b *builder) Decision {
	b.newStatus().Checkpoint.Step = v1alpha1.StepSeal
	// Whatever happens from here on, the pod can be started again.
	b.newStatus().Checkpoint.Manifest = manifestOf(b.State)
	b.condition(v1alpha1.ConditionSealed, metav1.ConditionFalse, ReasonSealing, lastCopy(b))
	b.say("the last copy is being written")
	return b.decision
}

// lastCopy says what a migration waits for while its last copy is written.
func lastCopy(b *builder) string {
	if b.Migration.CheckpointMode() == v1alpha1.CheckpointLive {
		return "the last copy is being written"
	}
	return "the pod is frozen for the last copy"
}

// awaitFrozen waits while the original is frozen, and rolls back when that takes too
// long: the original is then thawed. The agent's own bound does not hold when an
// agent dies, and the deadline of the migration is far.
func awaitFrozen(b *builder, what string) Decision {
	if d, decided := tooLongFrozen(b, what); decided {
		return d
	}
	left := maxFreeze(b.State) - b.since(v1alpha1.ConditionSealed)
	return b.wait(min(b.untilDeadline(), max(shortPoll, left)), "%s", what)
}

// tooLongFrozen rolls back when the original was frozen for too long, for a seal
// or, once there is one, for what comes after it.
func tooLongFrozen(b *builder, what string) (_ Decision, decided bool) {
	limit := maxFreeze(b.State)
	if !b.carries() || b.Migration.CheckpointMode() == v1alpha1.CheckpointLive || b.since(v1alpha1.ConditionSealed) < limit {
		return Decision{}, false
	}
	return beginRollback(b, ReasonFrozenTooLong, fmt.Sprintf("not done within spec.checkpoint.maxFreezeSeconds, %s of being frozen: %s", limit, what)), true
}

// release lets the replacement continue with the state. This one write commits the
// migration, where it is not committed.
func release(b *builder) Decision {
	s, times := b.source(), &b.newStatus().Times
	times.Stopped, times.Sealed, times.Released = s.FrozenAt, s.SealedAt, b.microNow()
	b.newStatus().Checkpoint.Step = v1alpha1.StepRelease
	b.condition(v1alpha1.ConditionSealed, metav1.ConditionTrue, ReasonSealed, fmt.Sprintf("%d bytes in %d files, manifest %s", s.Bytes, s.Files, s.ManifestDigest))
	if !b.IsCommitted() {
		b.condition(v1alpha1.ConditionCommitted, metav1.ConditionTrue, ReasonReleased, "the replacement continues with the carried state")
	}
	b.condition(v1alpha1.ConditionReleased, metav1.ConditionTrue, ReasonReleased, "the replacement continues with the carried state")
	b.say("replacement %s continues with the carried state", b.Migration.Status.Replacement.Name)
	b.event(false, b.replacement(), ReasonReleased, fmt.Sprintf("Pod %s stopped, its state (%d bytes in %d files) is verified on node %s", b.Migration.Spec.PodName, s.Bytes, s.Files, b.Migration.Status.Replacement.NodeName))
	return b.decision
}

// isReplacementReady reports whether a released replacement is ready. To the kubelet
// restored processes that are still stopped are Ready where nothing probes them.
func (s *State) isReplacementReady() bool {
	r, c := s.replacement(), s.Migration.Status.Checkpoint
	if r == nil {
		return false
	}
	if c != nil && len(c.Processes) > 0 && (c.Destination == nil || c.Destination.Phase != v1alpha1.DestinationReleased) {
		return false
	}
	return isReady(r)
}

// maxFreeze bounds how long the original stays frozen: by the request, and by the
// probe of the kubelet that would end one of its containers first.
func maxFreeze(s *State) time.Duration {
	limit := s.Migration.Spec.Checkpoint.MaxFreeze()
	if o := s.original(); o != nil {
		if bound, container := containers.FreezeBound(o); container != "" && bound > 0 {
			limit = min(limit, bound)
		}
	}
	return limit
}

// markRestored records what the replacement continues with.
func markRestored(b *builder) {
	updated := b.newStatus().Checkpoint
	switch {
	case !updated.Carries():
	case len(updated.Processes) > 0:
		updated.Restored = v1alpha1.RestoredProcesses
	default:
		updated.Restored = v1alpha1.RestoredVolumes
	}
}

// downtime is the time in which neither pod was running.
func downtime(b *builder) *metav1.Duration {
	times := b.newStatus().Times
	if times.Stopped == nil || times.ReplacementReady == nil {
		return &metav1.Duration{}
	}
	return &metav1.Duration{Duration: max(0, times.ReplacementReady.Sub(times.Stopped.Time))}
}
