package owners

import (
	"fmt"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// statefulSetInFlight lets one pod of a StatefulSet move at a time: while one is
// away or not available, the StatefulSet makes or updates no other.
func statefulSetInFlight(set *appsv1.StatefulSet) string {
	wanted, s := replicas(set.Spec.Replicas), set.Status
	switch {
	case s.ObservedGeneration < set.Generation:
		return fmt.Sprintf("StatefulSet %s has changed, and its controller has not looked at it yet", set.Name)
	case s.UpdatedReplicas < updatedAtRest(set):
		return fmt.Sprintf("a rollout of StatefulSet %s is in flight: %d of %d pods are of the new kind", set.Name, s.UpdatedReplicas, updatedAtRest(set))
	case s.Replicas != wanted:
		return fmt.Sprintf("StatefulSet %s is being scaled: it has %d pods and wants %d", set.Name, s.Replicas, wanted)
	case s.ReadyReplicas < wanted:
		return fmt.Sprintf("only %d of %d pods of StatefulSet %s are Ready: one at a time may be away", s.ReadyReplicas, wanted, set.Name)
	case set.Spec.MinReadySeconds > 0 && s.AvailableReplicas < wanted:
		return fmt.Sprintf("only %d of %d pods of StatefulSet %s have been Ready for minReadySeconds: one at a time may be away", s.AvailableReplicas, wanted, set.Name)
	}
	return ""
}

// updatedAtRest is how many pods are of the update revision when a StatefulSet does
// nothing more by itself (k8s.io/kubernetes/pkg/controller/statefulset at 1.35.4,
// updateStatefulSet).
//
// With OnDelete it updates none, and it does not promote status.currentRevision
// either. With a partition it updates those from the partition on, and the current
// revision stays that of those below. All else ends with both revisions the same
// (completeRollingUpdate); then every pod counts, and none is due.
func updatedAtRest(set *appsv1.StatefulSet) int32 {
	if isOnDelete(set) || set.Status.UpdateRevision == set.Status.CurrentRevision {
		return 0
	}
	return max(0, replicas(set.Spec.Replicas)-partition(set))
}

func isOnDelete(set *appsv1.StatefulSet) bool {
	return set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType
}

// partition is how many of the first pods are not updated; 0 by default.
func partition(set *appsv1.StatefulSet) int32 {
	if r := set.Spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition != nil {
		return *r.Partition
	}
	return 0
}

// refuseRevision refuses a pod of which the next one would be of another revision,
// unless a rollout is about to replace the pod anyway, or the controller has yet to
// look at a change: for that InFlight waits.
func refuseRevision(pod *corev1.Pod, set *appsv1.StatefulSet) *containers.Refusal {
	if set.Status.ObservedGeneration < set.Generation {
		return nil
	}
	own, next := revisionOf(pod, set), nextRevision(set, ordinalOf(pod.Name, set))
	switch {
	case own == next:
		return nil
	case isOnDelete(set):
		return refuse(RefusalOwnerUpdates, "StatefulSet %s has the update strategy OnDelete and pod %s is of an older revision: the move would update it. Delete the pod when it may be updated, and move it then", set.Name, pod.Name)
	case next == set.Status.UpdateRevision:
		return nil
	}
	return refuse(RefusalOwnerUpdates, "pod %s is below partition %d of StatefulSet %s and not of its current revision %s, to which the move would return it. Change the partition or the template first", pod.Name, partition(set), set.Name, next)
}

// nextRevision is the revision of the pod that a StatefulSet makes for an ordinal
// (newVersionedStatefulSetPod): that of before for the first pods, up to the
// partition or, where there is no rollingUpdate, up to as many as are left of it.
func nextRevision(set *appsv1.StatefulSet, ordinal int32) string {
	strategy := set.Spec.UpdateStrategy
	current := start(set) + partition(set)
	if strategy.RollingUpdate == nil && !isOnDelete(set) {
		current = start(set) + set.Status.CurrentReplicas
	}
	if ordinal < current {
		return set.Status.CurrentRevision
	}
	return set.Status.UpdateRevision
}

// revisionOf is the revision of a pod. One without the label is taken for one of the
// update revision where all are; else nobody knows, and it is "".
func revisionOf(pod *corev1.Pod, set *appsv1.StatefulSet) string {
	if revision, has := pod.Labels[appsv1.StatefulSetRevisionLabel]; has {
		return revision
	}
	if s := set.Status; s.UpdatedReplicas == s.Replicas || s.UpdateRevision == s.CurrentRevision && !isOnDelete(set) {
		return set.Status.UpdateRevision
	}
	return ""
}

// start is the ordinal of the first pod (KEP-3335).
func start(set *appsv1.StatefulSet) int32 {
	if set.Spec.Ordinals != nil {
		return set.Spec.Ordinals.Start
	}
	return 0
}

// ordinalOf returns the number at the end of the name of a pod; -1 when the name is
// none of the StatefulSet.
func ordinalOf(name string, set *appsv1.StatefulSet) int32 {
	digits, of := strings.CutPrefix(name, set.Name+"-")
	ordinal, err := strconv.ParseInt(digits, 10, 32)
	if !of || err != nil || ordinal < 0 {
		return -1
	}
	return int32(ordinal)
}
