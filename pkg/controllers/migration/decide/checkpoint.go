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
	return beginRollback(b, failureReason(b.State, s.Reason, ReasonCheckpointFailed), fmt.Sprintf("the checkpoint could not be sent from node %s (%s): %s", s.Node, s.Reason, s.Message)), true
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
	done := "written"
	if b.recovers() {
		done = "restored"
	}
	return beginRollback(b, failureReason(b.State, d.Reason, ReasonRestoreFailed), fmt.Sprintf("the checkpoint could not be %s on node %s (%s): %s", done, d.Node, d.Reason, d.Message)), true
}

// failureReason names what an agent has failed of.
func failureReason(s *State, reported, otherwise string) string {
	if reported == v1alpha1.ReportNoSpace && s.needsClaim() {
		return ReasonClaimTooSmall
	}
	return otherwise
}

// copying is the step in which the state is copied while the original runs, to the node
// where the replacement, or the pod that holds its place, is.
var copying = step{name: CopyCheckpoint, applies: (*State).carries, done: isCopied, record: recordCopied, action: copyCheckpoint}

// isCopied reports whether everything is on the destination that can be there while the
// original runs.
func isCopied(s *State) bool {
	source, d := s.source(), s.destination()
	if source == nil || source.Phase != v1alpha1.SourceCopied || d == nil {
		return false
	}
	return d.Phase == v1alpha1.DestinationWarm || d.Phase == v1alpha1.DestinationStored || d.Phase == v1alpha1.DestinationRestored
}

func recordCopied(b *builder) {
	if s := b.source(); !b.isTrue(v1alpha1.ConditionCopied) {
		b.newStatus().Times.Copied = b.microNow()
		b.condition(v1alpha1.ConditionCopied, metav1.ConditionTrue, ReasonCopied, fmt.Sprintf("%d bytes in %d files, %d passes", s.Bytes, s.Files, s.Pass))
	}
}

// copyCheckpoint asks for the copy as soon as there is somewhere to copy to, and waits
// for it.
func copyCheckpoint(b *builder) Decision {
	pod := b.placeholder()
	if !b.stopsFirst() {
		pod = b.replacement()
		if d, decided := cannotStart(b, pod); decided {
			return d
		}
		if gateSince(pod) == nil {
			return b.wait(b.untilDeadline(), "waiting for replacement %s on node %s: %s", pod.Name, pod.Spec.NodeName, startProgress(pod))
		}
	}
	updated := b.newStatus().Checkpoint
	if updated.Step == v1alpha1.StepMeasure {
		updated.Step = v1alpha1.StepCopy
		b.condition(v1alpha1.ConditionCopied, metav1.ConditionFalse, ReasonCopying, "the node agents copy the volumes while the pod runs")
		b.say("copying %d bytes to node %s while the pod runs", updated.Source.Bytes, pod.Spec.NodeName)
		return b.decision
	}
	silent, s, d := b.since(v1alpha1.ConditionCopied), b.source(), b.destination()
	switch {
	case d == nil:
		return awaitAgent(b, pod.Spec.NodeName, silent)
	case s == nil || s.Phase == v1alpha1.SourceMeasured:
		// It connects when the other one listens, which may have taken as long.
		return awaitAgent(b, b.Migration.Status.Original.NodeName, silent-b.Limits.AgentGrace)
	}
	return b.wait(b.untilDeadline(), "copying to node %s while the pod runs: pass %d, %d bytes in %d files", pod.Spec.NodeName, s.Pass, s.Bytes, s.Files)
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

func isSealedBySource(s *State) bool {
	report := s.source()
	return report != nil && report.Phase == v1alpha1.SourceSealed
}

// hasSealed reports whether the destination has exactly what was sealed, in a phase; and the
// claim too, where there is one and it was not seen before.
func hasSealed(s *State, phase v1alpha1.DestinationPhase) bool {
	source, d := s.source(), s.destination()
	return source != nil && d != nil && d.Phase == phase && d.ManifestDigest != "" && d.ManifestDigest == source.ManifestDigest &&
		(d.ClaimSealed || !s.needsClaim() || s.isTrue(v1alpha1.ConditionSealed))
}

// isStoredByDestination reports whether what was sealed waits where the replacement is
// expected.
func isStoredByDestination(s *State) bool {
	return isSealedBySource(s) && hasSealed(s, v1alpha1.DestinationStored)
}

// isRestoredByDestination reports whether what was sealed is in the replacement.
func isRestoredByDestination(s *State) bool { return hasSealed(s, v1alpha1.DestinationRestored) }

// isSealed reports whether what was sealed is accepted, or can be.
func isSealed(s *State) bool {
	return s.isTrue(v1alpha1.ConditionSealed) || isStoredByDestination(s) || isSealedBySource(s) && isRestoredByDestination(s)
}

// waitsOn is the node of which only a disk has what was sealed: the original has ended, no
// replacement has the state yet, and there is no claim; "" where something else has it.
func waitsOn(s *State) string {
	if s.needsClaim() || !s.stopsFirst() || !s.carries() || !s.originalEnding() || s.isTrue(v1alpha1.ConditionReleased) || !s.isTrue(v1alpha1.ConditionSealed) {
		return ""
	}
	return s.Migration.HeldNode()
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
