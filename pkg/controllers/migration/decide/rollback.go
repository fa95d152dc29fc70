package decide

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// beginRollback writes down that the migration is rolled back, and why. Nothing is
// removed before that is in the status.
func beginRollback(b *builder, reason, message string) Decision {
	b.condition(v1alpha1.ConditionRolledBack, metav1.ConditionFalse, reason, message)
	if updated := b.newStatus().Checkpoint; updated != nil && updated.Step != "" {
		updated.Step = v1alpha1.StepAbort
	}
	if b.isTrue(v1alpha1.ConditionReplacementPending) {
		b.condition(v1alpha1.ConditionReplacementPending, metav1.ConditionFalse, reason, message)
	}
	b.say("rolling back: %s", message)
	return b.decision
}

// undoing removes what the migration created, and finishes. The barrier comes
// first: what an older leader has prepared to do to the original fails from then on.
var undoing = []step{
	{name: SetRollbackBarrier, applies: mayBeMarked, done: func(s *State) bool {
		o := s.original()
		return o == nil || !hasHoldFinalizer(o) && (s.originalEnding() || s.hasBarrier() && !owners.HasLowestDeletionCost(o))
	}, action: setBarrier},
	{name: DiscardRival, applies: isReleased, done: func(s *State) bool { return s.rival() == nil }, action: func(b *builder) Decision { return discard(b, b.rival()) }},
	{name: OrphanOriginal, applies: isReleased, done: func(s *State) bool { return !isOrphaned(s) }, action: orphanOriginal},
	{name: EndOriginal, applies: isReleased, done: func(s *State) bool { return owners.Abandons(s.Owner) == "" }, action: endOriginal},
	{name: ReturnOriginal, applies: isReleased, done: func(s *State) bool { return owners.IsReturned(s.original()) }, action: returnOriginal},
	{name: ReadoptOriginal, applies: isReleased, action: readoptOriginal},
	{name: DiscardReplacement, applies: replacementMayEnd, action: removeReplacement},
	{name: DeletePlaceholder, applies: func(s *State) bool { return mayEnd(s, s.placeholder(), s.DestinationDown) }, action: func(b *builder) Decision { return removeMade(b, b.placeholder()) }},
	{name: AwaitThaw, done: isThawedOrGone, action: func(b *builder) Decision {
		return b.wait(shortPoll, "waiting for the node agent of %s to thaw pod %s", b.source().Node, b.original().Name)
	}},
	{name: KeepClaim, applies: (*State).holdsOnlyCopy, done: isClaimKept, action: keepClaim},
	{name: DeleteClaim, applies: func(s *State) bool { return !s.holdsOnlyCopy() }, done: func(s *State) bool { return isClaimDeleted(s.claim()) }, action: deleteClaim},
	{name: FinishRollback, action: finishRollback},
}

// mayBeMarked reports whether something may have been done to the original, or have been
// prepared by a leader that is believed dead: nothing is before the owner's next pod is
// announced, or a replacement or a placeholder is made.
func mayBeMarked(s *State) bool {
	status := &s.Migration.Status
	return s.conditionReason(v1alpha1.ConditionReplacementPending) != "" || status.Replacement != nil && status.Replacement.UID != "" || status.Placeholder != nil && status.Placeholder.UID != "" ||
		s.original() != nil && (owners.HasLowestDeletionCost(s.original()) || hasHoldFinalizer(s.original()) || owners.IsReleased(s.original()))
}

// setBarrier writes the barrier on the original, and takes every other mark off.
func setBarrier(b *builder) Decision {
	o := b.original()
	return b.do(ChangeObject{o, withRollbackBarrier(o, b.barrier())})
}

// isReleased reports whether the original has to return to its owner.
func isReleased(s *State) bool { return originalRuns(s) && owners.IsReleased(s.original()) }

// rival is a pod that the owner could prefer to the original when that returns; nil when
// there is none. It goes first, without being counted as failed.
func (s *State) rival() *corev1.Pod {
	for i := range s.Siblings {
		if rival := &s.Siblings[i]; owners.IsRival(rival, s.original(), s.Migration.UID, s.Migration.Status.Handover.ProbedAt) {
			return rival
		}
	}
	return nil
}

// isOrphaned reports whether the owner left its pods behind when it was deleted
// (kubectl delete --cascade=orphan), as the replacement shows: the original stays as well.
func isOrphaned(s *State) bool {
	r := s.replacement()
	return owners.Abandons(s.Owner) != "" && r != nil && r.DeletionTimestamp == nil && metav1.GetControllerOf(r) == nil && owners.NeedsWebhook(s.method())
}

// orphanOriginal makes the original one that belongs to nobody, for good.
func orphanOriginal(b *builder) Decision {
	o := b.original()
	orphaned := o.DeepCopy()
	delete(orphaned.Annotations, v1alpha1.ReleasedAnnotation)
	b.event(true, o, ReasonOriginalOrphaned, fmt.Sprintf("Pod %s belongs to nobody any more: its owner was deleted and has left its pods behind", o.Name))
	return b.do(ChangeObject{o, orphaned})
}

// endOriginal ends an original that its owner would never look at again: nobody else would
// end it.
func endOriginal(b *builder) Decision {
	o, why := b.original(), owners.Abandons(b.Owner)
	b.event(true, o, ReasonOriginalEnded, fmt.Sprintf("Deleting pod %s, as its owner would have: %s", o.Name, why))
	return b.do(DeleteObject{o})
}

// returnOriginal gives the original the labels by which its owner adopts it again.
func returnOriginal(b *builder) Decision {
	returned, err := owners.Returned(b.original())
	if err != nil {
		return b.wait(PollInterval, "the original cannot be returned to its owner: %v", err)
	}
	return b.do(ChangeObject{b.original(), returned})
}

// readoptionGrace is how long the owner may take to adopt the original again. A ReplicaSet adopts
// none that has ended, for example.
const readoptionGrace = 30 * time.Second

// readoptOriginal forgets that the original was released, once its owner has it.
func readoptOriginal(b *builder) Decision {
	if !owners.IsAdoptedAgain(b.original()) && b.since(v1alpha1.ConditionRolledBack) < readoptionGrace {
		return b.wait(shortPoll, "waiting for %s %s to adopt pod %s again", b.Owner.Reference.Kind, b.Owner.Reference.Name, b.original().Name)
	}
	restored, err := owners.Restored(b.original())
	if err != nil {
		return b.wait(PollInterval, "the original cannot be returned to its owner: %v", err)
	}
	return b.do(ChangeObject{b.original(), restored})
}

// mayEnd reports whether a pod is there that can end: its node answers, and what keeps it
// is not the finalizer of another controller alone.
func mayEnd(s *State, pod *corev1.Pod, down time.Duration) bool {
	return pod != nil && !isOnDeadNode(s, pod, down) && !isKeptByOthers(pod)
}

// isKeptByOthers reports whether a pod that is being deleted runs nothing any more, or
// never did, and only finalizers keep the object.
func isKeptByOthers(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil && len(pod.Finalizers) > 0 && (pod.Spec.NodeName == "" || pods.IsTerminal(pod) && !isRunning(pod))
}

func isRunning(pod *corev1.Pod) bool {
	return slices.ContainsFunc(slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses), func(c corev1.ContainerStatus) bool { return c.State.Running != nil })
}

func replacementMayEnd(s *State) bool { return mayEnd(s, s.replacement(), s.DestinationDown) }

func removeMade(b *builder, pod *corev1.Pod) Decision {
	if pod.DeletionTimestamp == nil {
		return b.do(DeleteObject{pod})
	}
	b.decision.Wait = shortPoll
	return b.decision
}

// isThawedOrGone reports whether the original runs as before, or nothing can be done
// about it.
func isThawedOrGone(s *State) bool {
	report := s.source()
	wasFrozen := s.conditionReason(v1alpha1.ConditionSealed) != ""
	return s.originalEnding() || !wasFrozen || s.SourceDown != 0 || report == nil ||
		report.Phase == v1alpha1.SourceThawed || report.Phase == v1alpha1.SourceFailed
}

func finishRollback(b *builder) Decision {
	reason, message := b.conditionReason(v1alpha1.ConditionRolledBack), rollbackMessage(b)+leftOnDeadNodes(b)
	message += markKept(b)
	b.condition(v1alpha1.ConditionRolledBack, metav1.ConditionTrue, reason, message)
	phase := v1alpha1.PhaseFailed
	if isCancellation(reason) {
		phase = v1alpha1.PhaseCancelled
	}
	note := fmt.Sprintf("%s %s; pod %s was left as it is", phase, reason, b.Migration.Spec.PodName)
	if b.original() == nil {
		note = fmt.Sprintf("%s %s", phase, reason)
	}
	b.event(phase == v1alpha1.PhaseFailed, b.original(), reason, note+": "+message)
	return b.finish(phase, message)
}

// isOnDeadNode reports whether a pod that was removed cannot end, since its node
// does not answer. Kubernetes ends it when the node is back, or removed, and nobody
// has to wait for that: where state is carried, its gate is closed.
func isOnDeadNode(s *State, pod *corev1.Pod, down time.Duration) bool {
	return pod.DeletionTimestamp != nil && pod.Spec.NodeName != "" && down > s.Limits.AgentGrace
}

// leftOnDeadNodes names the pods that end only when their node is back.
func leftOnDeadNodes(b *builder) (sentence string) {
	for _, pod := range []*corev1.Pod{b.replacement(), b.placeholder()} {
		switch {
		case pod == nil:
		case isKeptByOthers(pod):
			sentence += fmt.Sprintf("; pod %s has ended, and is kept by finalizer %s", pod.Name, pod.Finalizers[0])
		default:
			sentence += fmt.Sprintf("; pod %s ends when node %s is Ready again, or removed", pod.Name, pod.Spec.NodeName)
		}
	}
	return sentence
}

// removeReplacement waits for the owner to remove a pod that is one too many, and
// does it otherwise.
func removeReplacement(b *builder) Decision {
	r := b.replacement()
	if r.DeletionTimestamp != nil {
		b.decision.Wait = PollInterval
		return b.decision
	}
	return discard(b, r)
}

func discard(b *builder, pod *corev1.Pod) Decision {
	if discarded := owners.Discarded(pod); len(discarded.Finalizers) < len(pod.Finalizers) {
		return b.do(ChangeObject{pod, discarded})
	}
	return b.do(DeleteObject{pod})
}

func withRollbackBarrier(original *corev1.Pod, barrier string) *corev1.Pod {
	pod := withoutHoldFinalizer(original)
	if owners.HasLowestDeletionCost(original) {
		pod = owners.WithoutDeletionCost(pod)
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[v1alpha1.RollbackBarrierAnnotation] = barrier
	return pod
}

func rollbackMessage(b *builder) string {
	for _, c := range b.Migration.Status.Conditions {
		if c.Type == v1alpha1.ConditionRolledBack {
			return c.Message
		}
	}
	return ""
}
