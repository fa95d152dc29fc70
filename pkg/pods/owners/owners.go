package owners

import (
	"cmp"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Owner is the controller of a pod, and what controls that.
type Owner struct {
	// Reference is nil for a pod without a controller.
	Reference *metav1.OwnerReference
	// At most one of ReplicaSet, Job and StatefulSet is there. All are nil for
	// other kinds, and when the owner is gone.
	ReplicaSet  *appsv1.ReplicaSet
	Job         *batchv1.Job
	StatefulSet *appsv1.StatefulSet
	// Deployment is nil where the ReplicaSet has none.
	Deployment *appsv1.Deployment
}

// Kind is how a controller treats its pods.
type Kind string

const (
	// KindNone: nobody makes the pod again.
	KindNone        Kind = "None"
	KindReplicaSet  Kind = "ReplicaSet"
	KindJob         Kind = "Job"
	KindStatefulSet Kind = "StatefulSet"
	// KindDaemonSet: one pod for each node. There is nowhere to move it.
	KindDaemonSet Kind = "DaemonSet"
	// KindOther: nothing is known but what the author of the pod tells.
	KindOther Kind = "Other"
)

// KindOf tells the kind of a controller; a nil reference is KindNone.
func KindOf(reference *metav1.OwnerReference) Kind {
	if reference == nil {
		return KindNone
	}
	switch apps, batch := appsv1.SchemeGroupVersion.String(), batchv1.SchemeGroupVersion.String(); {
	case reference.Kind == "ReplicaSet" && reference.APIVersion == apps:
		return KindReplicaSet
	case reference.Kind == "StatefulSet" && reference.APIVersion == apps:
		return KindStatefulSet
	case reference.Kind == "Job" && reference.APIVersion == batch:
		return KindJob
	case reference.Kind == "DaemonSet":
		// Of any group: those that extend DaemonSets bind pods to nodes as well.
		return KindDaemonSet
	}
	return KindOther
}

// Method returns how the replacement comes to be. Only a ReplicaSet leaves a
// choice: it takes in a pod that works, so a replacement that may start first is
// made beside it.
func Method(o Owner, order v1alpha1.HandoverOrder) v1alpha1.ReplacementMethod {
	switch KindOf(o.Reference) {
	case KindNone:
		return v1alpha1.MethodCreate
	case KindReplicaSet:
		if order == v1alpha1.OrderStopFirst {
			return v1alpha1.MethodRelease
		}
		return v1alpha1.MethodAdopt
	case KindJob:
		return v1alpha1.MethodRelease
	}
	return v1alpha1.MethodRecreate
}

// NeedsWebhook reports whether the owner makes the replacement, so that the
// admission webhook has to turn the owner's pod into it.
func NeedsWebhook(method v1alpha1.ReplacementMethod) bool {
	return method == v1alpha1.MethodRelease || method == v1alpha1.MethodRecreate
}

// Identity returns what the owner's next pod must be to take over from pod: the
// name in a StatefulSet, the completion index in an indexed Job; "" when any pod
// of the owner will do.
func Identity(pod *corev1.Pod, o Owner) string { return identity(pod, o.Reference) }

func identity(pod *corev1.Pod, owner *metav1.OwnerReference) string {
	switch KindOf(owner) {
	case KindStatefulSet:
		return pod.Name
	case KindJob:
		// The Job controller goes by the annotation
		// (k8s.io/kubernetes/pkg/controller/job/indexed_job_utils.go, getCompletionIndex).
		return cmp.Or(pod.Annotations[batchv1.JobCompletionIndexAnnotation], pod.Labels[batchv1.JobCompletionIndexAnnotation])
	}
	return ""
}
