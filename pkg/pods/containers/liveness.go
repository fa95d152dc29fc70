package containers

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// Defaults of the API for probes (k8s.io/kubernetes/pkg/apis/core/v1).
	defaultProbePeriod  = 10
	defaultProbeTimeout = 1
	defaultProbeFailure = 3
	// longestBound is longer than any migration may take.
	longestBound = 365 * 24 * time.Hour
)

// FreezeBound returns how long a pod may stand frozen before the kubelet ends one of
// its containers for a liveness probe, and the name of the container whose probe comes
// first. The name is empty where no probe bounds it. A bound of 0 means that the pod
// must not be frozen at all.
//
// The kubelet ends a container for its liveness probe under every restart policy, of a
// sidecar as of any other, and finishes what it has begun when the pod is thawed
// meanwhile. Init containers that run to their end have no probes, and
// containers that do not run are not probed. A pod that is being deleted is not probed
// either.
//
// It assumes that the probe last succeeded. A container whose startup probe has not
// succeeded yet may have any number of failures behind it, so its bound is 0.
func FreezeBound(pod *corev1.Pod) (bound time.Duration, container string) {
	if pod.DeletionTimestamp != nil {
		return 0, ""
	}
	statuses := slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		status := corev1.ContainerStatus{}
		if i := slices.IndexFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == c.Name }); i >= 0 {
			status = statuses[i]
			if status.State.Running == nil {
				continue
			}
		}
		limit := time.Duration(0)
		switch hasStarted := status.Started != nil && *status.Started; {
		case c.StartupProbe != nil && !hasStarted:
		case c.LivenessProbe != nil:
			limit = toleratedBy(c.LivenessProbe)
		default:
			continue
		}
		if container == "" || limit < bound {
			bound, container = limit, c.Name
		}
	}
	return bound, container
}

// toleratedBy is how long a probe that succeeded last can fail before its threshold is
// reached, whatever the moment at which the failing begins.
//
// The kubelet probes once in a period, one probe after the other, and a probe of a
// frozen process fails when its timeout is over: the kernel still accepts connections, and
// what is executed in the container does not run. The first to fail may have been under way
// when the pod was frozen, so nothing can be said of its time. Each that follows begins a
// period later, or when the one before has timed out if that takes longer
// (k8s.io/kubernetes/pkg/kubelet/prober, doProbe). A probe by exec may hang beyond its
// timeout, or be thrown away as an error, while a container is frozen: both only put the
// threshold off.
func toleratedBy(p *corev1.Probe) time.Duration {
	period := max(orDefault(p.PeriodSeconds, defaultProbePeriod), orDefault(p.TimeoutSeconds, defaultProbeTimeout))
	failures := orDefault(p.FailureThreshold, defaultProbeFailure)
	// Both are numbers of 32 bits that a user writes: their product may have 93 as nanoseconds.
	return time.Duration(min(int64(longestBound/time.Second), int64(failures-1)*int64(period))) * time.Second
}

func orDefault(value, otherwise int32) int32 {
	if value <= 0 {
		return otherwise
	}
	return value
}
