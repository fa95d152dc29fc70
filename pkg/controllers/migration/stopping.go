package migration

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// stopping ends the original, whose replacement can start only then. All that
// can be made sure of before is.
func (st *step) stopping() Decision {
	if d, stop := st.beforeHandover(); stop {
		return d
	}
	if st.Migration.Status.Replacement.UID != "" {
		if d, lost := st.replacementLost(st.replacement()); lost {
			return d
		}
	}
	if d, made := st.holdPlace(); made {
		return d
	}
	if d, made := st.sealBeforeStop(); made {
		return d
	}
	if d, late := st.frozenTooLong("ending the original: " + st.Migration.Status.Message); late {
		return d
	}
	o := st.original()
	if st.method() == v1alpha1.MethodRecreate {
		if d, made := st.expect(); made {
			return d
		}
		// Its owner makes the next pod as soon as this one is gone. It is gone only
		// when the webhook was asked once more.
		if !isHeld(o) {
			return st.do(Action{Type: MarkOriginal, Pod: o, Becomes: held(o)})
		}
	}
	if c := st.carrier(); c != nil {
		return st.removeCarrier(c)
	}
	if c := st.PreviousClaim; c != nil && c.DeletionTimestamp == nil && isOwnedByPod(c.OwnerReferences, o) {
		return st.do(Action{Type: OrphanClaim, Pod: o, Claim: c})
	}
	return st.do(Action{Type: Evict, Pod: o})
}

func (st *step) removeCarrier(c *corev1.Pod) Decision {
	if c.DeletionTimestamp == nil {
		return st.do(Action{Type: DeleteCarrier, Pod: c})
	}
	return st.wait(time.Second, "waiting for carrier %s to leave claim %s", c.Name, st.Migration.Status.CheckpointClaim)
}

// sealBeforeStop makes the last copy. Only a seal that is in the status lets the
// original end.
func (st *step) sealBeforeStop() (Decision, bool) {
	if !st.carries() || st.isTrue(v1alpha1.ConditionSealed) {
		return Decision{}, false
	}
	if d, failed := st.sourceFailed(); failed {
		return d, true
	}
	if st.status().Checkpoint.Step == v1alpha1.StepCopy {
		return st.do(Action{Type: CheckEviction, Pod: st.Pod}), true
	}
	s := st.source()
	if s == nil || s.Phase != v1alpha1.SourceSealed {
		return st.standStill("the pod stands still for the last copy"), true
	}
	times := &st.status().Times
	times.Stopped, times.Sealed = s.FrozenAt, s.SealedAt
	st.condition(v1alpha1.ConditionSealed, metav1.ConditionTrue, ReasonSealed, fmt.Sprintf("%d bytes in %d files, manifest %s", s.Bytes, s.Files, s.ManifestDigest))
	st.say("the last copy is verified, ending pod %s", st.Pod.Name)
	return st.decision, true
}

// stopped brings the replacement up, once the original has ended or is about to.
func (st *step) stopped() Decision {
	if o := st.original(); o != nil {
		return st.awaitEnd(o)
	}
	if !st.isTrue(v1alpha1.ConditionHandedOver) {
		times := &st.status().Times
		times.OriginalGone = st.microNow()
		if times.Stopped == nil {
			times.Stopped = st.microNow()
		}
		st.condition(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver, "the original is gone")
		st.say("the original is gone, its replacement may start")
		return st.decision
	}
	r, known := st.replacement(), st.Migration.Status.Replacement
	switch {
	case known.UID == "" && r != nil:
		return st.taken(r)
	case known.UID == "" && st.method() == v1alpha1.MethodRecreate:
		return st.awaitRecreated()
	case known.UID == "":
		return st.failForGood(ReasonReplacementGone, "the replacement was removed by somebody else before the original ended")
	}
	if d, lost := st.replacementLost(r); lost {
		return d
	}
	if isGated(r) {
		return st.openTheWay(r)
	}
	return st.bringUp(r)
}

// awaitEnd waits for the original to end. One that is held is let go when its
// containers have ended and the webhook answers.
func (st *step) awaitEnd(o *corev1.Pod) Decision {
	hasEnded := o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed
	if hasEnded && st.status().Times.Stopped == nil {
		st.status().Times.Stopped = lastEnd(o)
	}
	if !isHeld(o) || !hasEnded {
		return st.wait(pollInterval, "waiting for pod %s to end", o.Name)
	}
	return st.do(Action{Type: ProbeAndLetGo, Pod: o, Becomes: letGo(o), Probe: st.probe()})
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

// openTheWay gives the place that was held to the replacement: the scheduler
// keeps it for the pod that is nominated, and the placeholder goes.
func (st *step) openTheWay(r *corev1.Pod) Decision {
	if c := st.carrier(); c != nil {
		return st.removeCarrier(c)
	}
	if p := st.placeholder(); p != nil {
		switch {
		case p.Spec.NodeName != "" && r.Status.NominatedNodeName != p.Spec.NodeName:
			nominated := r.DeepCopy()
			nominated.Status.NominatedNodeName = p.Spec.NodeName
			return st.do(Action{Type: NominateReplacement, Pod: r, Becomes: nominated})
		case p.DeletionTimestamp == nil:
			return st.do(Action{Type: DeletePlaceholder, Pod: p})
		}
		return st.wait(time.Second, "waiting for placeholder %s to leave", p.Name)
	}
	opened := r.DeepCopy()
	opened.Spec.SchedulingGates = slices.DeleteFunc(opened.Spec.SchedulingGates, func(g corev1.PodSchedulingGate) bool { return g.Name == v1alpha1.WaitForOriginalGate })
	return st.do(Action{Type: OpenSchedulingGate, Pod: r, Becomes: opened})
}

// bringUp follows the replacement to work. There is only forward.
func (st *step) bringUp(r *corev1.Pod) Decision {
	if r.Spec.NodeName == "" {
		return st.unplaced(r)
	}
	if st.status().Replacement.NodeName != r.Spec.NodeName {
		st.placed(r)
		return st.decision
	}
	if st.carries() && !st.isTrue(v1alpha1.ConditionReleased) {
		s, d := st.source(), st.destination()
		if d != nil && d.Phase == v1alpha1.DestinationFailed {
			return st.failForGood(ReasonRestoreFailed, fmt.Sprintf("the checkpoint could not be restored on node %s (%s): %s. It is kept on claim %s", d.Node, d.Reason, d.Message, st.Migration.Status.CheckpointClaim))
		}
		if s == nil || d == nil || d.Phase != v1alpha1.DestinationRestored || d.Pass != s.Pass {
			return st.wait(pollInterval, "restoring and verifying the checkpoint on node %s: %s", r.Spec.NodeName, startProgress(r))
		}
		return st.release(s)
	}
	if !isWorking(r) {
		return st.wait(pollInterval, "the original is gone; waiting for replacement %s on node %s: %s", r.Name, r.Spec.NodeName, startProgress(r))
	}
	if !st.isTrue(v1alpha1.ConditionReplacementReady) {
		st.works(r)
		return st.decision
	}
	return st.complete(r)
}

func isGated(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.SchedulingGates, func(g corev1.PodSchedulingGate) bool { return g.Name == v1alpha1.WaitForOriginalGate })
}

func isHeld(pod *corev1.Pod) bool { return slices.Contains(pod.Finalizers, v1alpha1.HoldFinalizer) }

// held is a pod that stays when it has ended, until it is let go.
func held(pod *corev1.Pod) *corev1.Pod {
	kept := pod.DeepCopy()
	kept.Finalizers = append(kept.Finalizers, v1alpha1.HoldFinalizer)
	return kept
}

func letGo(pod *corev1.Pod) *corev1.Pod {
	free := pod.DeepCopy()
	free.Finalizers = slices.DeleteFunc(free.Finalizers, func(f string) bool { return f == v1alpha1.HoldFinalizer })
	return free
}
