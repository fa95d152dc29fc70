package containers

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// RefuseClaims returns the first persistent volume of a kept container that the
// replacement could not use at all. Where the nodes of the cluster are known it also finds
// volumes that only the source node reaches by a label of a storage driver.
func RefuseClaims(pod *corev1.Pod, v Verdicts, claims ClaimLookup, nodes []*corev1.Node) *Refusal {
	for name, volume := range claimsOf(pod, v) {
		claim, pv := claims(name)
		if claim == nil {
			return &Refusal{RefusalClaimNotFound, fmt.Sprintf("the pod uses claim %s, which does not exist", name)}
		}
		if r := localVolume(pod, volume.Name, claim, pv, nodes); r != nil {
			return r
		}
	}
	return nil
}

// Exclusive returns why original and replacement cannot both use the persistent
// volumes of the kept containers, on two nodes, for a moment; "" when they can.
func Exclusive(pod *corev1.Pod, v Verdicts, claims ClaimLookup) string {
	for name, volume := range claimsOf(pod, v) {
		claim, _ := claims(name)
		if claim == nil {
			continue
		}
		modes := AccessModes(claim)
		if !slices.Contains(modes, corev1.ReadWriteMany) && (!isOnlyRead(pod, v, volume) || !slices.Contains(modes, corev1.ReadOnlyMany)) {
			return fmt.Sprintf("claim %s is %v: two nodes cannot use it at once, only ReadWriteMany claims, and ReadOnlyMany ones that are only read", name, modes)
		}
	}
	return ""
}

// AccessModes are those that the volume of a claim has; before it has one, those
// that were requested.
func AccessModes(claim *corev1.PersistentVolumeClaim) []corev1.PersistentVolumeAccessMode {
	if len(claim.Status.AccessModes) > 0 {
		return claim.Status.AccessModes
	}
	return claim.Spec.AccessModes
}

// claimsOf yields the claims that kept containers use, with their volumes in the
// pod, but for an earlier checkpoint that may be lost.
func claimsOf(pod *corev1.Pod, v Verdicts) func(yield func(string, *corev1.Volume) bool) {
	previous, mayGo := PreviousCheckpoint(pod), discardable(pod)[v1alpha1.CheckpointVolumeName]
	return func(yield func(string, *corev1.Volume) bool) {
		for i := range pod.Spec.Volumes {
			volume := &pod.Spec.Volumes[i]
			if volume.PersistentVolumeClaim == nil || userOf(pod, v, volume.Name) == "" {
				continue
			}
			name := volume.PersistentVolumeClaim.ClaimName
			if mayGo && name == previous && volume.Name == v1alpha1.CheckpointVolumeName {
				continue
			}
			if !yield(name, volume) {
				return
			}
		}
	}
}
