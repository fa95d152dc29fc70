package owners

import (
	"maps"
	"math"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

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
// would count it at once. Selectors that take the value of this label have it written
// out: the API server does not find it on the pod.
func Unmatched(replacement *corev1.Pod, o Owner) *corev1.Pod {
	kept := replacement.DeepCopy()
	key := adoptionLabel(o.ReplicaSet)
	if value, has := kept.Labels[key]; has {
		containers.ResolveLabelKeys(&kept.Spec, map[string]string{key: value})
	}
	delete(kept.Labels, key)
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

// highestCost makes a ReplicaSet delete every other pod before this one, but those that are
// not Ready: they go first anyway.
var highestCost = strconv.Itoa(math.MaxInt32)

// Offered returns the replacement as its ReplicaSet adopts it, and deletes another pod: the
// original or, where another client has deleted that, the pod that the ReplicaSet has made in
// its place. That one has none of the state, and may have been Ready for longer, by which a
// ReplicaSet prefers it. The mark goes when the ReplicaSet has chosen (WithoutDeletionCost).
func Offered(replacement *corev1.Pod, o Owner) *corev1.Pod {
	offered := Adopted(replacement, o)
	metav1.SetMetaDataAnnotation(&offered.ObjectMeta, corev1.PodDeletionCost, highestCost)
	return offered
}

// HasHighestDeletionCost reports whether a pod is marked as one that was offered.
func HasHighestDeletionCost(pod *corev1.Pod) bool {
	return pod.Annotations[corev1.PodDeletionCost] == highestCost
}

// HasChosen reports whether the ReplicaSet of a replacement that was offered has taken it, and
// has no pod too many any more, or never will: it is gone, or the replacement is not one of
// its pods by now.
func HasChosen(replacement *corev1.Pod, o Owner) bool {
	rs := o.ReplicaSet
	if rs == nil || rs.DeletionTimestamp != nil {
		return true
	}
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil || !selector.Matches(labels.Set(replacement.Labels)) {
		return true
	}
	return metav1.IsControlledBy(replacement, rs) && rs.Status.ObservedGeneration >= rs.Generation && rs.Status.Replicas <= replicas(rs.Spec.Replicas)
}

// WithLowestDeletionCost returns the original marked as the pod that its ReplicaSet deletes first.
func WithLowestDeletionCost(original *corev1.Pod) *corev1.Pod {
	marked := original.DeepCopy()
	if marked.Annotations == nil {
		marked.Annotations = map[string]string{}
	}
	marked.Annotations[corev1.PodDeletionCost] = lowestCost
	return marked
}

// HasLowestDeletionCost reports whether a pod is so marked.
func HasLowestDeletionCost(pod *corev1.Pod) bool {
	return pod.Annotations[corev1.PodDeletionCost] == lowestCost
}

// WithoutDeletionCost returns the pod without that mark. A cost of the user's own is not
// restored: it is not known any more.
func WithoutDeletionCost(original *corev1.Pod) *corev1.Pod {
	kept := original.DeepCopy()
	delete(kept.Annotations, corev1.PodDeletionCost)
	return kept
}
