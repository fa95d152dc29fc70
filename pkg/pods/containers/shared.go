package containers

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
)

// RefusalClaimShared: another pod uses a claim that one node alone can use.
const RefusalClaimShared = "ClaimInUse"

// SharedClaim returns why a pod cannot move because of the others that use its
// claims; nil when it can. Such claims hold the pods that use them on one node: moved
// to another, the replacement would wait for a volume that stays where it is.
//
// Others are pods of any namespace and state; the pod itself, pods that have
// finished, pods without a node, and what a migration has made of the pod, do not
// count. A pod on another node does: the volume is there, or goes there next.
func SharedClaim(pod *corev1.Pod, others []corev1.Pod, claims ClaimLookup) *Refusal {
	// Of the containers that have never started, the request decides: none is left out.
	v := Judge(pod, Policy{Waiting: v1alpha1.WaitingKeep})
	for name, volume := range claimsOf(pod, v) {
		claim, _ := claims(name)
		if claim == nil {
			continue
		}
		modes := AccessModes(claim)
		if slices.Contains(modes, corev1.ReadWriteMany) {
			continue
		}
		mayShare := slices.Contains(modes, corev1.ReadOnlyMany) && isOnlyRead(pod, v, volume)
		for i := range others {
			other := &others[i]
			shared := volumeOfClaim(other, name)
			if shared == nil || !isAnother(other, pod) {
				continue
			}
			if mayShare && isOnlyRead(other, Judge(other, Policy{Waiting: v1alpha1.WaitingKeep}), shared) {
				continue
			}
			return &Refusal{RefusalClaimShared, fmt.Sprintf(
				"claim %s is %v, and pod %s on node %s uses it too: the replacement, on another node, could not start as long as that pod is there. End pod %s first, or use a claim that is ReadWriteMany",
				name, modes, other.Name, other.Spec.NodeName, other.Name)}
		}
	}
	return nil
}

// isAnother reports whether other, of which the name is not that of pod, has a place
// on a node and is not of a migration of pod.
func isAnother(other, pod *corev1.Pod) bool {
	return other.Namespace == pod.Namespace && other.Name != pod.Name && pods.HoldsPlace(other) &&
		other.Labels[v1alpha1.RoleLabel] == "" && other.Annotations[v1alpha1.OriginalUIDAnnotation] != string(pod.UID)
}

// UsesClaim reports whether a pod has a claim among its volumes.
func UsesClaim(pod *corev1.Pod, claim string) bool { return volumeOfClaim(pod, claim) != nil }

// volumeOfClaim is the volume by which a pod uses a claim; nil when it does not. A
// kubelet mounts it for the pod, whether or not a container does.
func volumeOfClaim(pod *corev1.Pod, claim string) *corev1.Volume {
	for i := range pod.Spec.Volumes {
		if volume := &pod.Spec.Volumes[i]; isClaim(*volume, claim) {
			return volume
		}
	}
	return nil
}
