package pods

import (
	corev1 "k8s.io/api/core/v1"
)

// IsTerminal reports whether a pod has ended for good, well or badly.
func IsTerminal(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// HoldsPlace reports whether a pod takes room on a node: it is bound to one and
// has not ended. A pod that is being deleted takes it until it is gone.
func HoldsPlace(pod *corev1.Pod) bool {
	return pod.Spec.NodeName != "" && !IsTerminal(pod)
}

// Condition returns a copy of the condition of a type, which the caller may change;
// nil when the pod has none.
func Condition(pod *corev1.Pod, conditionType corev1.PodConditionType) *corev1.PodCondition {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == conditionType {
			return &condition
		}
	}
	return nil
}
