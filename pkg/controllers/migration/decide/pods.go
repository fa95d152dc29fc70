package decide

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// isReady reports whether a replacement does the work of its original: the Ready
// condition says so. But a pod of restart policy Never stops being Ready when one of its
// containers has finished, so containers that are done count as well; and a
// replacement that has already finished everything has taken over.
func isReady(pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodSucceeded {
		return true
	}
	if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
		return false
	}
	if c := pods.Condition(pod, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return true
	}
	for _, gate := range pod.Spec.ReadinessGates {
		if c := pods.Condition(pod, gate.ConditionType); c == nil || c.Status != corev1.ConditionTrue {
			return false
		}
	}
	done := 0
	for _, v := range containers.Judge(pod, containers.Policy{Waiting: v1alpha1.WaitingKeep}).Containers {
		switch {
		case v.Kind == v1alpha1.KindContainer && v.State == v1alpha1.StateCompleted && v.Reason == containers.ReasonCompleted:
			done++
		case v.Kind == v1alpha1.KindContainer && !isContainerReady(pod.Status.ContainerStatuses, v.Name),
			v.Kind == v1alpha1.KindSidecar && !isContainerReady(pod.Status.InitContainerStatuses, v.Name):
			return false
		}
	}
	return done > 0
}

func isContainerReady(statuses []corev1.ContainerStatus, name string) bool {
	return slices.ContainsFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == name && s.Ready })
}

// podFailure says why a pod failed: in its own words, or those of the first
// container that did.
func podFailure(pod *corev1.Pod) string {
	if pod.Status.Reason != "" || pod.Status.Message != "" {
		return strings.TrimSpace(pod.Status.Reason + " " + pod.Status.Message)
	}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if t := s.State.Terminated; t != nil && t.ExitCode != 0 {
			return strings.TrimSpace(fmt.Sprintf("container %s ended with exit code %d %s", s.Name, t.ExitCode, t.Message))
		}
	}
	return "no reason given"
}

// startProgress says what a pod that is not ready yet is waiting for.
func startProgress(pod *corev1.Pod) string {
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		switch {
		case s.State.Waiting != nil && s.State.Waiting.Reason != "" && s.State.Waiting.Reason != "PodInitializing":
			return strings.TrimSuffix(fmt.Sprintf("container %s: %s: %s", s.Name, s.State.Waiting.Reason, s.State.Waiting.Message), ": ")
		case s.State.Terminated != nil && s.State.Terminated.ExitCode != 0:
			return fmt.Sprintf("container %s ended with exit code %d", s.Name, s.State.Terminated.ExitCode)
		}
	}
	return "it is not Ready yet"
}

// startFailures are reasons of the kubelet for not starting a container.
var startFailures = []string{
	"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError",
	"CreateContainerError", "RunContainerError",
}

// startFailure says why a container of a pod cannot be started; "" when none fails.
func startFailure(pod *corev1.Pod) string {
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if s.State.Waiting != nil && slices.Contains(startFailures, s.State.Waiting.Reason) {
			return fmt.Sprintf("container %s: %s: %s", s.Name, s.State.Waiting.Reason, s.State.Waiting.Message)
		}
	}
	return ""
}

// isDisrupted reports whether another than its user ends a pod: an eviction, a
// drain, node pressure or preemption (KEP-3329).
func isDisrupted(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp == nil && pod.Status.Phase != corev1.PodFailed {
		return false
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

// stripSentence says which containers are left out, and which finished ones run
// again, each with the reason.
func stripSentence(v containers.Verdicts) string {
	var left, again []string
	for _, c := range v.Containers {
		entry := fmt.Sprintf("%s (%s)", c.Name, c.Reason)
		switch {
		case !c.ShouldMigrate && c.Kind != v1alpha1.KindEphemeral:
			left = append(left, entry)
		case c.ShouldMigrate && c.Kind == v1alpha1.KindInit && c.State == v1alpha1.StateCompleted:
			again = append(again, entry)
		}
	}
	sentence := "all containers move"
	if len(left) > 0 {
		sentence = "left out: " + strings.Join(left, ", ")
	}
	if len(again) > 0 {
		sentence += "; runs again: " + strings.Join(again, ", ")
	}
	return sentence
}
