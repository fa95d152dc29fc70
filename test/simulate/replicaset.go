package simulate

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	replicaSetActor = "replicaset"
	deploymentActor = "deployment"
)

// creations counts the pods that a controller has sent and not seen answered: its
// expectations (k8s.io/kubernetes/pkg/controller, ControllerExpectations). After a
// refusal it waits.
type creations struct {
	flying map[types.UID]int
	notNow map[types.UID]moment
}

func newCreations() creations {
	return creations{flying: map[types.UID]int{}, notNow: map[types.UID]moment{}}
}

// send creates a pod for its owner. The request takes its time, since the admission
// webhook reads meanwhile.
func (w *world) send(actor string, c creations, owner types.UID, pod *corev1.Pod) {
	c.flying[owner]++
	w.spawn(actor, 0, nil, func(p *process) {
		p.sleep(w.latency())
		var err error
		w.as(actor, func() { err = w.admitAndCreate(pod, false) })
		if err != nil {
			w.say(actor, "cannot create a pod: %v", err)
			c.notNow[owner] = w.now + w.between(100*time.Millisecond, 2*time.Second)
			w.at(c.notNow[owner], w.wakeModels)
		}
	}, func() {
		c.flying[owner]--
		w.wakeModels()
	})
}

func (c creations) mayAct(owner types.UID, now moment) bool {
	return c.flying[owner] == 0 && now >= c.notNow[owner]
}

// wakeModels has the models look again, although nothing was written.
func (w *world) wakeModels() {
	for k := range w.changed {
		w.changed[k] = true
	}
	if !w.modelsDue {
		w.modelsDue = true
		w.after(modelDelay, w.runModels)
	}
}

// syncReplicaSets adopts, releases, creates and deletes pods
// (k8s.io/kubernetes/pkg/controller/replicaset at 1.35.4).
func (w *world) syncReplicaSets() {
	each(w.store, replicaSets, func(rs *appsv1.ReplicaSet) {
		w.as(replicaSetActor, func() { w.syncReplicaSet(rs) })
	})
}

func (w *world) syncReplicaSet(rs *appsv1.ReplicaSet) {
	active := w.claimPods(rs, rs.Spec.Selector, "apps/v1", func(p *corev1.Pod) bool { return !isTerminal(p) && p.DeletionTimestamp == nil })
	if rs.DeletionTimestamp == nil && w.owned.mayAct(rs.UID, w.now) {
		switch diff := len(active) - int(*rs.Spec.Replicas); {
		case diff < 0:
			for range -diff {
				pod := podOf(rs, &rs.Spec.Template, "apps/v1", rs.Name+"-")
				w.send(replicaSetActor, w.owned, rs.UID, pod)
			}
		case diff > 0:
			for _, p := range w.firstToGo(active)[:diff] {
				_ = w.delete(pods, p.Namespace, p.Name, preconditions{}, nil, false)
			}
		}
	}
	ready := int32(0)
	for _, p := range active {
		if isPodReady(p) {
			ready++
		}
	}
	change(w, rs, true, func(rs *appsv1.ReplicaSet) {
		rs.Status = appsv1.ReplicaSetStatus{Replicas: int32(len(active)), ReadyReplicas: ready, AvailableReplicas: ready, ObservedGeneration: rs.Generation}
	})
}

// claimPods returns the pods of a controller that pass a filter, after it has adopted
// what matches and released what does not (PodControllerRefManager).
func (w *world) claimPods(owner client.Object, selector *metav1.LabelSelector, apiVersion string, filter func(*corev1.Pod) bool) (owned []*corev1.Pod) {
	each(w.store, pods, func(p *corev1.Pod) {
		if p.Namespace != owner.GetNamespace() {
			return
		}
		c, matches := metav1.GetControllerOf(p), selects(selector, p.Labels)
		switch {
		case c != nil && c.UID != owner.GetUID():
			return
		case c != nil && !matches:
			if owner.GetDeletionTimestamp() == nil && filter(p) {
				change(w, p, false, func(p *corev1.Pod) {
					p.OwnerReferences = slices.DeleteFunc(p.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == owner.GetUID() })
				})
			}
			return
		case c == nil && (!matches || owner.GetDeletionTimestamp() != nil || p.DeletionTimestamp != nil || !filter(p)):
			return
		case c == nil:
			change(w, p, false, func(p *corev1.Pod) {
				p.OwnerReferences = append(p.OwnerReferences, controlledBy(owner, apiVersion))
				if _, isJob := owner.(*batchv1.Job); isJob && !tracked(p) {
					p.Finalizers = append(p.Finalizers, batchv1.JobTrackingFinalizer)
				}
			})
			p = lookup[*corev1.Pod](w.store, pods, p.Namespace, p.Name)
		}
		if p != nil && filter(p) {
			owned = append(owned, p)
		}
	})
	return owned
}

func podOf(owner client.Object, template *corev1.PodTemplateSpec, apiVersion, generateName string) *corev1.Pod {
	t := template.DeepCopy()
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: owner.GetNamespace(), GenerateName: generateName, Labels: t.Labels, Annotations: t.Annotations,
			Finalizers: t.Finalizers, OwnerReferences: []metav1.OwnerReference{controlledBy(owner, apiVersion)},
		},
		Spec: t.Spec,
	}
}

// firstToGo sorts as the ReplicaSet controller does, by its own code.
func (w *world) firstToGo(active []*corev1.Pod) []*corev1.Pod {
	onNode := map[string]int{}
	for _, p := range active {
		if isPodReady(p) {
			onNode[p.Spec.NodeName]++
		}
	}
	ranked := controller.ActivePodsWithRanks{Pods: slices.Clone(active), Rank: make([]int, len(active)), Now: w.stamp()}
	for i, p := range active {
		ranked.Rank[i] = onNode[p.Spec.NodeName]
	}
	sort.Sort(ranked)
	return ranked.Pods
}

// syncDeployments keeps one ReplicaSet for the template of a Deployment, and scales the
// others down: at once when it recreates, else as the new pods become ready.
func (w *world) syncDeployments() {
	each(w.store, deployments, func(d *appsv1.Deployment) {
		w.as(deploymentActor, func() { w.syncDeployment(d) })
	})
}

func (w *world) syncDeployment(d *appsv1.Deployment) {
	if d.DeletionTimestamp != nil {
		return
	}
	hash := d.Spec.Template.Annotations["revision"]
	name := d.Name + "-" + hash
	var current *appsv1.ReplicaSet
	var old []*appsv1.ReplicaSet
	total, updated, ready := int32(0), int32(0), int32(0)
	each(w.store, replicaSets, func(rs *appsv1.ReplicaSet) {
		if !isControlledBy(rs, d) {
			return
		}
		total += rs.Status.Replicas
		ready += rs.Status.ReadyReplicas
		if rs.Name == name {
			current, updated = rs, rs.Status.Replicas
		} else if *rs.Spec.Replicas > 0 || rs.Status.Replicas > 0 {
			old = append(old, rs)
		}
	})
	recreates := d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType
	wanted := *d.Spec.Replicas
	switch {
	case recreates && len(old) > 0:
		for _, rs := range old {
			w.scale(rs, 0)
		}
		if w.hasPods(old) {
			break
		}
		fallthrough
	case current == nil:
		_ = w.create(replicaSetOf(d, name, hash, wanted), false)
	case *current.Spec.Replicas != wanted:
		w.scale(current, wanted)
	case current.Status.ReadyReplicas >= wanted:
		for _, rs := range old {
			w.scale(rs, 0)
		}
	}
	change(w, d, true, func(d *appsv1.Deployment) {
		d.Status.Replicas, d.Status.UpdatedReplicas, d.Status.ReadyReplicas, d.Status.ObservedGeneration = total, updated, ready, d.Generation
	})
}

func (w *world) hasPods(sets []*appsv1.ReplicaSet) (has bool) {
	each(w.store, pods, func(p *corev1.Pod) {
		has = has || slices.ContainsFunc(sets, func(rs *appsv1.ReplicaSet) bool { return isControlledBy(p, rs) })
	})
	return has
}

func (w *world) scale(rs *appsv1.ReplicaSet, replicas int32) {
	change(w, rs, false, func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = &replicas })
}

func replicaSetOf(d *appsv1.Deployment, name, hash string, replicas int32) *appsv1.ReplicaSet {
	template := d.Spec.Template.DeepCopy()
	template.Labels = maps.Clone(template.Labels)
	template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: name, Labels: template.Labels, OwnerReferences: []metav1.OwnerReference{controlledBy(d, "apps/v1")}},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: maps.Clone(template.Labels)}, Template: *template,
		},
	}
}

func revision(n int) string { return fmt.Sprintf("r%d", n) }
