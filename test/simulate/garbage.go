package simulate

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Names of actors.
const (
	garbageActor    = "garbage"
	protectionActor = "protection"
	namespaceActor  = "namespaces"
	userActor       = "user"
)

// collectGarbage deletes what has owners of which none exists any more, and what is in
// a namespace that is being deleted.
func (w *world) collectGarbage() {
	for _, k := range []kind{pods, claims, replicaSets, jobs, migrations} {
		each(w.store, k, func(object client.Object) {
			if object.GetDeletionTimestamp() == nil && w.isOrphan(object) {
				w.after(w.between(50*time.Millisecond, time.Second), func() {
					if now := w.byUID[object.GetUID()]; now != nil && now.GetDeletionTimestamp() == nil && w.isOrphan(now) {
						uid := string(now.GetUID())
						w.as(garbageActor, func() { _ = w.delete(k, now.GetNamespace(), now.GetName(), preconditions{uid: &uid}, nil, false) })
					}
				})
			}
		})
	}
	w.emptyNamespaces()
}

func (w *world) isOrphan(object client.Object) bool {
	references := object.GetOwnerReferences()
	return len(references) > 0 && !slices.ContainsFunc(references, func(r metav1.OwnerReference) bool {
		return w.byUID[r.UID] != nil
	})
}

func (w *world) emptyNamespaces() {
	each(w.store, namespaces, func(n *corev1.Namespace) {
		if n.DeletionTimestamp == nil {
			return
		}
		left := false
		w.as(namespaceActor, func() {
			for _, k := range []kind{migrations, deployments, replicaSets, statefulSets, jobs, budgets, pods, claims} {
				each(w.store, k, func(object client.Object) {
					if object.GetNamespace() != n.Name {
						return
					}
					left = true
					if object.GetDeletionTimestamp() == nil {
						_ = w.delete(k, n.Name, object.GetName(), preconditions{}, nil, false)
					}
				})
			}
			if !left {
				change(w, n, false, func(n *corev1.Namespace) { n.Finalizers = nil })
			}
		})
	})
}

// podGCInterval is that of PodGC (k8s.io/kubernetes/pkg/controller/podgc).
const podGCInterval = 20 * time.Second

// collectUnscheduled marks terminating pods that no kubelet ever saw as failed, and
// deletes them, as PodGC does: a Job that replaces only failed pods waits for it.
func (w *world) collectUnscheduled() {
	w.after(podGCInterval, w.collectUnscheduled)
	each(w.store, pods, func(p *corev1.Pod) {
		if p.DeletionTimestamp == nil || p.Spec.NodeName != "" || isTerminal(p) {
			return
		}
		w.as("podgc", func() {
			change(w, p, true, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
			zero := int64(0)
			_ = w.delete(pods, p.Namespace, p.Name, preconditions{}, &zero, false)
		})
	})
}

// protectClaims frees claims that are being deleted and that no pod uses. Of a pod on a
// node it does not matter that it has ended (pvc_protection_controller.go, podUsesPVC).
func (w *world) protectClaims() {
	each(w.store, claims, func(c *corev1.PersistentVolumeClaim) {
		if c.DeletionTimestamp == nil || !slices.Contains(c.Finalizers, protectionFinalizer) || w.isUsed(c) {
			return
		}
		w.as(protectionActor, func() {
			change(w, c, false, func(c *corev1.PersistentVolumeClaim) {
				c.Finalizers = slices.DeleteFunc(c.Finalizers, func(f string) bool { return f == protectionFinalizer })
			})
		})
	})
}

func (w *world) isUsed(c *corev1.PersistentVolumeClaim) (used bool) {
	each(w.store, pods, func(p *corev1.Pod) {
		used = used || p.Namespace == c.Namespace && p.Spec.NodeName != "" && mounts(p, c.Name)
	})
	return used
}

func mounts(p *corev1.Pod, claim string) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim
	})
}

// runModels lets all controllers of Kubernetes look at what has changed.
func (w *world) runModels() {
	w.modelsDue = false
	changed := w.changed
	w.changed = [kinds]bool{}
	w.as("disruption", w.countBudgets)
	w.collectGarbage()
	w.protectClaims()
	if changed[pods] || changed[replicaSets] || changed[deployments] {
		w.syncDeployments()
		w.syncReplicaSets()
	}
	if changed[pods] || changed[jobs] {
		w.syncJobs()
	}
	if changed[pods] || changed[statefulSets] {
		w.syncStatefulSets()
	}
	w.schedule()
}
