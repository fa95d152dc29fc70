package migration

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// giveUp writes down that, and why, everything will be put back. Nothing is
// removed before that is in the status.
func (st *step) giveUp(reason, message string) Decision {
	st.condition(v1alpha1.ConditionRolledBack, metav1.ConditionFalse, reason, message)
	if c := st.status().Checkpoint; c != nil && c.Step != "" {
		c.Step = v1alpha1.StepAbort
	}
	if st.isTrue(v1alpha1.ConditionReplacementPending) {
		st.condition(v1alpha1.ConditionReplacementPending, metav1.ConditionFalse, reason, message)
	}
	st.say("putting everything back: %s", message)
	return st.decision
}

// rollback removes what the migration made, and finishes.
func (st *step) rollback() Decision {
	if d, made := st.takeBack(); made {
		return d
	}
	if r := st.replacement(); r != nil && !st.isOnDeadNode(r, st.DestinationDown) {
		return st.removeReplacement(r)
	}
	for _, made := range []struct {
		pod    *corev1.Pod
		down   time.Duration
		remove ActionType
	}{{st.carrier(), st.SourceDown, DeleteCarrier}, {st.placeholder(), st.DestinationDown, DeletePlaceholder}} {
		if made.pod == nil || st.isOnDeadNode(made.pod, made.down) {
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
	reason, message := st.conditionReason(v1alpha1.ConditionRolledBack), st.rollbackMessage()+st.leftOnDeadNodes()
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

// isOnDeadNode reports whether a pod that was removed cannot end, since its node
// does not answer. Kubernetes ends it when the node is back, or removed, and nobody
// has to wait for that: where state is carried, its gate is closed.
func (st *step) isOnDeadNode(pod *corev1.Pod, down time.Duration) bool {
	return pod.DeletionTimestamp != nil && pod.Spec.NodeName != "" && down > st.Limits.AgentGrace
}

// leftOnDeadNodes names the pods that end only when their node is back.
func (st *step) leftOnDeadNodes() (sentence string) {
	for _, pod := range []*corev1.Pod{st.replacement(), st.carrier(), st.placeholder()} {
		if pod != nil {
			sentence += fmt.Sprintf("; pod %s ends when node %s is back, or removed", pod.Name, pod.Spec.NodeName)
		}
	}
	return sentence
}

// takeBack gives an original back to the owner that has let it go. A pod that the
// owner could prefer to it goes first, without being counted as failed.
func (st *step) takeBack() (Decision, bool) {
	o := st.original()
	if o == nil || o.DeletionTimestamp != nil || !owners.IsReleased(o) {
		return Decision{}, false
	}
	// It is released only after the migration was prepared.
	since := st.Now
	if prepared := st.Migration.Status.Times.Prepared; prepared != nil {
		since = prepared.Time
	}
	for i := range st.Siblings {
		if rival := &st.Siblings[i]; owners.IsRival(rival, o, st.Migration.UID, since) {
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
	if s := st.source(); wasFrozen && st.SourceDown == 0 && s != nil && s.Phase != v1alpha1.SourceThawed && s.Phase != v1alpha1.SourceFailed {
		return st.wait(time.Second, "waiting for the node agent of %s to let pod %s go on", s.Node, o.Name), true
	}
	replacementExisted := st.Migration.Status.Replacement != nil && st.Migration.Status.Replacement.UID != ""
	if replacementExisted && o.Annotations[v1alpha1.RollbackBarrierAnnotation] != string(st.Migration.UID) || owners.HasLowestDeletionCost(o) || isHeld(o) {
		return st.do(Action{Type: FenceOriginal, Pod: o, Becomes: fenced(o, st.Migration.UID)}), true
	}
	return Decision{}, false
}

func fenced(original *corev1.Pod, migration types.UID) *corev1.Pod {
	pod := letGo(original)
	if owners.HasLowestDeletionCost(original) {
		pod = owners.WithoutDeletionCost(pod)
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[v1alpha1.RollbackBarrierAnnotation] = string(migration)
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
