package decide

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

const (
	// webhookGrace is how long the admission webhook may take to answer once a
	// replacement is expected: the API server learns of its rules within seconds.
	webhookGrace = 30 * time.Second
	// probeInterval is how often it is asked meanwhile.
	probeInterval = 500 * time.Millisecond
	// recreateInterval is how soon a pod is looked for that its owner creates at once.
	recreateInterval = 100 * time.Millisecond
)

// announceReplacement announces that the owner's next pod is to become the replacement.
func announceReplacement(b *builder) Decision {
	b.condition(v1alpha1.ConditionReplacementPending, metav1.ConditionTrue, ReasonAnnounced, "the next pod of the owner is to become the replacement")
	b.say("asking whether the admission webhook answers")
	return b.decision
}

func isAnnounced(s *State) bool { return s.isTrue(v1alpha1.ConditionReplacementPending) }

// webhookAnswers reports whether the webhook has answered since it was announced.
func webhookAnswers(s *State) bool {
	return isAnnounced(s) && s.conditionReason(v1alpha1.ConditionReplacementPending) != ReasonAnnounced
}

// isProbed reports whether the webhook has answered, and the owner has created no pod since
// that would be taken for the next one. When the original is released nothing is asked again.
func isProbed(s *State) bool {
	probed := s.Migration.Status.Handover.ProbedAt
	return webhookAnswers(s) && (probed == nil || owners.IsReleased(s.original()) || !hasPodOf(s, *probed))
}

// probe is a pod like the next one of the owner. It is created in a dry run only.
func probe(b *builder) *corev1.Pod {
	o := b.Pod
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: o.Namespace, GenerateName: "probe-", Labels: maps.Clone(o.Labels), Annotations: maps.Clone(o.Annotations),
			OwnerReferences: []metav1.OwnerReference{*b.Migration.Status.Handover.Owner},
		},
		Spec: corev1.PodSpec{SecurityContext: o.Spec.SecurityContext, RestartPolicy: o.Spec.RestartPolicy},
	}
	delete(pod.Labels, v1alpha1.MigrationUIDLabel)
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, v1alpha1.ProbeAnnotation, string(b.Migration.UID))
	if b.keepsName() {
		// A dry run does not create what exists either.
		pod.GenerateName, pod.Name = "", o.Name+"-probe"
	}
	copied := func(of []corev1.Container, verdict v1alpha1.ContainerVerdict) []corev1.Container {
		for _, c := range of {
			if c.Name == verdict.Name {
				// As policies of the cluster will see it, but for what it mounts.
				c.VolumeMounts, c.VolumeDevices = nil, nil
				return []corev1.Container{*c.DeepCopy()}
			}
		}
		return nil
	}
	for _, v := range b.Migration.Status.Containers {
		if v.ShouldMigrate {
			pod.Spec.Containers = append(pod.Spec.Containers, copied(o.Spec.Containers, v)...)
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, copied(o.Spec.InitContainers, v)...)
		}
	}
	return pod
}

// webhookProbed continues when the webhook has turned the probe into a replacement.
// A probe that is refused would be again, and the pod of the owner as well.
func webhookProbed(b *builder, r Result) (Decision, error) {
	why := "it did not change a pod"
	switch {
	case r.Err == nil && r.Admitted && hasPodOf(b.State, r.ProbedAt):
		// Pods have whole seconds: that one could be taken for the next.
		return b.wait(probeInterval, "waiting: another pod of %s %s was created in this moment", b.Owner.Reference.Kind, b.Owner.Reference.Name), nil
	case r.Err == nil && r.Admitted:
		b.newStatus().Handover.ProbedAt = nil
		if !r.ProbedAt.IsZero() {
			b.newStatus().Handover.ProbedAt = &r.ProbedAt
		}
		b.condition(v1alpha1.ConditionReplacementPending, metav1.ConditionTrue, ReasonWebhookAnswers, "the admission webhook turns the next pod of the owner into the replacement")
		return b.decision, nil
	case isRejected(r.Err) && !b.IsCommitted():
		return beginRollback(b, ReasonReplacementRejected, "the next pod of the owner would be refused: "+r.Err.Error()), nil
	case r.Err != nil:
		why = r.Err.Error()
	}
	if waited := b.since(v1alpha1.ConditionReplacementPending); waited > webhookGrace && !b.IsCommitted() {
		return beginRollback(b, ReasonWebhookMissing, fmt.Sprintf("the admission webhook of the rebalancer does not answer: %s", why)), nil
	}
	return b.wait(probeInterval, "waiting for the admission webhook: %s", why), nil
}

// mayRelease reports whether the owner is at rest, so that it creates one pod, the
// replacement, when the original is released.
func mayRelease(s *State) bool {
	return owners.IsReleased(s.original()) || s.Replacement == nil && owners.Refuse(s.original(), s.Owner) == nil && owners.InFlight(s.Owner) == ""
}

// checkOwner ends a migration whose owner can create no replacement any more, and
// waits while it is not at rest.
func checkOwner(b *builder) Decision {
	if b.Replacement != nil {
		return beginRollback(b, ReasonNameTaken, fmt.Sprintf("pod %s exists and was not created by this migration", b.Replacement.Name))
	}
	if r := owners.Refuse(b.original(), b.Owner); r != nil {
		return beginRollback(b, r.Reason, r.Message)
	}
	return b.wait(shortPoll, "waiting: %s", owners.InFlight(b.Owner))
}

// releaseOriginal removes the original from its owner, which then creates the
// replacement.
func releaseOriginal(b *builder) Decision {
	o := b.original()
	released, err := owners.Released(o, b.Owner)
	if err != nil {
		return beginRollback(b, ReasonReplacementRejected, err.Error())
	}
	return b.do(ChangeObject{o, released})
}

// awaitOwnersPod waits for the owner to create the replacement beside the original.
func awaitOwnersPod(b *builder) Decision {
	if plain := plainPod(b.State); plain != nil {
		return beginRollback(b, ReasonWebhookMissed, fmt.Sprintf("%s %s created pod %s while the admission webhook did not answer", b.Owner.Reference.Kind, b.Owner.Reference.Name, plain.Name))
	}
	if r := noNextPod(b.State); r != nil {
		return beginRollback(b, r.Reason, r.Message)
	}
	return b.wait(shortPoll, "waiting for %s %s to create the replacement", b.Owner.Reference.Kind, b.Owner.Reference.Name)
}

// noNextPod returns why the owner makes no replacement any more; nil when it does.
func noNextPod(s *State) *containers.Refusal {
	return owners.NoNextPod(s.Owner, s.Migration.Status.Handover.Identity, s.Siblings)
}

// recordReplacement records a replacement that exists: the pod of the owner that has
// become it, or one that was created before a crash.
func recordReplacement(b *builder, r *corev1.Pod) Decision {
	if owners.NeedsWebhook(b.method()) {
		b.condition(v1alpha1.ConditionReplacementPending, metav1.ConditionFalse, ReasonReplacementRecorded, fmt.Sprintf("pod %s has become the replacement", r.Name))
	}
	return markCreated(b, r)
}

// plainPod is a pod of the owner that should have become the replacement, and
// was created while the webhook did not answer.
func plainPod(s *State) *corev1.Pod {
	h := s.Migration.Status.Handover
	for i := range s.Siblings {
		pod := &s.Siblings[i]
		// Of one identity there is one pod at a time, whatever a clock says.
		isNew := h.Identity != "" && !pods.IsTerminal(pod) || h.ProbedAt != nil && !pod.CreationTimestamp.Before(h.ProbedAt)
		if isPlain(s, pod) && isNew && (h.Identity == "" || owners.Identity(pod, s.Owner) == h.Identity) {
			return pod
		}
	}
	return nil
}

// isPlain reports whether a pod is nobody's original or replacement.
func isPlain(s *State, pod *corev1.Pod) bool {
	return pod.UID != s.Migration.Status.Original.UID && pod.DeletionTimestamp == nil && pod.Labels[v1alpha1.MigrationUIDLabel] == ""
}

// hasPodOf reports whether the owner has a pod already that would be taken for one that it
// created since a moment.
//
// Pods of an owner without identities differ by when they were created. The API server writes
// that, and it is compared with what its answer to the probe has: the clock of this process
// may be minutes off, so that a pod that was created without the webhook would not be seen,
// or an older one be deleted. Where the clocks of several API servers differ by more than the
// time between probe and release, a pod can be misjudged whose creation the webhook missed.
func hasPodOf(s *State, moment metav1.Time) bool {
	return s.Migration.Status.Handover.Identity == "" && slices.ContainsFunc(s.Siblings, func(pod corev1.Pod) bool {
		return isPlain(s, &pod) && !pod.CreationTimestamp.Before(&moment)
	})
}

// awaitRecreated waits for the owner's new pod, once the original is gone. A pod
// that was created while the webhook did not answer has no state: as long as it has
// not started, it is deleted, and the owner creates another one.
func awaitRecreated(b *builder) Decision {
	plain := plainPod(b.State)
	switch {
	case plain == nil && noNextPod(b.State) != nil:
		r := noNextPod(b.State)
		return failPermanently(b, r.Reason, r.Message)
	case plain == nil:
		return b.wait(shortPoll, "waiting for %s %s to create the replacement", b.Owner.Reference.Kind, b.Owner.Reference.Name)
	case hasStarted(plain):
		return failPermanently(b, ReasonWebhookMissed, fmt.Sprintf("pod %s was recreated by its owner while the admission webhook did not answer, and has started", plain.Name))
	}
	b.event(true, plain, ReasonWebhookMissed, fmt.Sprintf("Deleting pod %s, which was created while the admission webhook did not answer, before it starts", plain.Name))
	b.wait(recreateInterval, "deleting pod %s before it starts: the admission webhook did not answer when it was created", plain.Name)
	return b.do(DeleteObject{plain})
}

// plainPodDeleted looks for the next pod of the owner.
func plainPodDeleted(b *builder, r Result) (Decision, error) {
	if apierrors.IsNotFound(r.Err) || apierrors.IsConflict(r.Err) {
		return b.decision, nil
	}
	return b.decision, r.Err
}

func hasStarted(pod *corev1.Pod) bool {
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if s.State.Running != nil || s.State.Terminated != nil || s.LastTerminationState.Terminated != nil {
			return true
		}
	}
	return false
}
