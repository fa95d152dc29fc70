package owners

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// Reasons why the owner of a pod forbids its move.
const (
	RefusalOwner         = "OwnerNotSupported"
	RefusalOwnerGone     = "OwnerGone"
	RefusalOwnerSelector = "OwnerSelectorNotSupported"
	RefusalOwnerFinished = "OwnerFinished"
	RefusalOwnerStopped  = "OwnerSuspended"
	// RefusalOwnerCounts: the owner would count the move, or no longer count the pod.
	RefusalOwnerCounts = "OwnerCountsPods"
	// RefusalOwnerScaled: the owner wants fewer pods, and this one is not among them.
	RefusalOwnerScaled = "OwnerScaledDown"
	// RefusalOwnerUpdates: the owner's next pod would be of another revision.
	RefusalOwnerUpdates = "OwnerUpdatesPods"
	// RefusalGroup: a controller counts the pods of a group, and deletes one too many.
	RefusalGroup = "PodGroupCounted"
)

// RefuseKind returns why pods of this kind of controller are not moved; nil when
// they are.
func RefuseKind(pod *corev1.Pod) *containers.Refusal {
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return refuse(RefusalOwner, "the pod is static: its node's kubelet runs it from a file")
	}
	if group := kueueGroupOf(pod); group != "" {
		return refuse(RefusalGroup, "the pod is one of Kueue's pod group %s (%s): a replacement would be one pod more than the group has, and Kueue deletes what is too much. "+
			"Delete the group and create it again, or have Kueue admit the workload as a whole: a Job, JobSet or other kind that it knows, with the label kueue.x-k8s.io/queue-name", group, kueueGroup)
	}
	switch reference := metav1.GetControllerOf(pod); KindOf(reference) {
	case KindDaemonSet:
		return refuse(RefusalOwner, "the pod belongs to DaemonSet %s, which wants it on this node", reference.Name)
	case KindOther:
		if pod.Annotations[v1alpha1.RecreateAnnotation] != "true" {
			return refuse(RefusalOwner, "the pod belongs to %s %s, of which it is not known that it makes another pod when this one is gone: if it does, annotate the pod with %s: \"true\"",
				reference.Kind, reference.Name, v1alpha1.RecreateAnnotation)
		}
	}
	return nil
}

func refuse(reason, message string, arguments ...any) *containers.Refusal {
	return &containers.Refusal{Reason: reason, Message: fmt.Sprintf(message, arguments...)}
}

// Refuse returns why the owner forbids the move of a pod; nil when it does not.
func Refuse(pod *corev1.Pod, o Owner) *containers.Refusal {
	if r := RefuseKind(pod); r != nil || o.Reference == nil {
		return r
	}
	if r := ended(o, Identity(pod, o)); r != nil {
		return r
	}
	switch KindOf(o.Reference) {
	case KindReplicaSet:
		return refuseReplicaSet(o.ReplicaSet)
	case KindJob:
		return refuseJob(pod, o.Job)
	case KindStatefulSet:
		return refuseRevision(pod, o.StatefulSet)
	}
	return nil
}

func refuseReplicaSet(rs *appsv1.ReplicaSet) *containers.Refusal {
	if adoptionLabel(rs) == "" {
		return refuse(RefusalOwnerSelector, "ReplicaSet %s selects its pods by no matchLabels: original and replacement could not be distinguished", rs.Name)
	}
	return nil
}

// refuseJob refuses where a released pod would not be replaced at once, or where
// the release could not be undone without the Job counting a failure.
func refuseJob(pod *corev1.Pod, job *batchv1.Job) *containers.Refusal {
	switch {
	case isSuspended(job):
		return refuse(RefusalOwnerStopped, "%s", suspended(job))
	case job.Spec.ManagedBy != nil && *job.Spec.ManagedBy != batchv1.JobControllerName:
		return refuse(RefusalOwner, "Job %s is managed by %s, not by Kubernetes' own controller", job.Name, *job.Spec.ManagedBy)
	case !slices.Contains(pod.Finalizers, batchv1.JobTrackingFinalizer):
		return refuse(RefusalOwnerCounts, "the pod lacks the finalizer %s: Job %s has counted it, or does not track it", batchv1.JobTrackingFinalizer, job.Name)
	case !selectsByUID(job):
		// The released pod would match, and be adopted again.
		return refuse(RefusalOwnerSelector, "Job %s has a selector of its own (manualSelector): it would take a released pod back", job.Name)
	case job.Spec.Completions == nil && job.Status.Succeeded > 0:
		// manageJob: wantActive is then what is active.
		return refuse(RefusalOwnerFinished, "Job %s has no number of completions and one pod has succeeded: it makes no more pods", job.Name)
	case failedBefore(pod):
		// A new pod starts at 0 when no failed pod of its index is left
		// (indexed_job_utils.go, getNewIndexFailureCounts).
		return refuse(RefusalOwnerCounts, "index %s of Job %s has failed before, which its next pod would not know", pod.Annotations[batchv1.JobCompletionIndexAnnotation], job.Name)
	}
	return nil
}

func selectsByUID(job *batchv1.Job) bool {
	return job.Spec.Selector != nil && slices.ContainsFunc(jobLabels, func(key string) bool {
		_, selects := job.Spec.Selector.MatchLabels[key]
		return selects
	})
}

func failedBefore(pod *corev1.Pod) bool {
	return slices.ContainsFunc([]string{batchv1.JobIndexFailureCountAnnotation, batchv1.JobIndexIgnoredFailureCountAnnotation}, func(key string) bool {
		count := pod.Annotations[key]
		return count != "" && count != "0"
	})
}
