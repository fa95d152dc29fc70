package migration

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/owners"
)

// Next decides the next step of a migration. It is pure: the same state gives
// the same decision.
func Next(s State) Decision {
	st := newStep(&s)
	m := s.Migration
	switch {
	case m.Status.Phase.IsFinished():
		return st.finished()
	case !slices.Contains(m.Finalizers, v1alpha1.Finalizer):
		if m.DeletionTimestamp != nil {
			return st.decision
		}
		return st.do(Action{Type: AddFinalizer})
	case s.isRollingBack():
		return st.rollback()
	case s.wantsStop() && !s.isCommitted():
		return st.stop()
	}
	switch m.Status.Phase {
	case v1alpha1.PhasePreparing:
		return st.preparing()
	case v1alpha1.PhasePlacing:
		return st.placing()
	case v1alpha1.PhaseHandingOver:
		return st.handingOver()
	default:
		return st.pending()
	}
}

// finished cleans up the record itself. What is finished has nothing left to
// put back: its record can go at any time, also when no controller runs.
func (st *step) finished() Decision {
	m := st.Migration
	if slices.Contains(m.Finalizers, v1alpha1.Finalizer) {
		return st.do(Action{Type: RemoveFinalizer})
	}
	if m.DeletionTimestamp != nil {
		return st.decision
	}
	if m.Spec.TTLSecondsAfterFinished == nil || m.Status.Times.Finished == nil {
		return st.decision
	}
	expires := m.Status.Times.Finished.Add(time.Duration(*m.Spec.TTLSecondsAfterFinished) * time.Second)
	if st.Now.Before(expires) {
		st.decision.Wait = expires.Sub(st.Now)
		return st.decision
	}
	return st.do(Action{Type: DeleteMigration})
}

func (st *step) stop() Decision {
	message := "cancelled on request"
	if st.Migration.DeletionTimestamp != nil {
		message = "cancelled because the PodMigration is being deleted"
	}
	if st.Migration.Status.Phase == "" || st.Migration.Status.Phase == v1alpha1.PhasePending {
		st.event(false, nil, ReasonCancelled, message)
		return st.finish(v1alpha1.PhaseCancelled, message)
	}
	return st.giveUp(ReasonCancelled, message)
}

// giveUp writes down that, and why, everything will be put back. Nothing is
// removed before that is in the status.
func (st *step) giveUp(reason, message string) Decision {
	st.condition(v1alpha1.ConditionRolledBack, metav1.ConditionFalse, reason, message)
	if c := st.status().Checkpoint; c != nil && c.Step != "" {
		c.Step = v1alpha1.StepAbort
	}
	if st.isTrue(v1alpha1.ConditionExpecting) {
		st.condition(v1alpha1.ConditionExpecting, metav1.ConditionFalse, reason, message)
	}
	st.say("putting everything back: %s", message)
	return st.decision
}

// rollback removes what the migration made, and finishes.
func (st *step) rollback() Decision {
	if d, made := st.takeBack(); made {
		return d
	}
	if r := st.replacement(); r != nil {
		return st.removeReplacement(r)
	}
	for _, made := range []struct {
		pod    *corev1.Pod
		remove ActionType
	}{{st.carrier(), DeleteCarrier}, {st.placeholder(), DeletePlaceholder}} {
		if made.pod == nil {
			continue
		}
		if made.pod.DeletionTimestamp == nil {
			return st.do(Action{Type: made.remove, Pod: made.pod})
		}
		st.decision.Wait = time.Second
		return st.decision
	}
	if d, made := st.restoreOriginal(); made {
		return d
	}
	// A claim that is being deleted is held only until nothing uses it.
	if c := st.claim(); c != nil && c.DeletionTimestamp == nil {
		return st.do(Action{Type: DeleteClaim, Claim: c})
	}
	reason, message := st.conditionReason(v1alpha1.ConditionRolledBack), st.rollbackMessage()
	st.condition(v1alpha1.ConditionRolledBack, metav1.ConditionTrue, reason, message)
	phase := v1alpha1.PhaseFailed
	if isCancellation(reason) {
		phase = v1alpha1.PhaseCancelled
	}
	note := fmt.Sprintf("%s %s; pod %s was left as it is", phase, reason, st.Migration.Spec.PodName)
	if st.original() == nil {
		note = fmt.Sprintf("%s %s", phase, reason)
	}
	st.event(phase == v1alpha1.PhaseFailed, st.original(), reason, note+": "+message)
	return st.finish(phase, message)
}

// takeBack gives an original back to the owner that has let it go. A pod that the
// owner could prefer to it goes first, without being counted as failed.
func (st *step) takeBack() (Decision, bool) {
	o := st.original()
	if o == nil || o.DeletionTimestamp != nil || !owners.IsReleased(o) {
		return Decision{}, false
	}
	for i := range st.Siblings {
		if rival := &st.Siblings[i]; owners.IsRival(rival, o, st.Migration.UID) {
			return st.discard(rival), true
		}
	}
	restored, err := owners.Restored(o)
	if err != nil {
		return st.wait(pollInterval, "the original cannot be given back to its owner: %v", err), true
	}
	return st.do(Action{Type: RestoreOriginal, Pod: o, Becomes: restored}), true
}

// removeReplacement waits for the owner to remove a pod that is one too many, and
// does it otherwise.
func (st *step) removeReplacement(r *corev1.Pod) Decision {
	if r.DeletionTimestamp != nil {
		st.decision.Wait = pollInterval
		return st.decision
	}
	return st.discard(r)
}

func (st *step) discard(pod *corev1.Pod) Decision {
	if discarded := owners.Discarded(pod); len(discarded.Finalizers) < len(pod.Finalizers) {
		return st.do(Action{Type: DiscardPod, Pod: pod, Becomes: discarded})
	}
	return st.do(Action{Type: DeleteReplacement, Pod: pod})
}

// restoreOriginal makes sure that the original works as before: it is thawed,
// and no mark is left. The fence makes every judgement void that a controller
// which is believed dead has made of the pod.
func (st *step) restoreOriginal() (Decision, bool) {
	o := st.original()
	if o == nil || o.DeletionTimestamp != nil {
		return Decision{}, false
	}
	wasFrozen := st.conditionReason(v1alpha1.ConditionSealed) != ""
	if s := st.source(); wasFrozen && st.SourceNodeAlive && s != nil && s.Phase != v1alpha1.SourceThawed && s.Phase != v1alpha1.SourceFailed {
		return st.wait(time.Second, "waiting for the node agent of %s to let pod %s go on", s.Node, o.Name), true
	}
	replacementExisted := st.Migration.Status.Replacement != nil && st.Migration.Status.Replacement.UID != ""
	if replacementExisted && o.Annotations[v1alpha1.FencedAnnotation] != string(st.Migration.UID) || owners.DoesGiveWay(o) || isHeld(o) {
		return st.do(Action{Type: FenceOriginal, Pod: o, Becomes: fenced(o, st.Migration.UID)}), true
	}
	return Decision{}, false
}

func fenced(original *corev1.Pod, migration types.UID) *corev1.Pod {
	pod := letGo(original)
	if owners.DoesGiveWay(original) {
		pod = owners.KeepsPlace(pod)
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[v1alpha1.FencedAnnotation] = string(migration)
	return pod
}

func (st *step) rollbackMessage() string {
	for _, c := range st.Migration.Status.Conditions {
		if c.Type == v1alpha1.ConditionRolledBack {
			return c.Message
		}
	}
	return ""
}
