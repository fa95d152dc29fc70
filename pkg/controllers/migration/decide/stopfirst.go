package decide

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// stopping ends the original, whose replacement can start only then. What can be
// done and checked before is.
func (b *builder) stopping() Decision {
	if d, decided := b.beforeHandover(); decided {
		return d
	}
	if b.Migration.Status.Replacement.UID != "" {
		if d, decided := b.replacementFailed(b.replacement()); decided {
			return d
		}
	}
	if d, decided := b.holdPlace(); decided {
		return d
	}
	if d, decided := b.sealBeforeStop(); decided {
		return d
	}
	if d, decided := b.frozenTooLong("ending the original: " + b.Migration.Status.Message); decided {
		return d
	}
	o := b.original()
	if b.method() == v1alpha1.MethodRecreate {
		if d, decided := b.announceReplacement(); decided {
			return d
		}
		// Its owner creates the next pod as soon as this one is gone. The finalizer
		// keeps it until the webhook was asked once more.
		if !hasHoldFinalizer(o) {
			return b.do(Action{Type: MarkOriginal, Pod: o, Becomes: withHoldFinalizer(o)})
		}
	}
	if c := b.carrier(); c != nil {
		return b.removeCarrier(c)
	}
	if c := b.PreviousClaim; c != nil && c.DeletionTimestamp == nil && isOwnedByPod(c.OwnerReferences, o) {
		return b.do(Action{Type: OrphanClaim, Pod: o, Claim: c})
	}
	return b.do(Action{Type: Evict, Pod: o})
}

func (b *builder) removeCarrier(c *corev1.Pod) Decision {
	if c.DeletionTimestamp == nil {
		return b.do(Action{Type: DeleteCarrier, Pod: c})
	}
	return b.wait(shortPoll, "waiting for carrier %s to unmount claim %s", c.Name, b.Migration.Status.CheckpointClaim)
}

// sealBeforeStop makes the last copy. Only a seal that is in the status lets the
// original end.
func (b *builder) sealBeforeStop() (_ Decision, decided bool) {
	if !b.carries() || b.isTrue(v1alpha1.ConditionSealed) {
		return Decision{}, false
	}
	if d, decided := b.sourceFailed(); decided {
		return d, true
	}
	if b.newStatus().Checkpoint.Step == v1alpha1.StepCopy {
		return b.do(Action{Type: CheckEviction, Pod: b.Pod}), true
	}
	s := b.source()
	if s == nil || s.Phase != v1alpha1.SourceSealed {
		return b.awaitFrozen(b.lastCopy()), true
	}
	times := &b.newStatus().Times
	times.Stopped, times.Sealed = s.FrozenAt, s.SealedAt
	b.condition(v1alpha1.ConditionSealed, metav1.ConditionTrue, ReasonSealed, fmt.Sprintf("%d bytes in %d files, manifest %s", s.Bytes, s.Files, s.ManifestDigest))
	b.say("the last copy is verified, ending pod %s", b.Pod.Name)
	return b.decision, true
}

// stopped brings the replacement up, once the original has ended or is about to.
func (b *builder) stopped() Decision {
	if o := b.original(); o != nil {
		return b.awaitOriginalGone(o)
	}
	if !b.isTrue(v1alpha1.ConditionHandedOver) {
		times := &b.newStatus().Times
		times.OriginalGone = b.microNow()
		if times.Stopped == nil {
			times.Stopped = b.microNow()
		}
		b.condition(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver, "the original is gone")
		b.say("the original is gone, its replacement may start")
		return b.decision
	}
	r, recorded := b.replacement(), b.Migration.Status.Replacement
	switch {
	case recorded.UID == "" && r != nil:
		return b.recordReplacement(r)
	case recorded.UID == "" && b.method() == v1alpha1.MethodRecreate:
		return b.awaitRecreated()
	case recorded.UID == "":
		return b.failPermanently(ReasonReplacementDeleted, "the replacement was deleted by another client before the original ended")
	}
	if d, decided := b.replacementFailed(r); decided {
		return d
	}
	if isGated(r) {
		return b.removeSchedulingGate(r)
	}
	return b.followReplacement(r)
}

// awaitOriginalGone waits for the original to end. The hold finalizer is removed when
// its containers have ended and the webhook answers.
func (b *builder) awaitOriginalGone(o *corev1.Pod) Decision {
	hasEnded := o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed
	if hasEnded && b.newStatus().Times.Stopped == nil {
		b.newStatus().Times.Stopped = lastEnd(o)
	}
	if !hasHoldFinalizer(o) || !hasEnded {
		return b.wait(PollInterval, "waiting for pod %s to end", o.Name)
	}
	return b.do(Action{Type: ProbeWebhookAndRemoveHold, Pod: o, Becomes: withoutHoldFinalizer(o), Probe: b.probe()})
}

// lastEnd is when the last container of a pod ended.
func lastEnd(pod *corev1.Pod) *metav1.MicroTime {
	var last metav1.Time
	for _, s := range pod.Status.ContainerStatuses {
		if t := s.State.Terminated; t != nil && t.FinishedAt.After(last.Time) {
			last = t.FinishedAt
		}
	}
	if last.IsZero() {
		return nil
	}
	at := metav1.NewMicroTime(last.Time)
	return &at
}

// removeSchedulingGate gives the place that was held to the replacement: the
// scheduler keeps it for the nominated pod, and the placeholder is deleted.
func (b *builder) removeSchedulingGate(r *corev1.Pod) Decision {
	if c := b.carrier(); c != nil {
		return b.removeCarrier(c)
	}
	if p := b.placeholder(); p != nil {
		switch {
		case p.Spec.NodeName != "" && r.Status.NominatedNodeName != p.Spec.NodeName:
			nominated := r.DeepCopy()
			nominated.Status.NominatedNodeName = p.Spec.NodeName
			return b.do(Action{Type: NominateReplacement, Pod: r, Becomes: nominated})
		case p.DeletionTimestamp == nil:
			return b.do(Action{Type: DeletePlaceholder, Pod: p})
		}
		return b.wait(shortPoll, "waiting for placeholder %s to end", p.Name)
	}
	opened := r.DeepCopy()
	opened.Spec.SchedulingGates = slices.DeleteFunc(opened.Spec.SchedulingGates, func(g corev1.PodSchedulingGate) bool { return g.Name == v1alpha1.WaitForOriginalGate })
	return b.do(Action{Type: RemoveSchedulingGate, Pod: r, Becomes: opened})
}

// followReplacement waits until the committed replacement is ready.
func (b *builder) followReplacement(r *corev1.Pod) Decision {
	if r.Spec.NodeName == "" {
		return b.unplaced(r)
	}
	if b.newStatus().Replacement.NodeName != r.Spec.NodeName {
		b.markPlaced(r)
		return b.decision
	}
	if b.carries() && !b.isTrue(v1alpha1.ConditionReleased) {
		s, d := b.source(), b.destination()
		if d != nil && d.Phase == v1alpha1.DestinationFailed {
			return b.failPermanently(ReasonRestoreFailed, fmt.Sprintf("the checkpoint could not be restored on node %s (%s): %s", d.Node, d.Reason, d.Message))
		}
		if s == nil || d == nil || d.Phase != v1alpha1.DestinationRestored || d.Pass != s.Pass {
			return b.wait(PollInterval, "restoring and verifying the checkpoint on node %s: %s", r.Spec.NodeName, startProgress(r))
		}
		return b.markReleased(s)
	}
	if !isReady(r) {
		return b.wait(PollInterval, "the original is gone; waiting for replacement %s on node %s: %s", r.Name, r.Spec.NodeName, startProgress(r))
	}
	if !b.isTrue(v1alpha1.ConditionReplacementReady) {
		b.markReplacementReady(r)
		return b.decision
	}
	return b.complete(r)
}

func isGated(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.SchedulingGates, func(g corev1.PodSchedulingGate) bool { return g.Name == v1alpha1.WaitForOriginalGate })
}

func hasHoldFinalizer(pod *corev1.Pod) bool {
	return slices.Contains(pod.Finalizers, v1alpha1.HoldFinalizer)
}

// withHoldFinalizer is a copy of a pod that stays when it has ended, until the
// finalizer is removed.
func withHoldFinalizer(pod *corev1.Pod) *corev1.Pod {
	kept := pod.DeepCopy()
	kept.Finalizers = append(kept.Finalizers, v1alpha1.HoldFinalizer)
	return kept
}

func withoutHoldFinalizer(pod *corev1.Pod) *corev1.Pod {
	free := pod.DeepCopy()
	free.Finalizers = slices.DeleteFunc(free.Finalizers, func(f string) bool { return f == v1alpha1.HoldFinalizer })
	return free
}
