package owners

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Expected reports whether a pod that an owner creates is the one that a
// migration expects, and makes its replacement. The pod may have no name yet. A
// probe, which cannot have the name of a pod that is there, counts too.
func Expected(m *v1alpha1.PodMigration, pod *corev1.Pod) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionReplacementPending) && isNext(m, pod)
}

// MustWait reports whether a pod may not start yet that an owner has created, and
// that is no replacement. It should have become one; or a migration is being put
// back that took the original from its owner, which would rather keep a pod that
// runs already than the original (see Restored).
func MustWait(m *v1alpha1.PodMigration, pod *corev1.Pod) bool {
	conditions := m.Status.Conditions
	tookOriginal := meta.FindStatusCondition(conditions, v1alpha1.ConditionReplacementPending) != nil
	return Expected(m, pod) || tookOriginal && meta.IsStatusConditionFalse(conditions, v1alpha1.ConditionRolledBack) && isNext(m, pod)
}

// isNext reports whether a pod is the next one of the owner whose pod is moved.
func isNext(m *v1alpha1.PodMigration, pod *corev1.Pod) bool {
	h := m.Status.Handover
	if h == nil || h.Owner == nil || !NeedsWebhook(h.Method) || m.Status.Phase.IsFinished() {
		return false
	}
	controller := metav1.GetControllerOf(pod)
	return controller != nil && controller.UID == h.Owner.UID &&
		(h.Identity == "" || identity(pod, h.Owner) == h.Identity || isProbe(m, pod)) &&
		pod.Labels[v1alpha1.MigrationUIDLabel] == ""
}

func isProbe(m *v1alpha1.PodMigration, pod *corev1.Pod) bool {
	return m.UID != "" && pod.Annotations[v1alpha1.ProbeAnnotation] == string(m.UID)
}
