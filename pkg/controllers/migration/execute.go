package migration

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
)

// execute takes one action. Whatever the API server answers is a result, for
// Settle to read. The objects of the action stay as they are; m takes the answer
// of what is done to the migration itself.
func (r *reconciler) execute(ctx context.Context, m *v1alpha1.PodMigration, a decide.Action) decide.Result {
	var result decide.Result
	switch a.Type {
	case decide.AddFinalizer:
		base := m.DeepCopy()
		controllerutil.AddFinalizer(m, v1alpha1.Finalizer)
		result.Err = r.patchMeta(ctx, m, base)
	case decide.RemoveFinalizer:
		base := m.DeepCopy()
		controllerutil.RemoveFinalizer(m, v1alpha1.Finalizer)
		result.Err = r.patchMeta(ctx, m, base)
	case decide.AskBudget:
		if r.admission != nil {
			result.Reason, result.Err = r.admission.admit(ctx, m, a.Pod)
		}
		result.Admitted = result.Reason == "" && result.Err == nil
	case decide.MeasureBefore, decide.MeasureAfter:
		// A measurement that cannot be read is a missing one: a migration does
		// not fail for it, and the status says so.
		sample, err := readSample(ctx, r.metrics, a.Pod.Namespace, a.Pod.Name)
		if err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Cannot measure a pod", "pod", klog.KObj(a.Pod))
		}
		result.Sample = sample
	case decide.CreateClaim:
		result.Err = r.client.Create(ctx, a.Claim.DeepCopy())
	case decide.CreateCarrier, decide.CreatePlaceholder:
		result.Err = r.client.Create(ctx, a.Pod.DeepCopy())
	case decide.ProbeWebhook:
		result.Admitted, result.Err = r.probe(ctx, m, a.Pod)
	case decide.ProbeWebhookAndRemoveHold:
		if result.Admitted, result.Err = r.probe(ctx, m, a.Probe); result.Admitted {
			result.Err = r.change(ctx, a.Pod, a.Becomes)
		}
	case decide.OrphanClaim:
		result.Err = r.removeOwner(ctx, a.Claim, a.Pod)
	case decide.NominateReplacement:
		result.Err = r.client.Status().Patch(ctx, a.Becomes.DeepCopy(), client.MergeFrom(a.Pod))
	case decide.CreateReplacement:
		result.Created = a.Pod.DeepCopy()
		result.Err = r.client.Create(ctx, result.Created)
	case decide.CheckEviction:
		result.Err = r.evict(ctx, a.Pod, metav1.DryRunAll)
	case decide.MarkOriginal, decide.SetRollbackBarrier, decide.ReleaseOriginal, decide.ReadoptOriginal, decide.RemoveSchedulingGate, decide.DiscardPod:
		result.Err = r.change(ctx, a.Pod, a.Becomes)
	case decide.OfferReplacement:
		// What the ReplicaSet deletes then, the budgets have to allow.
		if a.Evicts != nil {
			result.Err = r.evict(ctx, a.Evicts, metav1.DryRunAll)
		}
		if result.Err == nil {
			result.Err = r.change(ctx, a.Pod, a.Becomes)
		}
	case decide.KeepPreviousClaim, decide.AdoptClaim:
		result.Err = r.addOwner(ctx, a.Claim, a.Pod)
	case decide.Evict:
		result.Err = r.evict(ctx, a.Pod)
	case decide.DeleteReplacement, decide.DeleteCarrier, decide.DeletePlaceholder, decide.DeletePlainPod:
		result.Err = r.deleteExactly(ctx, a.Pod)
	case decide.DeleteClaim:
		result.Err = r.deleteExactly(ctx, a.Claim)
	case decide.DeleteMigration:
		result.Err = r.deleteExactly(ctx, m)
	}
	return result
}

func (r *reconciler) patchMeta(ctx context.Context, m, base *v1alpha1.PodMigration) error {
	// The patch answers with the stored status, which is the one decided on.
	return r.client.Patch(ctx, m, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
}

// evict goes through the Eviction API, so that PodDisruptionBudgets hold. The
// resourceVersion makes it fail when the pod has changed since it was judged. A
// dry run asks only whether it may go.
func (r *reconciler) evict(ctx context.Context, pod *corev1.Pod, dryRun ...string) error {
	eviction := &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		DeleteOptions: &metav1.DeleteOptions{DryRun: dryRun, Preconditions: &metav1.Preconditions{
			UID: ptr.To(pod.UID), ResourceVersion: ptr.To(pod.ResourceVersion),
		}},
	}
	return r.client.SubResource("eviction").Create(ctx, pod.DeepCopy(), eviction)
}

// change patches a pod, unless it has changed since it was judged.
func (r *reconciler) change(ctx context.Context, pod, becomes *corev1.Pod) error {
	return r.client.Patch(ctx, becomes.DeepCopy(), client.MergeFromWithOptions(pod, client.MergeFromWithOptimisticLock{}))
}

func (r *reconciler) deleteExactly(ctx context.Context, object client.Object) error {
	return r.client.Delete(ctx, object, client.Preconditions{UID: ptr.To(object.GetUID())})
}

// probe reports whether the admission webhook turns a pod into the replacement.
func (r *reconciler) probe(ctx context.Context, m *v1alpha1.PodMigration, pod *corev1.Pod) (bool, error) {
	pod = pod.DeepCopy()
	err := r.client.Create(ctx, pod, client.DryRunAll)
	return err == nil && v1alpha1.OwnedBy(pod.Labels, m.UID), err
}

// removeOwner makes a claim outlive a pod.
func (r *reconciler) removeOwner(ctx context.Context, claim *corev1.PersistentVolumeClaim, pod *corev1.Pod) error {
	becomes := claim.DeepCopy()
	becomes.OwnerReferences = slices.DeleteFunc(becomes.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == pod.UID })
	return r.client.Patch(ctx, becomes, client.MergeFromWithOptions(claim, client.MergeFromWithOptimisticLock{}))
}

// addOwner makes a claim go when the pod goes, and not before.
func (r *reconciler) addOwner(ctx context.Context, claim *corev1.PersistentVolumeClaim, pod *corev1.Pod) error {
	becomes := claim.DeepCopy()
	becomes.OwnerReferences = append(becomes.OwnerReferences, metav1.OwnerReference{
		APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID,
	})
	return r.client.Patch(ctx, becomes, client.MergeFromWithOptions(claim, client.MergeFromWithOptimisticLock{}))
}
