package simulate

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

const schedulerActor = "scheduler"

// schedule considers every pod that waits for a node. Binding takes a moment, in which
// the place is taken.
func (w *world) schedule() {
	each(w.store, pods, func(p *corev1.Pod) {
		if p.Spec.NodeName != "" || p.DeletionTimestamp != nil || isTerminal(p) || len(p.Spec.SchedulingGates) > 0 || w.binding[p.UID] != "" || w.mustWait(p) {
			return
		}
		node, why := w.placeFor(p)
		if node == "" {
			w.as(schedulerActor, func() {
				change(w, p, true, func(p *corev1.Pod) {
					setPodCondition(p, corev1.PodScheduled, corev1.ConditionFalse, corev1.PodReasonUnschedulable, w.stamp())
					for i := range p.Status.Conditions {
						if p.Status.Conditions[i].Type == corev1.PodScheduled {
							p.Status.Conditions[i].Message = why
						}
					}
				})
			})
			return
		}
		w.binding[p.UID] = node
		w.after(w.between(5*time.Millisecond, 100*time.Millisecond)+w.provisioning(p), func() { w.bind(p, node) })
	})
}

// mustWait is what plugin CheckpointVolume says before a pod enters the queue.
func (w *world) mustWait(p *corev1.Pod) (must bool) {
	if p.Spec.SchedulerName != v1alpha1.SchedulerName || p.Labels[v1alpha1.MigrationUIDLabel] != "" {
		return false
	}
	each(w.store, migrations, func(m *v1alpha1.PodMigration) {
		must = must || m.Namespace == p.Namespace && owners.MustWait(m, p)
	})
	return must
}

func (w *world) bind(p *corev1.Pod, node string) {
	delete(w.binding, p.UID)
	now := lookup[*corev1.Pod](w.store, pods, p.Namespace, p.Name)
	if now == nil || now.UID != p.UID || now.DeletionTimestamp != nil {
		return
	}
	w.as(schedulerActor, func() {
		for _, v := range now.Spec.Volumes {
			if v.PersistentVolumeClaim != nil {
				w.bindClaim(now.Namespace, v.PersistentVolumeClaim.ClaimName)
			}
		}
		becomes := now.DeepCopy()
		becomes.Spec.NodeName = node
		setPodCondition(becomes, corev1.PodScheduled, corev1.ConditionTrue, "", w.stamp())
		w.put(becomes)
		w.say(schedulerActor, "binds %s to %s", describe(becomes), node)
		w.wrote(now, becomes)
	})
}

// bindClaim gives a claim a volume.
func (w *world) bindClaim(namespace, name string) {
	c := lookup[*corev1.PersistentVolumeClaim](w.store, claims, namespace, name)
	if c == nil || c.Spec.VolumeName != "" || c.Spec.StorageClassName == nil {
		return
	}
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-" + string(c.UID)}, Spec: corev1.PersistentVolumeSpec{AccessModes: c.Spec.AccessModes}}
	_ = w.create(volume, false)
	becomes := c.DeepCopy()
	becomes.Spec.VolumeName = volume.Name
	becomes.Status.Phase, becomes.Status.AccessModes, becomes.Status.Capacity = corev1.ClaimBound, c.Spec.AccessModes, c.Spec.Resources.Requests
	w.put(becomes)
	w.wrote(c, becomes)
}

// provisioning is how long the volumes of a pod take that do not exist yet.
func (w *world) provisioning(p *corev1.Pod) time.Duration {
	for _, v := range p.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		if c := lookup[*corev1.PersistentVolumeClaim](w.store, claims, p.Namespace, v.PersistentVolumeClaim.ClaimName); c != nil && c.Spec.VolumeName == "" {
			return w.between(200*time.Millisecond, w.scenario.provisioning)
		}
	}
	return 0
}

// placeFor returns the node for a pod, or why there is none.
func (w *world) placeFor(p *corev1.Pod) (node, why string) {
	for _, v := range p.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		c := lookup[*corev1.PersistentVolumeClaim](w.store, claims, p.Namespace, v.PersistentVolumeClaim.ClaimName)
		if c == nil || c.DeletionTimestamp != nil {
			return "", "persistentvolumeclaim " + v.PersistentVolumeClaim.ClaimName + " not found or being deleted"
		}
		if c.Spec.VolumeName == "" && c.Spec.StorageClassName == nil {
			return "", "pod has unbound immediate PersistentVolumeClaims"
		}
	}
	var fitting []*corev1.Node
	each(w.store, nodes, func(n *corev1.Node) {
		if w.fits(p, n) {
			fitting = append(fitting, n)
		}
	})
	if len(fitting) == 0 {
		return "", "0 nodes are available"
	}
	for _, wanted := range []string{p.Status.NominatedNodeName, p.Labels[v1alpha1.TargetNodeLabel]} {
		for _, n := range fitting {
			if wanted == n.Name {
				return n.Name, ""
			}
		}
	}
	return fitting[w.random.IntN(len(fitting))].Name, ""
}

func (w *world) fits(p *corev1.Pod, n *corev1.Node) bool {
	toleratesAll := slices.ContainsFunc(p.Spec.Tolerations, func(t corev1.Toleration) bool {
		return t.Operator == corev1.TolerationOpExists && t.Key == ""
	})
	if !toleratesAll && (n.Spec.Unschedulable || !isNodeReady(n)) {
		return false
	}
	// The nodeSelector of the RuntimeClass (manifests/chart).
	if !matchesNode(p, n.Name) || p.Spec.RuntimeClassName != nil && n.Labels[v1alpha1.ProcessNodeLabel] != "true" {
		return false
	}
	free := n.Status.Allocatable.Cpu().MilliValue()
	each(w.store, pods, func(other *corev1.Pod) {
		holds := other.Spec.NodeName == n.Name || w.binding[other.UID] == n.Name ||
			other.Spec.NodeName == "" && other.Status.NominatedNodeName == n.Name
		if other.UID != p.UID && holds && !isTerminal(other) {
			free -= milliCPU(other)
		}
	})
	return milliCPU(p) <= free
}

// matchesNode reads the node affinity that the product writes: alternatives of
// requirements on the name.
func matchesNode(p *corev1.Pod, node string) bool {
	if p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil || p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return true
	}
	for _, term := range p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		fits := len(term.MatchFields) > 0
		for _, r := range term.MatchFields {
			fits = fits && slices.Contains(r.Values, node) == (r.Operator == corev1.NodeSelectorOpIn)
		}
		if fits {
			return true
		}
	}
	return false
}

func milliCPU(p *corev1.Pod) (sum int64) {
	for i := range p.Spec.Containers {
		sum += p.Spec.Containers[i].Resources.Requests.Cpu().MilliValue()
	}
	return sum
}
