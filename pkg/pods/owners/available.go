package owners

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
)

// MinReady is for how long a pod of the owner has to be Ready before the owner
// counts it as available (minReadySeconds); zero where it does not say.
func MinReady(o Owner) time.Duration {
	var seconds int32
	switch {
	case o.Deployment != nil:
		// A Deployment writes it into its ReplicaSets.
		seconds = o.Deployment.Spec.MinReadySeconds
	case o.ReplicaSet != nil:
		seconds = o.ReplicaSet.Spec.MinReadySeconds
	case o.StatefulSet != nil:
		seconds = o.StatefulSet.Spec.MinReadySeconds
	}
	return time.Duration(seconds) * time.Second
}

// SettlingTime is for how long a replacement has to be Ready before the original may
// end: what its owner wants or, where the owner does not say and no probe tells
// whether the pod works, a moment. A container without a probe is Ready once it has
// started, also when it is about to fail.
func SettlingTime(o Owner, replacement *corev1.Pod, unprobed time.Duration) time.Duration {
	if wanted := MinReady(o); wanted > 0 || isProbed(replacement) {
		return wanted
	}
	return unprobed
}

// isProbed reports whether a probe, or another client, has to say that the pod works
// before it is Ready.
func isProbed(pod *corev1.Pod) bool {
	return len(pod.Spec.ReadinessGates) > 0 || slices.ContainsFunc(slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers), func(c corev1.Container) bool {
		return c.ReadinessProbe != nil || c.StartupProbe != nil
	})
}

// AvailableIn is how long a pod that is Ready still has to stay so to count as
// available after a settling time; zero when it does now. One that is not Ready has
// all of it to go. It follows IsPodAvailable (k8s.io/kubernetes/pkg/api/v1/pod), by which ReplicaSets
// and StatefulSets count; the moment is that of the kubelet's clock, in whole seconds.
func AvailableIn(pod *corev1.Pod, settling time.Duration, now time.Time) time.Duration {
	ready := pods.Condition(pod, corev1.PodReady)
	if ready == nil || ready.Status != corev1.ConditionTrue {
		return settling
	}
	return max(0, min(settling, ready.LastTransitionTime.Add(settling).Sub(now)))
}

// ForeignGates are the scheduling gates of a pod that others have to remove, such as
// a queue that has not admitted the pod (kueue.x-k8s.io/admission). Until then no
// scheduler looks at the pod, and nobody knows when it will be.
func ForeignGates(pod *corev1.Pod) []string {
	var names []string
	for _, gate := range pod.Spec.SchedulingGates {
		if gate.Name != v1alpha1.WaitForOriginalGate {
			names = append(names, gate.Name)
		}
	}
	return names
}
