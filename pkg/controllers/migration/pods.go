package migration

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/reclaimed"
)

// defaultClaimSize is used where the API server did not fill in the default.
var defaultClaimSize = resource.MustParse("1Gi")

// buildClaim returns the checkpoint claim. It has no owner until the original
// is gone: before, the replacement may have to be built anew.
func buildClaim(s *State) *corev1.PersistentVolumeClaim {
	spec, root := s.Migration.Spec.Checkpoint, containers.RootName(s.Pod)
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Migration.Namespace,
			Name:      s.Migration.Status.CheckpointClaim,
			Labels: map[string]string{
				v1alpha1.AppLabel:          v1alpha1.AppLabelValue,
				v1alpha1.ComponentLabel:    v1alpha1.ComponentLabelValue,
				v1alpha1.OriginalPodLabel:  v1alpha1.LabelValue(root),
				v1alpha1.MigrationUIDLabel: string(s.Migration.UID),
			},
			Annotations: map[string]string{v1alpha1.OriginalPodLabel: root},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{spec.ClaimAccessMode()},
			StorageClassName: spec.StorageClassName,
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: claimSize(s)}},
		},
	}
}

// requestsOf counts the requests of a pod as the scheduler does.
func requestsOf(pod *corev1.Pod) corev1.ResourceList {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{UseStatusResources: true})
}

// originalRequests counts what the author of a pod asked for: requests of
// finished containers that were reclaimed in place are among what a move leaves
// behind for good.
func originalRequests(pod *corev1.Pod) corev1.ResourceList {
	original, err := reclaimed.Original(pod)
	if err != nil {
		return requestsOf(pod) // The replacement cannot be built either, which is reported.
	}
	return requestsOf(original)
}

// requestsWithoutOverhead leaves out what the runtime class of the pod adds.
func requestsWithoutOverhead(pod *corev1.Pod) corev1.ResourceList {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{ExcludeOverhead: true})
}

// isWorking reports whether a replacement does the work of its original. Ready
// says so. But a pod of restart policy Never stops being Ready when one of its
// containers has finished, so containers that are done count as well; and a
// replacement that has already finished everything has taken over.
func isWorking(pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodSucceeded {
		return true
	}
	if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
		return false
	}
	if c := podCondition(pod, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return true
	}
	for _, gate := range pod.Spec.ReadinessGates {
		if c := podCondition(pod, gate.ConditionType); c == nil || c.Status != corev1.ConditionTrue {
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

// podCondition returns a copy of a condition of a pod; nil when the pod has none of its type.
func podCondition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for _, c := range pod.Status.Conditions {
		if c.Type == kind {
			return &c
		}
	}
	return nil
}

// podFailure tells why a pod failed: in its own words, or those of the first
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

// startProgress tells what a pod that does not work yet is waiting for.
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

// startFailure tells why a container of a pod cannot be started; "" when none fails.
func startFailure(pod *corev1.Pod) string {
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if s.State.Waiting != nil && slices.Contains(startFailures, s.State.Waiting.Reason) {
			return fmt.Sprintf("container %s: %s: %s", s.Name, s.State.Waiting.Reason, s.State.Waiting.Message)
		}
	}
	return ""
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

// freedRequests lists by how much the requests shrank, CPU and memory first.
func freedRequests(before, after *v1alpha1.ResourceRecord) string {
	if before == nil || after == nil {
		return ""
	}
	names := make([]string, 0, len(before.Requests))
	for name := range before.Requests {
		names = append(names, string(name))
	}
	slices.Sort(names)
	var parts []string
	for _, name := range names {
		freed := before.Requests[corev1.ResourceName(name)].DeepCopy()
		freed.Sub(after.Requests[corev1.ResourceName(name)])
		if freed.Sign() > 0 {
			parts = append(parts, name+" "+freed.String())
		}
	}
	return strings.Join(parts, ", ")
}
