package owners

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

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
)

// RefuseKind returns why pods of this kind of controller are not moved; nil when
// they are.
func RefuseKind(pod *corev1.Pod) *containers.Refusal {
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return refuse(RefusalOwner, "the pod is static: its node's kubelet runs it from a file")
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
	switch KindOf(o.Reference) {
	case KindReplicaSet:
		if o.ReplicaSet == nil || isGone(o, o.ReplicaSet) {
			return gone(o)
		}
		return refuseReplicaSet(o.ReplicaSet)
	case KindJob:
		if o.Job == nil || isGone(o, o.Job) {
			return gone(o)
		}
		return refuseJob(pod, o.Job)
	case KindStatefulSet:
		if o.StatefulSet == nil || isGone(o, o.StatefulSet) {
			return gone(o)
		}
	}
	return nil
}

func isGone(o Owner, found interface {
	GetUID() types.UID
	GetDeletionTimestamp() *metav1.Time
}) bool {
	return found.GetUID() != o.Reference.UID || found.GetDeletionTimestamp() != nil
}

func gone(o Owner) *containers.Refusal {
	return refuse(RefusalOwnerGone, "%s %s, to which the pod belongs, is gone or being deleted", o.Reference.Kind, o.Reference.Name)
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
	case job.Spec.Suspend != nil && *job.Spec.Suspend:
		return refuse(RefusalOwnerStopped, "Job %s is suspended: it deletes its pods itself", job.Name)
	case isEnding(job):
		return refuse(RefusalOwnerFinished, "Job %s has finished, or is about to: it makes no more pods", job.Name)
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

func isEnding(job *batchv1.Job) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
		switch c.Type {
		case batchv1.JobComplete, batchv1.JobFailed, batchv1.JobSuccessCriteriaMet, batchv1.JobFailureTarget:
			return c.Status == corev1.ConditionTrue
		}
		return false
	})
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
