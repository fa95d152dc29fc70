package pods

import (
	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Requests are the requests of a pod as kube-scheduler counts them now: for each
// container the larger of what its spec requests and what its node has given it,
// as long as a resize in place is under way (k8s.io/kubernetes/pkg/scheduler/framework,
// PodInfo.CalculateResource). It is what the pod takes from its node.
//
// The feature gate InPlacePodLevelResourcesVerticalScaling, alpha in Kubernetes
// 1.35, counts as off.
func Requests(pod *corev1.Pod) corev1.ResourceList {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{UseStatusResources: true})
}

// SpecRequests are the requests that the spec of a pod adds up to, whatever its node
// has given it: what kube-scheduler counts for a copy of the pod that has not
// started yet, and for the pod itself once a resize in place is done.
func SpecRequests(pod *corev1.Pod) corev1.ResourceList {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
}
