package checkpointvolume

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/storage/ephemeral"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// isConcerned reports whether the plugin has anything to do with a pod: one that
// a migration made, or one that brings a checkpoint claim.
func isConcerned(pod *corev1.Pod) bool {
	_, hasClaim := checkpointClaim(pod)
	return hasClaim || isMadeByMigration(pod)
}

// isMadeByMigration tells a replacement and a placeholder from others.
func isMadeByMigration(pod *corev1.Pod) bool {
	return pod.Labels[v1alpha1.MigrationUIDLabel] != "" || sourceNode(pod) != ""
}

func isPlaceholder(pod *corev1.Pod) bool {
	return pod.Labels[v1alpha1.MigrationUIDLabel] != "" && pod.Labels[v1alpha1.RoleLabel] == v1alpha1.RolePlaceholder
}

// sourceNode is the node that a replacement must not use.
func sourceNode(pod *corev1.Pod) string { return pod.Annotations[v1alpha1.SourceNodeAnnotation] }

// checkpointClaim finds the checkpoint claim of a pod.
func checkpointClaim(pod *corev1.Pod) (types.NamespacedName, bool) {
	if name := pod.Annotations[v1alpha1.CheckpointClaimAnnotation]; name != "" {
		return types.NamespacedName{Namespace: pod.Namespace, Name: name}, true
	}
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		if volume.Name == v1alpha1.CheckpointVolumeName && volume.PersistentVolumeClaim != nil {
			return types.NamespacedName{Namespace: pod.Namespace, Name: volume.PersistentVolumeClaim.ClaimName}, true
		}
	}
	return types.NamespacedName{}, false
}

// claimsOf lists the claims that the plugin brings to the node of a pod, each
// once: all that a pod of ours mounts, and none of any other pod.
func claimsOf(pod *corev1.Pod) []types.NamespacedName {
	if !isConcerned(pod) {
		return nil
	}
	var claims []types.NamespacedName
	add := func(name string) {
		key := types.NamespacedName{Namespace: pod.Namespace, Name: name}
		if !slices.Contains(claims, key) {
			claims = append(claims, key)
		}
	}
	if checkpoint, ok := checkpointClaim(pod); ok {
		add(checkpoint.Name)
	}
	for i := range pod.Spec.Volumes {
		if name := claimName(pod, &pod.Spec.Volumes[i]); name != "" {
			add(name)
		}
	}
	return claims
}

// claimName is the claim behind a volume of a pod; empty when there is none.
func claimName(pod *corev1.Pod, volume *corev1.Volume) string {
	switch {
	case volume.PersistentVolumeClaim != nil:
		return volume.PersistentVolumeClaim.ClaimName
	case volume.Ephemeral != nil:
		return ephemeral.VolumeClaimName(pod, volume)
	}
	return ""
}

// usesClaim reports whether the pod mounts the claim.
func usesClaim(pod *corev1.Pod, claim types.NamespacedName) bool {
	if pod.Namespace != claim.Namespace {
		return false
	}
	for i := range pod.Spec.Volumes {
		if claimName(pod, &pod.Spec.Volumes[i]) == claim.Name {
			return true
		}
	}
	return false
}

// isShared reports whether several nodes may use a claim at once.
func isShared(claim *corev1.PersistentVolumeClaim) bool {
	return slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteMany) ||
		slices.Contains(claim.Spec.AccessModes, corev1.ReadOnlyMany)
}
