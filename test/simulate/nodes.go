package simulate

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

const nodeActor = "nodes"

const (
	// notReadyAfter is how long a kubelet may be silent before its node is not Ready,
	// evictAfter how long pods stay then (the defaults of kube-controller-manager and of
	// the admission plugin DefaultTolerationSeconds).
	notReadyAfter = 50 * time.Second
	evictAfter    = 300 * time.Second
)

func (w *world) addNode(name string, milli int64, carriesProcesses bool) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	if carriesProcesses {
		n.Labels[v1alpha1.ProcessNodeLabel] = "true"
	}
	n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(milli, resource.DecimalSI)}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: w.stamp()}}
	m := &machine{w: w, node: name, actor: "kubelet " + name, ip: fmt.Sprintf("10.0.0.%d", len(w.machines)+1), sent: map[types.UID]bool{}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: m.ip}}
	w.as("setup", func() { _ = w.create(n, false) })
	m.agent = newAgent(m)
	w.machines = append(w.machines, m)
}

// goDown cuts a machine off, or switches it off. It is back after a while.
func (m *machine) goDown(off bool, back time.Duration) {
	w := m.w
	if m.isDown() {
		return
	}
	m.downSince = w.now
	since := w.now
	m.excuseProbes()
	if off {
		for _, i := range m.instances {
			i.change(func() {})
		}
		m.agent.crash()
		m.off = true
		m.boots++
		for _, i := range m.instances {
			i.change(func() { i.frozen, i.seen = false, nil })
		}
	} else {
		m.cut = true
		m.agent.hold(true)
	}
	w.after(notReadyAfter, func() { m.becomeNotReady(since) })
	w.after(notReadyAfter+evictAfter, func() { m.evictAll(since) })
	if back > 0 {
		w.after(back, m.comeBack)
	}
}

// fewestNodes is how many are left alive.
const fewestNodes = 2

// die switches a machine off for good. Its node is removed later, as the controllers of
// clouds do.
func (m *machine) die(removed time.Duration) {
	alive := 0
	for _, other := range m.w.machines {
		if !other.isDown() {
			alive++
		}
	}
	if m.isDown() || alive <= fewestNodes {
		return
	}
	m.w.say(m.actor, "is off for good")
	m.goDown(true, 0)
	m.w.after(removed, m.remove)
}

// remove takes the node of a machine away that is off for good. PodGC deletes its pods, its
// claims are detached, and what was on its disks is gone.
func (m *machine) remove() {
	w := m.w
	w.say(m.actor, "is removed")
	m.dead = true
	w.as(nodeActor, func() { _ = w.delete(nodes, "", m.node, preconditions{}, nil, false) })
	each(w.store, pods, func(p *corev1.Pod) {
		if p.Spec.NodeName == m.node {
			w.checks.leaves(p, "its node died")
			w.collectPod(p, "DeletionByPodGC")
		}
	})
	for _, r := range slices.Clone(m.received) {
		w.checks.diskGone(r)
		m.forget(r.migration)
	}
	for _, i := range slices.Clone(m.instances) {
		i.change(func() { i.stage, i.mounted, i.runs = ended, nil, false })
		m.drop(i)
	}
}

// excuseProbes says of what is frozen that its agent cannot thaw it in time.
func (m *machine) excuseProbes() {
	for _, i := range m.instances {
		i.excused = true
	}
}

func (m *machine) becomeNotReady(since moment) {
	if !m.isDown() || m.downSince != since {
		return
	}
	w := m.w
	w.as(nodeActor, func() {
		m.setReady(corev1.ConditionUnknown)
		each(w.store, pods, func(p *corev1.Pod) {
			if p.Spec.NodeName == m.node && isPodReady(p) {
				change(w, p, true, func(p *corev1.Pod) {
					setPodCondition(p, corev1.PodReady, corev1.ConditionFalse, "NodeNotReady", w.stamp())
				})
			}
		})
	})
}

func (m *machine) setReady(status corev1.ConditionStatus) {
	w := m.w
	n := lookup[*corev1.Node](w.store, nodes, "", m.node)
	if n == nil {
		return
	}
	change(w, n, true, func(n *corev1.Node) {
		for i := range n.Status.Conditions {
			if c := &n.Status.Conditions[i]; c.Type == corev1.NodeReady && c.Status != status {
				c.Status, c.LastTransitionTime = status, w.stamp()
			}
		}
	})
}

// collectPod marks a pod as failed that runs no more, and deletes it
// (k8s.io/kubernetes/pkg/controller/podgc at 1.35.4, markFailedAndDeletePodWithCondition).
func (w *world) collectPod(p *corev1.Pod, reason string) {
	w.as("podgc", func() {
		if !isTerminal(p) {
			change(w, p, true, func(p *corev1.Pod) {
				p.Status.Phase = corev1.PodFailed
				setPodCondition(p, corev1.DisruptionTarget, corev1.ConditionTrue, reason, w.stamp())
			})
		}
		zero := int64(0)
		_ = w.delete(pods, p.Namespace, p.Name, preconditions{}, &zero, false)
	})
}

// evictAll deletes the pods of a node that has been away for longer than they tolerate.
func (m *machine) evictAll(since moment) {
	if !m.isDown() || m.downSince != since {
		return
	}
	w := m.w
	w.as("taint-eviction", func() {
		each(w.store, pods, func(p *corev1.Pod) {
			if p.Spec.NodeName != m.node || p.DeletionTimestamp != nil || toleratesAll(p) {
				return
			}
			w.checks.leaves(p, "its node was away for too long")
			change(w, p, true, func(p *corev1.Pod) {
				setPodCondition(p, corev1.DisruptionTarget, corev1.ConditionTrue, "DeletionByTaintManager", w.stamp())
			})
			_ = w.delete(pods, p.Namespace, p.Name, preconditions{}, nil, false)
		})
	})
}

func toleratesAll(p *corev1.Pod) bool {
	for _, t := range p.Spec.Tolerations {
		if t.Operator == corev1.TolerationOpExists && t.Key == "" {
			return true
		}
	}
	return false
}

func (m *machine) comeBack() {
	w := m.w
	wasOff := m.off
	w.say(m.actor, "is back")
	for _, i := range m.instances {
		i.settle()
	}
	m.cut, m.off = false, false
	for _, i := range m.instances {
		i.since = w.now
	}
	if wasOff {
		for _, i := range append([]*instance(nil), m.instances...) {
			i.reboot()
		}
	}
	w.as(nodeActor, func() { m.setReady(corev1.ConditionTrue) })
	for _, i := range m.instances {
		if i.stage == running && i.ready {
			i.writeRunning(true)
		}
	}
	m.agent.hold(false)
	m.agent.start()
	m.wake(time.Millisecond)
}

// reboot starts the containers of a pod again, from its volumes.
func (i *instance) reboot() {
	switch i.stage {
	case initializing, gated, running:
		i.restarts++
		i.ready = false
		i.processesEnd()
		i.change(func() { i.stage, i.runs, i.held = initializing, false, false })
		i.later(i.m.w.between(time.Second, 3*time.Second), initializing, i.initialize)
	case ending:
		i.stop()
	}
}
