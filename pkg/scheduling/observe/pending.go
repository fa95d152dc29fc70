package observe

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// maxPendingShapes bounds what a plan looks at for the sake of pods that wait.
const maxPendingShapes = 10

// PendingShapes are the requests of pods that a scheduler has found no room for,
// the pods that wait longest first, each shape once.
func PendingShapes(all []*corev1.Pod, schedulerName string) []cluster.Resources {
	waiting := make([]*corev1.Pod, 0, maxPendingShapes)
	for _, pod := range all {
		if pod.Spec.SchedulerName == schedulerName && isUnschedulable(pod) {
			waiting = append(waiting, pod)
		}
	}
	slices.SortFunc(waiting, func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	var shapes []cluster.Resources
	for _, pod := range waiting {
		shape := cluster.ResourcesOf(pods.Requests(pod))
		if len(shapes) < maxPendingShapes && !slices.ContainsFunc(shapes, shape.Equal) {
			shapes = append(shapes, shape)
		}
	}
	return shapes
}

func isUnschedulable(pod *corev1.Pod) bool {
	if pod.Spec.NodeName != "" || pod.DeletionTimestamp != nil {
		return false
	}
	scheduled := pods.Condition(pod, corev1.PodScheduled)
	return scheduled != nil && scheduled.Status == corev1.ConditionFalse && scheduled.Reason == corev1.PodReasonUnschedulable
}
