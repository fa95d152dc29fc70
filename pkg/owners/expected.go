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
	h := m.Status.Handover
	if h == nil || h.Owner == nil || !NeedsWebhook(h.Method) || m.Status.Phase.IsFinished() ||
		!meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionExpecting) {
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
