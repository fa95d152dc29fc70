package decide

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// sealedAndGone is a scene in which the claim has the only copy of the state: it is
// sealed, the original has ended, and no replacement continues with it.
func sealedAndGone(method v1alpha1.ReplacementMethod) *scene {
	return stopFirst(carrying(v1alpha1.PhaseHandingOver), method).step(v1alpha1.StepSeal).source(v1alpha1.SourceSealed, 3).destination(v1alpha1.DestinationStored, 3).
		set(v1alpha1.ConditionSealed, metav1.ConditionTrue, ReasonSealed).
		set(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver).with(func(s *scene) {
		s.Pod, s.Placeholder = nil, nil
		s.Migration.Status.Times.Stopped, s.Migration.Status.Times.OriginalGone = ago(3*time.Second), ago(2*time.Second)
	})
}

// recreatedPlain is a scene in which a StatefulSet has recreated its pod without the
// webhook, and the pod has started.
func recreatedPlain(s *scene) *scene {
	s.Pod = originalPod().Obj()
	ofStatefulSet(s).with(replacementPending(ReasonWebhookAnswers))
	plain := siblingOf(s, "train", 0)
	plain.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	s.Pod, s.Replacement, s.Placeholder, s.Siblings = nil, nil, nil, []corev1.Pod{*plain}
	return s
}

// releasedAndGone is a scene in which the replacement has the state, and the original is
// gone.
func releasedAndGone() *scene {
	return released().set(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver).with(func(s *scene) { s.Pod = nil })
}

func ownedBy(pods ...string) func(*scene) {
	return func(s *scene) {
		s.Claim.OwnerReferences = nil
		for _, name := range pods {
			s.Claim.OwnerReferences = append(s.Claim.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: name, UID: types.UID("uid-" + name)})
		}
	}
}

func TestFailingKeepsTheOnlyCopy(t *testing.T) {
	const handing, failed = v1alpha1.PhaseHandingOver, v1alpha1.PhaseFailed
	const kept = "what was carried is kept on claim checkpoint"
	wasReady := func(s *scene) { s.Migration.Status.Times.ReplacementReady = ago(time.Second) }
	create := func() *scene { return sealedAndGone(v1alpha1.MethodCreate) }
	corrupt := func(s *scene) {
		s.Replacement = readyReplacement().Obj()
		s.Migration.Status.Replacement.NodeName = "b"
		s.destination(v1alpha1.DestinationFailed, 3)
	}
	replacementGone := func(s *scene) { s.Replacement = nil }
	check(t, []row{
		{"the replacement was deleted", create().with(replacementGone), NoAction, failed, "", kept},
		{"the replacement is being deleted", create().with(func(s *scene) { deleting(s.Replacement) }), NoAction, failed, "", kept},
		{"the replacement failed", create().with(func(s *scene) { s.Replacement.Status.Phase = corev1.PodFailed }), NoAction, failed, "", kept},
		{"the replacement was deleted before it was recorded", create().with(withoutReplacement), NoAction, failed, "", kept},
		{"the checkpoint cannot be restored", create().with(corrupt), NoAction, failed, "", kept},
		{"retained anyway", create().with(replacementGone).with(func(s *scene) {
			s.Migration.Spec.Checkpoint.ReclaimPolicy = v1alpha1.ClaimRetain
		}), NoAction, failed, "", kept},
		{"brought along by the pod", create().with(replacementGone).with(func(s *scene) {
			s.Migration.Status.Checkpoint.ClaimReused, s.Claim.Labels = true, nil
		}), NoAction, failed, "", kept},
		{"owned by the replacement: not any more", create().with(corrupt).with(ownedBy("train-r")), KeepClaim, handing, "", ""},
		{"owned by a replacement that is gone", create().with(replacementGone).with(ownedBy("train-r")), KeepClaim, handing, "", ""},
		{"owned by something else too", create().with(replacementGone).with(func(s *scene) {
			s.Claim.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Study", Name: "s", UID: "study"}}
		}), NoAction, failed, "", kept},
		{"the placeholder goes", create().with(replacementGone).with(func(s *scene) {
			s.Placeholder = fixture.MakePod("placeholder").Label(v1alpha1.MigrationUIDLabel, "m").Node("b").Phase(corev1.PodRunning).Obj()
		}), DeletePlaceholder, handing, "", ""},
		{"the finalizer goes", create().with(replacementGone).with(func(s *scene) { s.Claim.Finalizers = []string{v1alpha1.CheckpointFinalizer} }), KeepClaim, handing, "", ""},
		{"the finalizer stays on a claim that is being deleted", create().with(replacementGone).with(func(s *scene) {
			s.Claim.Finalizers = []string{v1alpha1.CheckpointFinalizer}
			deleting(s.Claim)
		}), NoAction, failed, "", "finalizer migration.ai-storage/checkpoint keeps it"},
		{"the claim is gone", create().with(replacementGone).with(func(s *scene) { s.Claim = nil }), NoAction, failed, "", "claim checkpoint, which held what was carried, no longer exists"},
		{"the claim is being deleted", create().with(replacementGone).with(func(s *scene) { deleting(s.Claim) }), NoAction, failed, "", "claim checkpoint, which holds what was carried, is being deleted"},
		{"recreated without the webhook, and started", recreatedPlain(sealedAndGone(v1alpha1.MethodRecreate)), NoAction, failed, "", kept},

		{"nothing was carried: the claim goes", recreatedPlain(stopFirst(in(handing), v1alpha1.MethodRecreate).set(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver)), DeleteClaim, handing, "", ""},
		{"nothing was carried, and the claim is gone", recreatedPlain(stopFirst(in(handing), v1alpha1.MethodRecreate).set(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver)).
			with(func(s *scene) { s.Claim = nil }), NoAction, failed, "", "and has started"},
		{"not sealed: the claim holds no complete copy", create().with(replacementGone).source(v1alpha1.SourceCopied, 2).set(v1alpha1.ConditionSealed, metav1.ConditionFalse, ReasonSealing), DeleteClaim, handing, "", ""},
		{"Ready once: the claim goes with the replacement", releasedAndGone().with(replacementGone).with(wasReady), DeleteClaim, handing, "", ""},
		{"Ready once: the failed replacement has the claim", releasedAndGone().with(wasReady).with(func(s *scene) { s.Replacement = readyReplacement().Phase(corev1.PodFailed).Obj() }), AdoptClaim, handing, "", ""},
		{"released, and never Ready: the claim is kept", releasedAndGone().with(replacementGone), NoAction, failed, "", kept},
		{"released and retained: the claim stays", releasedAndGone().with(replacementGone).with(func(s *scene) {
			s.Migration.Spec.Checkpoint.ReclaimPolicy = v1alpha1.ClaimRetain
		}), NoAction, failed, "", "after the original had gone"},
	})
}

// No pod owns the claim any more, and no finalizer of the migration keeps it.
func TestFailingDropsEveryPodThatOwnsTheClaim(t *testing.T) {
	s := sealedAndGone(v1alpha1.MethodCreate).with(func(s *scene) { s.Replacement = nil }).with(ownedBy("train", "train-r"))
	s.Claim.Finalizers = []string{protection, v1alpha1.CheckpointFinalizer}
	d := next(t, s.State)
	change, isChange := d.Action.(ChangeObject)
	if d.Step != KeepClaim || !isChange || len(change.To.GetOwnerReferences()) > 0 || len(change.To.GetFinalizers()) != 1 {
		t.Fatalf("step %s, action %+v, want the claim without owners and without our finalizer", d.Step, d.Action)
	}
	s.Claim = change.To.(*corev1.PersistentVolumeClaim)
	if d := next(t, s.State); d.Status.Phase != v1alpha1.PhaseFailed {
		t.Errorf("phase %s, want it to have failed", d.Status.Phase)
	}
}
