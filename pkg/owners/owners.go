package owners

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/containers"
)

// Reasons why the owner of a pod forbids its move.
const (
	RefusalOwner         = "OwnerNotSupported"
	RefusalOwnerGone     = "OwnerGone"
	RefusalOwnerSelector = "OwnerSelectorNotSupported"
)

// Owner is the controller of a pod, and what controls that.
type Owner struct {
	// Reference is nil for a pod without a controller.
	Reference *metav1.OwnerReference
	// ReplicaSet and Deployment are nil where there are none.
	ReplicaSet *appsv1.ReplicaSet
	Deployment *appsv1.Deployment
}

// RefuseKind returns why pods of this kind of controller are not moved; nil when
// they are.
func RefuseKind(pod *corev1.Pod) *containers.Refusal {
	reference := metav1.GetControllerOf(pod)
	if reference == nil || isReplicaSet(reference) {
		return nil
	}
	return &containers.Refusal{Reason: RefusalOwner, Message: fmt.Sprintf(
		"the pod belongs to %s %s, which would replace it by itself: this version moves pods of ReplicaSets, and pods without a controller", reference.Kind, reference.Name)}
}

func isReplicaSet(reference *metav1.OwnerReference) bool {
	return reference.Kind == "ReplicaSet" && reference.APIVersion == appsv1.SchemeGroupVersion.String()
}

// Refuse returns why the owner forbids the move of a pod; nil when it does not.
func Refuse(pod *corev1.Pod, o Owner) *containers.Refusal {
	if r := RefuseKind(pod); r != nil || o.Reference == nil {
		return r
	}
	if o.ReplicaSet == nil || o.ReplicaSet.UID != o.Reference.UID || o.ReplicaSet.DeletionTimestamp != nil {
		return &containers.Refusal{Reason: RefusalOwnerGone, Message: fmt.Sprintf("%s %s, to which the pod belongs, is gone or being deleted", o.Reference.Kind, o.Reference.Name)}
	}
	if adoptionLabel(o.ReplicaSet) == "" {
		return &containers.Refusal{Reason: RefusalOwnerSelector, Message: fmt.Sprintf("ReplicaSet %s selects its pods by no matchLabels: a replacement could not be kept apart until it works", o.ReplicaSet.Name)}
	}
	return nil
}

// InFlight returns why the move has to wait, because the owner is changing its
// pods itself; "" when it is settled.
func InFlight(o Owner) string {
	rs, d := o.ReplicaSet, o.Deployment
	if rs == nil {
		return ""
	}
	wanted := replicas(rs.Spec.Replicas)
	if rs.Status.ObservedGeneration < rs.Generation || rs.Status.Replicas != wanted {
		return fmt.Sprintf("ReplicaSet %s is being scaled: it has %d pods and wants %d", rs.Name, rs.Status.Replicas, wanted)
	}
	if d == nil {
		return ""
	}
	wanted = replicas(d.Spec.Replicas)
	switch {
	case d.DeletionTimestamp != nil:
		return fmt.Sprintf("Deployment %s is being deleted", d.Name)
	case d.Status.ObservedGeneration < d.Generation, d.Status.UpdatedReplicas != d.Status.Replicas:
		return fmt.Sprintf("a rollout of Deployment %s is in flight: %d of %d pods are of the new kind", d.Name, d.Status.UpdatedReplicas, d.Status.Replicas)
	case d.Status.Replicas != wanted:
		return fmt.Sprintf("Deployment %s is being scaled: it has %d pods and wants %d", d.Name, d.Status.Replicas, wanted)
	}
	return ""
}

func replicas(wanted *int32) int32 {
	if wanted == nil {
		return 1 // apps/v1 defaulting
	}
	return *wanted
}

// Method returns how the replacement comes to be.
func Method(o Owner) v1alpha1.ReplacementMethod {
	if o.Reference == nil {
		return v1alpha1.MethodCreate
	}
	return v1alpha1.MethodAdopt
}

// hashLabels tell the ReplicaSets of one rollout apart. Nothing else selects by
// them, so a pod without one is still found by its Service and its budget.
var hashLabels = []string{appsv1.DefaultDeploymentUniqueLabelKey, "rollouts-pod-template-hash"}

// adoptionLabel is the label of the selector that a replacement lacks until it
// works. A ReplicaSet of its own has no hash: any label does, and the
// replacement is not served before it is adopted.
func adoptionLabel(rs *appsv1.ReplicaSet) string {
	if rs.Spec.Selector == nil || len(rs.Spec.Selector.MatchLabels) == 0 {
		return ""
	}
	for _, key := range hashLabels {
		if _, selects := rs.Spec.Selector.MatchLabels[key]; selects {
			return key
		}
	}
	return slices.Sorted(maps.Keys(rs.Spec.Selector.MatchLabels))[0]
}

// Unmatched returns the replacement without the label by which the ReplicaSet
// would count it at once.
func Unmatched(replacement *corev1.Pod, o Owner) *corev1.Pod {
	kept := replacement.DeepCopy()
	delete(kept.Labels, adoptionLabel(o.ReplicaSet))
	return kept
}

// Adopted returns the replacement with that label: the ReplicaSet adopts it.
func Adopted(replacement *corev1.Pod, o Owner) *corev1.Pod {
	adopted := replacement.DeepCopy()
	if adopted.Labels == nil {
		adopted.Labels = map[string]string{}
	}
	key := adoptionLabel(o.ReplicaSet)
	adopted.Labels[key] = o.ReplicaSet.Spec.Selector.MatchLabels[key]
	return adopted
}

// IsAdopted reports whether the replacement matches, so that its ReplicaSet
// counts it or is about to.
func IsAdopted(replacement *corev1.Pod, o Owner) bool {
	key := adoptionLabel(o.ReplicaSet)
	value, has := replacement.Labels[key]
	return has && value == o.ReplicaSet.Spec.Selector.MatchLabels[key]
}

// lowestCost makes a ReplicaSet delete the pod before all others (KEP-2255).
var lowestCost = strconv.Itoa(math.MinInt32)

// GivesWay returns the original marked as the pod that its ReplicaSet deletes first.
func GivesWay(original *corev1.Pod) *corev1.Pod {
	marked := original.DeepCopy()
	if marked.Annotations == nil {
		marked.Annotations = map[string]string{}
	}
	marked.Annotations[corev1.PodDeletionCost] = lowestCost
	return marked
}

// DoesGiveWay reports whether a pod is so marked.
func DoesGiveWay(pod *corev1.Pod) bool { return pod.Annotations[corev1.PodDeletionCost] == lowestCost }

// KeepsPlace returns the pod without that mark. A cost of the user's own is not
// restored: it is not known any more.
func KeepsPlace(original *corev1.Pod) *corev1.Pod {
	kept := original.DeepCopy()
	delete(kept.Annotations, corev1.PodDeletionCost)
	return kept
}
