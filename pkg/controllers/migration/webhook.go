package migration

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

const (
	// webhookGrace is how long the admission webhook may take to answer once a
	// replacement is expected: the API server learns of its rules within seconds.
	webhookGrace = 30 * time.Second
	// probeInterval is how often it is asked meanwhile.
	probeInterval = 500 * time.Millisecond
)

// expect announces that the owner's next pod is to become the replacement, and
// asks whether the admission webhook would see to it. It reports whether the
// decision is made.
func (st *step) expect() (Decision, bool) {
	if !st.isTrue(v1alpha1.ConditionReplacementPending) {
		st.condition(v1alpha1.ConditionReplacementPending, metav1.ConditionTrue, ReasonAnnounced, "the next pod of the owner is to become the replacement")
		st.say("asking whether the admission webhook answers")
		return st.decision, true
	}
	if st.conditionReason(v1alpha1.ConditionReplacementPending) == ReasonAnnounced {
		return st.do(Action{Type: ProbeWebhook, Pod: st.probe()}), true
	}
	return Decision{}, false
}

// probe is a pod like the next one of the owner. It is created in a dry run only.
func (st *step) probe() *corev1.Pod {
	o := st.Pod
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: o.Namespace, GenerateName: "probe-", Labels: maps.Clone(o.Labels), Annotations: maps.Clone(o.Annotations),
			OwnerReferences: []metav1.OwnerReference{*st.Migration.Status.Handover.Owner},
		},
		Spec: corev1.PodSpec{SecurityContext: o.Spec.SecurityContext, RestartPolicy: o.Spec.RestartPolicy},
	}
	delete(pod.Labels, v1alpha1.MigrationUIDLabel)
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, v1alpha1.ProbeAnnotation, string(st.Migration.UID))
	if st.keepsName() {
		// A dry run does not create what exists either.
		pod.GenerateName, pod.Name = "", o.Name+"-probe"
	}
	copied := func(of []corev1.Container, verdict v1alpha1.ContainerVerdict) []corev1.Container {
		for _, c := range of {
			if c.Name == verdict.Name {
				return []corev1.Container{{Name: c.Name, Image: c.Image, Resources: c.Resources, SecurityContext: c.SecurityContext, RestartPolicy: c.RestartPolicy}}
			}
		}
		return nil
	}
	for _, v := range st.Migration.Status.Containers {
		if v.ShouldMigrate {
			pod.Spec.Containers = append(pod.Spec.Containers, copied(o.Spec.Containers, v)...)
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, copied(o.Spec.InitContainers, v)...)
		}
	}
	return pod
}

// probed goes on when the webhook has turned the probe into a replacement.
func (st *step) probed(r Result) (Decision, error) {
	if r.Err == nil && r.Admitted {
		st.condition(v1alpha1.ConditionReplacementPending, metav1.ConditionTrue, ReasonWebhookAnswers, "the admission webhook turns the next pod of the owner into the replacement")
		return st.decision, nil
	}
	why := "it left a pod as it was"
	if r.Err != nil {
		why = r.Err.Error()
	}
	if waited := st.since(v1alpha1.ConditionReplacementPending); waited > webhookGrace && !st.isCommitted() {
		return st.giveUp(ReasonWebhookMissing, fmt.Sprintf("the admission webhook of the rebalancer does not answer: %s", why)), nil
	}
	return st.wait(probeInterval, "waiting for the admission webhook: %s", why), nil
}

// releaseOriginal has the owner let the original go, which makes it create the
// replacement.
func (st *step) releaseOriginal(existing *corev1.Pod) Decision {
	o := st.original()
	switch {
	case existing != nil:
		return st.taken(existing)
	case st.Replacement != nil:
		return st.giveUp(ReasonNameTaken, fmt.Sprintf("pod %s exists and belongs to somebody else", st.Replacement.Name))
	}
	if !owners.IsReleased(o) {
		if r := owners.Refuse(o, st.Owner); r != nil {
			return st.giveUp(r.Reason, r.Message)
		}
		if why := owners.InFlight(st.Owner); why != "" {
			return st.wait(time.Second, "waiting: %s", why)
		}
	}
	if d, made := st.expect(); made {
		return d
	}
	if !owners.IsReleased(o) {
		released, err := owners.Released(o, st.Owner)
		if err != nil {
			return st.giveUp(ReasonReplacementRejected, err.Error())
		}
		return st.do(Action{Type: ReleaseOriginal, Pod: o, Becomes: released})
	}
	if plain := st.plainPod(); plain != nil {
		return st.giveUp(ReasonWebhookMissed, fmt.Sprintf("%s %s made pod %s while the admission webhook did not answer", st.Owner.Reference.Kind, st.Owner.Reference.Name, plain.Name))
	}
	return st.wait(time.Second, "waiting for %s %s to make the replacement", st.Owner.Reference.Kind, st.Owner.Reference.Name)
}

// taken records the pod of the owner that has become the replacement.
func (st *step) taken(r *corev1.Pod) Decision {
	st.condition(v1alpha1.ConditionReplacementPending, metav1.ConditionFalse, ReasonTaken, fmt.Sprintf("pod %s has become the replacement", r.Name))
	return st.created(r)
}

// plainPod is a pod of the owner that should have become the replacement, and
// was made while the webhook did not answer.
func (st *step) plainPod() *corev1.Pod {
	h := st.Migration.Status.Handover
	for i := range st.Siblings {
		pod := &st.Siblings[i]
		isNew := !pod.CreationTimestamp.Time.Before(st.since0(v1alpha1.ConditionReplacementPending))
		if pod.UID == st.Migration.Status.Original.UID || pod.DeletionTimestamp != nil || v1alpha1.OwnedBy(pod.Labels, st.Migration.UID) ||
			!isNew || h.Identity != "" && owners.Identity(pod, st.Owner) != h.Identity {
			continue
		}
		return pod
	}
	return nil
}

// awaitRecreated waits for the owner's new pod, once the original is gone. A pod
// that was made while the webhook did not answer has no state: as long as it has
// not started, it is removed, and the owner makes another one.
func (st *step) awaitRecreated() Decision {
	plain := st.plainPod()
	switch {
	case plain == nil:
		return st.wait(time.Second, "waiting for %s %s to make the replacement", st.Owner.Reference.Kind, st.Owner.Reference.Name)
	case hasStarted(plain):
		return st.failForGood(ReasonWebhookMissed, fmt.Sprintf("pod %s was made anew by its owner while the admission webhook did not answer, and has started: what was carried is kept on claim %s", plain.Name, st.Migration.Status.CheckpointClaim))
	}
	st.event(true, plain, ReasonWebhookMissed, fmt.Sprintf("Removing pod %s, which was made while the admission webhook did not answer, before it starts", plain.Name))
	return st.do(Action{Type: DeletePlainPod, Pod: plain})
}

func hasStarted(pod *corev1.Pod) bool {
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if s.State.Running != nil || s.State.Terminated != nil || s.LastTerminationState.Terminated != nil {
			return true
		}
	}
	return false
}

// keepsName reports whether the replacement has the name of the original.
func (s *State) keepsName() bool {
	h := s.Migration.Status.Handover
	return h != nil && owners.KindOf(h.Owner) == owners.KindStatefulSet
}
