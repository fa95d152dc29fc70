package nodeview

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// remainder is what a finished container that was shrunk in place still
// requests (package reclaim): it does not count as reclaimable.
var remainder = corev1.ResourceList{
	corev1.ResourceCPU:    resource.MustParse("1m"),
	corev1.ResourceMemory: resource.MustParse("1Mi"),
}

// reclaimable is how much less the scheduler would count for a pod without what
// its finished containers request. CPU and memory of containers come free by a
// resize in place; devices, and what init containers request, when the pod moves.
func reclaimable(pod *corev1.Pod, requested cluster.Resources) cluster.Resources {
	finished, inits := containers.Finished(pod)
	maps.Copy(finished, inits)
	if len(finished) == 0 || pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
		return cluster.Resources{}
	}
	without := withoutFinished(pod, finished)
	if without == nil {
		return cluster.Resources{}
	}
	return requested.Sub(cluster.ResourcesOf(pods.Requests(without)))
}

// withoutFinished is the pod with next to nothing requested by its finished
// containers; nil when all have finished: such a pod is over in a moment.
func withoutFinished(pod *corev1.Pod, finished map[string]bool) *corev1.Pod {
	without := pod.DeepCopy()
	remain := 0
	for i := range without.Spec.Containers {
		c := &without.Spec.Containers[i]
		if !finished[c.Name] {
			remain++
			continue
		}
		c.Resources.Requests = leastOf(c.Resources.Requests)
		forgetResized(without.Status.ContainerStatuses, c.Name)
	}
	if remain == 0 {
		return nil
	}
	for i := range without.Spec.InitContainers {
		c := &without.Spec.InitContainers[i]
		if finished[c.Name] {
			c.Resources.Requests = nil
			forgetResized(without.Status.InitContainerStatuses, c.Name)
		}
	}
	without.Spec.Resources = containers.PodLevelShare(&pod.Spec, &without.Spec)
	without.Status.Resources, without.Status.AllocatedResources = nil, nil
	return without
}

func leastOf(requests corev1.ResourceList) corev1.ResourceList {
	least := corev1.ResourceList{}
	for name, amount := range requests {
		if limit, known := remainder[name]; known {
			if amount.Cmp(limit) > 0 {
				amount = limit
			}
			least[name] = amount
		}
	}
	return least
}

// forgetResized drops what the kubelet reports of a container: the scheduler
// counts the larger of that and the spec while a resize is under way.
func forgetResized(statuses []corev1.ContainerStatus, name string) {
	for i := range statuses {
		if statuses[i].Name == name {
			statuses[i].Resources, statuses[i].AllocatedResources = nil, nil
		}
	}
}
