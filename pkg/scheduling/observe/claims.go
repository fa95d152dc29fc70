package observe

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// claimUsers are the pods that use each claim.
type claimUsers map[claimKey][]*corev1.Pod

type claimKey struct{ namespace, name string }

func claimUsersOf(all []*corev1.Pod) claimUsers {
	users := claimUsers{}
	for _, pod := range all {
		for _, key := range claimKeys(pod) {
			users[key] = append(users[key], pod)
		}
	}
	return users
}

func claimKeys(pod *corev1.Pod) (keys []claimKey) {
	for i := range pod.Spec.Volumes {
		if source := pod.Spec.Volumes[i].PersistentVolumeClaim; source != nil {
			keys = append(keys, claimKey{pod.Namespace, source.ClaimName})
		}
	}
	return keys
}

// refusal says which other pod keeps a pod on its node by a claim that both use.
func (u claimUsers) refusal(pod *corev1.Pod, claims func(namespace string) containers.ClaimLookup) *containers.Refusal {
	var others []corev1.Pod
	for _, key := range claimKeys(pod) {
		if using := u[key]; len(using) > 1 {
			for _, other := range using {
				others = append(others, *other)
			}
		}
	}
	if len(others) == 0 {
		return nil
	}
	return containers.SharedClaim(pod, others, claims(pod.Namespace))
}
