package decide

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
)

// handOverStopFirst are the steps of a handover whose original ends before its replacement
// starts. What can be done and checked before it ends is.
var handOverStopFirst = slices.Concat([]step{
	{name: PlacePlaceholder, applies: isUncommitted, done: isPlaceHeld, action: placePlaceholder},
	{name: ProtectClaim, applies: isToSealFirst, done: func(s *State) bool { return isSealAsked(s) || isClaimProtected(s) }, action: protectClaim},
	{name: CheckEviction, applies: isToSealFirst, done: isSealAsked, action: checkEviction, settle: evictionChecked},
	{name: SealCheckpoint, applies: isToSealFirst, action: sealBeforeStop},
	{name: AnnounceReplacement, applies: isToHold, done: isAnnounced, action: announceReplacement},
	{name: ProbeWebhook, applies: isToHold, done: isProbed, action: func(b *builder) Decision { return b.do(ProbeAdmission{Probe: probe(b)}) }, settle: webhookProbed},
	{name: HoldOriginal, applies: isToHold, done: func(s *State) bool { return hasHoldFinalizer(s.original()) }, action: func(b *builder) Decision {
		// Its owner creates the next pod as soon as this one is gone. The finalizer keeps
		// it until the webhook was asked once more.
		o := b.original()
		return b.do(ChangeObject{o, withHoldFinalizer(o)})
	}},
	{name: OrphanClaim, applies: originalRuns, done: keepsOwnClaim, action: func(b *builder) Decision {
		return b.do(ChangeObject{b.PreviousClaim, withoutOwner(b.PreviousClaim, b.original().UID)})
	}},
	commit,
	evict,
	{name: RemoveHold, applies: func(s *State) bool { o := s.original(); return o != nil && hasHoldFinalizer(o) && pods.IsTerminal(o) }, action: func(b *builder) Decision {
		o := b.original()
		recordStop(b, o)
		if b.conditionReason(v1alpha1.ConditionReplacementPending) == ReasonPodsRefused {
			return b.do(ChangeObject{o, withoutHoldFinalizer(o)})
		}
		return b.do(ProbeAdmission{Probe: probe(b), From: o, To: withoutHoldFinalizer(o)})
	}, settle: holdRemoved},
	{name: AwaitOriginalGone, done: (*State).originalEnded, action: awaitOriginalGone},
	{name: HandOver, done: isHandedOver, action: handOverStopped},
	{name: RecordReplacement, applies: hasReplacement, done: isRecorded, action: func(b *builder) Decision { return recordReplacement(b, b.replacement()) }},
	{name: AwaitRecreated, done: isRecorded, action: awaitRecreated, settle: plainPodDeleted},
	{name: NominateReplacement, applies: isReplacementGated, done: isNominated, action: func(b *builder) Decision {
		// The scheduler keeps the place for the nominated pod.
		r := b.replacement()
		nominated := r.DeepCopy()
		nominated.Status.NominatedNodeName = b.placeholder().Spec.NodeName
		return b.do(ChangeStatus{r, nominated})
	}},
	{name: DeletePlaceholder, applies: isReplacementGated, done: func(s *State) bool { return s.placeholder() == nil }, action: removePlaceholder},
	{name: RemoveSchedulingGate, applies: isReplacementGated, action: func(b *builder) Decision {
		r := b.replacement()
		opened := r.DeepCopy()
		opened.Spec.SchedulingGates = slices.DeleteFunc(opened.Spec.SchedulingGates, func(g corev1.PodSchedulingGate) bool { return g.Name == v1alpha1.WaitForOriginalGate })
		return b.do(ChangeObject{r, opened})
	}},
	{name: PlaceReplacement, done: isPlaceRecorded, action: placeReplacement},
	{name: RestoreCheckpoint, applies: isToSeal, action: func(b *builder) Decision {
		if isRestoredByDestination(b.State) {
			return release(b)
		}
		r := b.replacement()
		return b.wait(PollInterval, "restoring and verifying the checkpoint on node %s: %s", r.Spec.NodeName, startProgress(r))
	}},
	{name: StartReplacement, done: func(s *State) bool { return s.isTrue(v1alpha1.ConditionReplacementReady) && isReady(s.replacement()) }, action: startStopped},
	{name: KeepPreviousClaim, done: keepsNoOrphan, action: func(b *builder) Decision {
		return b.do(ChangeObject{b.PreviousClaim, withOwner(b.PreviousClaim, b.replacement())})
	}},
}, ending)

func isUncommitted(s *State) bool { return !s.IsCommitted() && originalRuns(s) }

// isToSealFirst reports whether the last copy is still to be made. Only a seal that is
// in the status lets the original end.
func isToSealFirst(s *State) bool {
	return s.carries() && !s.isTrue(v1alpha1.ConditionSealed) && isUncommitted(s)
}

// isToHold reports whether the owner of the original recreates it: the next pod is
// announced, and the original kept until the webhook answers.
func isToHold(s *State) bool { return s.method() == v1alpha1.MethodRecreate && isUncommitted(s) }

// keepsOwnClaim reports whether no claim that the pod brought along would be collected
// with it.
func keepsOwnClaim(s *State) bool {
	c := s.PreviousClaim
	return c == nil || c.DeletionTimestamp != nil || !isOwnedByPod(c.OwnerReferences, s.original())
}

// keepsNoOrphan reports whether no claim that the replacement has from an earlier migration
// would be left over when that is gone.
func keepsNoOrphan(s *State) bool {
	c := s.PreviousClaim
	return c == nil || c.DeletionTimestamp != nil || c.Name != s.Migration.Status.Checkpoint.PreviousClaim || c.Labels[v1alpha1.MigrationUIDLabel] == "" ||
		!ownsClaim(s) || isOwnedByPod(c.OwnerReferences, s.replacement())
}

func isReplacementGated(s *State) bool { return isGated(s.replacement()) }

// isNominated reports whether the place that is held is kept for the replacement.
func isNominated(s *State) bool {
	p := s.placeholder()
	return p == nil || p.Spec.NodeName == "" || s.replacement().Status.NominatedNodeName == p.Spec.NodeName
}

func isPlaceRecorded(s *State) bool {
	r := s.replacement()
	return r.Spec.NodeName != "" && s.Migration.Status.Replacement.NodeName == r.Spec.NodeName
}

func removePlaceholder(b *builder) Decision {
	p := b.placeholder()
	if p.DeletionTimestamp == nil {
		return b.do(DeleteObject{p})
	}
	return b.wait(shortPoll, "waiting for placeholder %s to end", p.Name)
}

// sealBeforeStop waits for the last copy, and writes down that it is verified, and waits
// where the replacement is expected.
func sealBeforeStop(b *builder) Decision {
	s := b.source()
	if !isStoredByDestination(b.State) {
		return awaitFrozen(b, lastCopy(b))
	}
	times := &b.newStatus().Times
	times.Stopped, times.Sealed = s.FrozenAt, s.SealedAt
	b.condition(v1alpha1.ConditionSealed, metav1.ConditionTrue, ReasonSealed, fmt.Sprintf("%d bytes in %d files, manifest %s", s.Bytes, s.Files, s.ManifestDigest))
	b.say("the last copy is verified, ending pod %s", b.Pod.Name)
	return b.decision
}

// holdRemoved waits while the webhook does not answer: the original has ended,
// and its owner must not create a plain pod instead of the replacement.
func holdRemoved(b *builder, r Result) (Decision, error) {
	switch name := b.Pod.Name; {
	case r.Err == nil && r.Admitted, apierrors.IsNotFound(r.Err):
		return b.decision, nil
	case apierrors.IsConflict(r.Err):
		return b.decision, r.Err
	case isRejected(r.Err):
		// The owner cannot create a pod either, so that none comes without its state. The
		// namespace is being deleted, for example.
		message := fmt.Sprintf("pod %s has ended, and the next pod of its owner would be refused: %s", name, r.Err.Error())
		b.condition(v1alpha1.ConditionReplacementPending, metav1.ConditionTrue, ReasonPodsRefused, message)
		b.say("%s", message)
		return b.decision, nil
	case r.Err != nil:
		return b.wait(probeInterval, "pod %s has ended; waiting for the admission webhook: %s", name, r.Err.Error()), nil //nolint:nilerr // the message has it
	default:
		return b.wait(probeInterval, "pod %s has ended; waiting for the admission webhook, which does not change pods yet", name), nil
	}
}

// awaitOriginalGone waits for the original to end.
func awaitOriginalGone(b *builder) Decision {
	o := b.original()
	recordStop(b, o)
	if pods.IsTerminal(o) && len(o.Finalizers) > 0 {
		return b.wait(PollInterval, "waiting for pod %s to be gone: it has ended, and is kept by finalizer %s", o.Name, o.Finalizers[0])
	}
	return b.wait(PollInterval, "waiting for pod %s to end", o.Name)
}

// recordStop writes down when the original ended.
func recordStop(b *builder, o *corev1.Pod) {
	if pods.IsTerminal(o) && b.newStatus().Times.Stopped == nil {
		b.newStatus().Times.Stopped = lastEnd(o)
	}
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

// handOverStopped writes down that the original is gone.
func handOverStopped(b *builder) Decision {
	times := &b.newStatus().Times
	times.OriginalGone = b.microNow()
	if times.Stopped == nil {
		times.Stopped = b.microNow()
	}
	b.condition(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver, "the original is gone")
	b.say("the original is gone, its replacement may start")
	return b.decision
}

// placeReplacement waits for the scheduler, and writes down what it found.
func placeReplacement(b *builder) Decision {
	r := b.replacement()
	if r.Spec.NodeName == "" {
		return unplaced(b, r)
	}
	markPlaced(b, r)
	return b.decision
}

// startStopped waits until the replacement is ready, and writes it down.
func startStopped(b *builder) Decision {
	r := b.replacement()
	if !isReady(r) {
		return b.wait(PollInterval, "the original is gone; waiting for replacement %s on node %s: %s", r.Name, r.Spec.NodeName, startProgress(r))
	}
	markReplacementReady(b, r)
	return b.decision
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
