package owners

import (
	"encoding/json"
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
)

// jobLabels tell the pods of one Job apart from all others. The old ones, without
// a prefix, are still written.
var jobLabels = []string{
	batchv1.ControllerUidLabel, "controller-uid",
	batchv1.JobNameLabel, "job-name",
}

// released is the content of v1alpha1.ReleasedAnnotation.
type released struct {
	Labels map[string]string `json:"labels,omitempty"`
	// Owner was at OwnerIndex of the references, Finalizer at FinalizerIndex.
	Owner          metav1.OwnerReference `json:"owner"`
	OwnerIndex     int                   `json:"ownerIndex,omitempty"`
	Finalizer      string                `json:"finalizer,omitempty"`
	FinalizerIndex int                   `json:"finalizerIndex,omitempty"`
}

// Released returns the original as it is after its owner has released it. It has to
// be written in one patch: then the owner never sees a pod of which it has to
// remove something itself, and makes another pod at once.
//
// A Job (read in k8s.io/kubernetes/pkg/controller/job at 1.35.4) takes only pods
// into account that have its UID as controller or match its selector
// (getPodsForJob, ClaimPods). So the released pod is neither active, nor
// failed when it ends: getValidPodsWithFilter and
// trackJobStatusAndRemoveFinalizers walk over the same list. updatePod wakes the
// Job that was the controller before, and manageJob makes the missing pod after
// SyncJobBatchPeriod (1 s): in an indexed Job that of the same index, since
// InFlight makes sure that no lower index is missing and no back-off runs.
//
// A ReplicaSet that finds a pod of its own without the label drops the reference
// itself (ReleasePod); without both there is nothing to do but to make another.
func Released(original *corev1.Pod, o Owner) (*corev1.Pod, error) {
	if IsReleased(original) {
		return nil, fmt.Errorf("pod %s/%s is released already", original.Namespace, original.Name)
	}
	if o.Reference == nil {
		return nil, fmt.Errorf("pod %s/%s has no controller to release it from", original.Namespace, original.Name)
	}
	index := slices.IndexFunc(original.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == o.Reference.UID })
	if index < 0 {
		return nil, fmt.Errorf("pod %s/%s does not belong to %s %s", original.Namespace, original.Name, o.Reference.Kind, o.Reference.Name)
	}
	keys, err := releaseLabels(o)
	if err != nil {
		return nil, err
	}
	pod := original.DeepCopy()
	record := released{Labels: map[string]string{}, Owner: pod.OwnerReferences[index], OwnerIndex: index}
	for _, key := range keys {
		if value, has := pod.Labels[key]; has {
			record.Labels[key] = value
			delete(pod.Labels, key)
		}
	}
	pod.OwnerReferences = slices.Delete(pod.OwnerReferences, index, index+1)
	if at := slices.Index(pod.Finalizers, batchv1.JobTrackingFinalizer); at >= 0 && KindOf(o.Reference) == KindJob {
		record.Finalizer, record.FinalizerIndex = batchv1.JobTrackingFinalizer, at
		pod.Finalizers = slices.Delete(pod.Finalizers, at, at+1)
	}
	encoded, err := json.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("writing down what pod %s/%s had: %w", original.Namespace, original.Name, err)
	}
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, v1alpha1.ReleasedAnnotation, string(encoded))
	return pod, nil
}

// releaseLabels are the labels without which the owner does not adopt a pod again.
func releaseLabels(o Owner) ([]string, error) {
	switch KindOf(o.Reference) {
	case KindJob:
		return jobLabels, nil
	case KindReplicaSet:
		if o.ReplicaSet == nil {
			return nil, fmt.Errorf("ReplicaSet %s is gone", o.Reference.Name)
		}
		if key := adoptionLabel(o.ReplicaSet); key != "" {
			return []string{key}, nil
		}
		return nil, fmt.Errorf("ReplicaSet %s selects its pods by no matchLabels", o.Reference.Name)
	}
	return nil, fmt.Errorf("a pod of a %s cannot be released", o.Reference.Kind)
}

// IsReleased reports whether the owner of a pod has released it.
func IsReleased(pod *corev1.Pod) bool { return pod.Annotations[v1alpha1.ReleasedAnnotation] != "" }

// recordOf reads what a released pod had.
func recordOf(pod *corev1.Pod) (record released, err error) {
	if !IsReleased(pod) {
		return released{}, fmt.Errorf("pod %s/%s was not released", pod.Namespace, pod.Name)
	}
	if err := json.Unmarshal([]byte(pod.Annotations[v1alpha1.ReleasedAnnotation]), &record); err != nil {
		return released{}, fmt.Errorf("reading what pod %s/%s had: %w", pod.Namespace, pod.Name, err)
	}
	if record.Owner.UID == "" {
		return released{}, fmt.Errorf("annotation %s of pod %s/%s names no owner", v1alpha1.ReleasedAnnotation, pod.Namespace, pod.Name)
	}
	return record, nil
}

// Returned returns a released original with the labels by which its owner adopts it again
// (PodControllerRefManager, ClaimPods). The owner looks at itself before: one that is being
// deleted takes none. Who wrote the reference for it could write one to an owner that is gone
// by then, and the garbage collector would delete the pod although the owner has left its pods
// behind. A Job adds its finalizer as it takes the pod (AdoptPod); without an owner the pod
// would lose it (syncOrphanPod).
func Returned(pod *corev1.Pod) (*corev1.Pod, error) {
	record, err := recordOf(pod)
	if err != nil {
		return nil, err
	}
	returned := pod.DeepCopy()
	for key, value := range record.Labels {
		metav1.SetMetaDataLabel(&returned.ObjectMeta, key, value)
	}
	return returned, nil
}

// IsReturned reports whether a released original has those labels.
func IsReturned(pod *corev1.Pod) bool {
	record, err := recordOf(pod)
	if err != nil {
		return false
	}
	for key, value := range record.Labels {
		if has, set := pod.Labels[key]; !set || has != value {
			return false
		}
	}
	return true
}

// IsAdoptedAgain reports whether the owner of a released original controls it again.
func IsAdoptedAgain(pod *corev1.Pod) bool {
	record, err := recordOf(pod)
	controller := metav1.GetControllerOf(pod)
	return err == nil && controller != nil && controller.UID == record.Owner.UID
}

// Restored returns a released original with everything that it had before. Its
// owner then has one pod too many and deletes one, so the order matters.
//
// A ReplicaSet deletes a pod without a node first, then one that does not run,
// then one that is not Ready (k8s.io/kubernetes/pkg/controller,
// ActivePodsWithRanks): as long as the replacement waits for the original, or for
// its gate, it is the replacement. Restore first.
//
// A Job orders the pods of one index alike (activePodsForRemoval, ActivePods), and
// deleteJobPods takes the tracking finalizer from the pod before it deletes it, so
// nothing is counted. To delete a replacement that still has the finalizer
// counts as a failure (isPodFailed): with backoffLimit 0 it fails the Job. And
// once the replacement runs, the Job may choose the original. So before Restored
// is written, every pod of the Job that IsRival must be written as Discarded,
// and then be deleted; the rest the Job deletes.
func Restored(pod *corev1.Pod) (*corev1.Pod, error) {
	record, err := recordOf(pod)
	if err != nil {
		return nil, err
	}
	back, err := Returned(pod)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(back.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == record.Owner.UID }) {
		back.OwnerReferences = insert(back.OwnerReferences, record.OwnerIndex, record.Owner)
	}
	// The API server takes no new finalizer for a pod that is being deleted.
	if record.Finalizer != "" && back.DeletionTimestamp == nil && !slices.Contains(back.Finalizers, record.Finalizer) {
		back.Finalizers = insert(back.Finalizers, record.FinalizerIndex, record.Finalizer)
	}
	delete(back.Annotations, v1alpha1.ReleasedAnnotation)
	return back, nil
}

func insert[T any](list []T, index int, element T) []T {
	return slices.Insert(list, max(0, min(index, len(list))), element)
}

// IsRival reports whether a Job could prefer a pod to the original that is about
// to be restored: it is the replacement, or another pod of the same index, and
// may run by the time that the Job looks. Pods of a Job without indexes are not
// distinguished: of them the replacement is one, and every pod that was created since the
// original was about to be released and is nobody's replacement. That moment is one of the
// API server's clock, as creationTimestamps are; nil when the original was not to be released.
func IsRival(pod, original *corev1.Pod, migration types.UID, since *metav1.Time) bool {
	record, err := recordOf(original)
	if err != nil || KindOf(&record.Owner) != KindJob {
		return false
	}
	if controller := metav1.GetControllerOf(pod); controller == nil || controller.UID != record.Owner.UID || pod.UID == original.UID {
		return false
	}
	if pod.DeletionTimestamp != nil || !pods.HoldsPlace(pod) {
		return false
	}
	if v1alpha1.OwnedBy(pod.Labels, migration) {
		return true
	}
	if index := identity(original, &record.Owner); index != "" {
		return identity(pod, &record.Owner) == index
	}
	return since != nil && pod.Labels[v1alpha1.MigrationUIDLabel] == "" && !pod.CreationTimestamp.Before(since)
}

// Discarded returns a pod of a Job without the finalizer by which the Job would
// count its end. It may then be deleted, as the Job itself deletes a pod that is
// one too many (deleteJobPods).
func Discarded(pod *corev1.Pod) *corev1.Pod {
	kept := pod.DeepCopy()
	kept.Finalizers = slices.DeleteFunc(kept.Finalizers, func(f string) bool { return f == batchv1.JobTrackingFinalizer })
	return kept
}

// Tracked is a pod that its Job counts when it has ended: the opposite of Discarded.
func Tracked(pod *corev1.Pod) *corev1.Pod {
	tracked := pod.DeepCopy()
	if !IsTracked(pod) {
		tracked.Finalizers = append(tracked.Finalizers, batchv1.JobTrackingFinalizer)
	}
	return tracked
}

// IsTracked reports whether a Job counts a pod when it has ended.
func IsTracked(pod *corev1.Pod) bool {
	return slices.Contains(pod.Finalizers, batchv1.JobTrackingFinalizer)
}
