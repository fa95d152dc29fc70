package simulate

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

const statefulSetActor = "statefulset"

// syncStatefulSets creates, deletes and updates pods, one at a time and in order
// (k8s.io/kubernetes/pkg/controller/statefulset at 1.35.4, updateStatefulSet with
// podManagementPolicy OrderedReady).
func (w *world) syncStatefulSets() {
	each(w.store, statefulSets, func(set *appsv1.StatefulSet) {
		w.as(statefulSetActor, func() {
			w.syncStatefulSet(set)
			if now := lookup[*appsv1.StatefulSet](w.store, statefulSets, set.Namespace, set.Name); now != nil {
				w.countStatefulSet(now)
			}
		})
	})
}

func ordinalName(set *appsv1.StatefulSet, ordinal int) string {
	return fmt.Sprintf("%s-%d", set.Name, ordinal)
}

// podsOfSet returns the pods by their ordinals, nil where there is none, and those
// beyond.
func (w *world) podsOfSet(set *appsv1.StatefulSet) (replicas, condemned []*corev1.Pod) {
	owned := w.claimPods(set, set.Spec.Selector, "apps/v1", func(*corev1.Pod) bool { return true })
	wanted := int(*set.Spec.Replicas)
	replicas = make([]*corev1.Pod, wanted)
	for _, p := range owned {
		ordinal := -1
		if _, err := fmt.Sscanf(p.Name, set.Name+"-%d", &ordinal); err != nil || ordinalName(set, ordinal) != p.Name {
			continue
		}
		if ordinal < wanted {
			replicas[ordinal] = p
		} else {
			condemned = append(condemned, p)
		}
	}
	return replicas, condemned
}

func (w *world) syncStatefulSet(set *appsv1.StatefulSet) {
	replicas, condemned := w.podsOfSet(set)
	if set.DeletionTimestamp != nil || !w.owned.mayAct(set.UID, w.now) {
		return
	}
	for ordinal, p := range replicas {
		switch {
		case p == nil:
			w.send(statefulSetActor, w.owned, set.UID, w.podOfSet(set, ordinal))
			return
		case isTerminal(p):
			if p.DeletionTimestamp == nil {
				_ = w.delete(pods, p.Namespace, p.Name, preconditions{}, nil, false)
			}
			return
		case p.DeletionTimestamp != nil, !isPodReady(p):
			return
		}
	}
	if len(condemned) > 0 {
		last := condemned[len(condemned)-1]
		if last.DeletionTimestamp == nil {
			_ = w.delete(pods, last.Namespace, last.Name, preconditions{}, nil, false)
		}
		return
	}
	if set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return
	}
	partition := 0
	if u := set.Spec.UpdateStrategy.RollingUpdate; u != nil {
		partition = int(ptr.Deref(u.Partition, 0))
	}
	for ordinal := len(replicas) - 1; ordinal >= partition; ordinal-- {
		if p := replicas[ordinal]; p.Labels[appsv1.StatefulSetRevisionLabel] != revisionOf(set) {
			_ = w.delete(pods, p.Namespace, p.Name, preconditions{}, nil, false)
			return
		}
	}
}

func revisionOf(set *appsv1.StatefulSet) string {
	return set.Name + "-" + set.Spec.Template.Annotations["revision"]
}

func (w *world) podOfSet(set *appsv1.StatefulSet, ordinal int) *corev1.Pod {
	p := podOf(set, &set.Spec.Template, "apps/v1", "")
	p.Name = ordinalName(set, ordinal)
	p.Labels[appsv1.StatefulSetPodNameLabel] = p.Name
	p.Labels[appsv1.StatefulSetRevisionLabel] = revisionOf(set)
	p.Spec.Hostname = p.Name
	return p
}

func (w *world) countStatefulSet(set *appsv1.StatefulSet) {
	s := appsv1.StatefulSetStatus{ObservedGeneration: set.Generation, UpdateRevision: revisionOf(set), CurrentRevision: set.Status.CurrentRevision}
	if s.CurrentRevision == "" {
		s.CurrentRevision = s.UpdateRevision
	}
	each(w.store, pods, func(p *corev1.Pod) {
		if !isControlledBy(p, set) {
			return
		}
		s.Replicas++
		if isPodReady(p) && p.DeletionTimestamp == nil {
			s.ReadyReplicas++
		}
		if p.Labels[appsv1.StatefulSetRevisionLabel] == s.UpdateRevision {
			s.UpdatedReplicas++
		}
	})
	if set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType && s.UpdatedReplicas == s.Replicas && s.ReadyReplicas == s.Replicas {
		s.CurrentRevision = s.UpdateRevision
	}
	change(w, set, true, func(set *appsv1.StatefulSet) { set.Status = s })
}
