package pods

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// qosResources are the only ones that the quality of service depends on.
var qosResources = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// QOSClass returns the quality of service of a pod: the one in its status, which is
// the one that the API server compares a resize with, or else that of its spec.
func QOSClass(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	return ComputeQOS(&pod.Spec)
}

// ComputeQOS returns the quality of service that the API server gives to a pod of
// this spec (k8s.io/kubernetes/pkg/apis/core/v1/helper/qos, ComputePodQOS, with
// pod-level resources; that package reads feature gates, so a pure package cannot
// import it).
func ComputeQOS(spec *corev1.PodSpec) corev1.PodQOSClass {
	var all []corev1.ResourceRequirements
	if spec.Resources != nil {
		all = append(all, *spec.Resources)
	} else {
		for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
			all = append(all, c.Resources)
		}
	}
	guaranteed, nothing := true, true
	for _, r := range all {
		for _, name := range qosResources {
			request, limit := r.Requests[name], r.Limits[name]
			nothing = nothing && request.Sign() <= 0 && limit.Sign() <= 0
			guaranteed = guaranteed && limit.Sign() > 0 && request.Cmp(limit) == 0
		}
	}
	switch {
	case nothing:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}
