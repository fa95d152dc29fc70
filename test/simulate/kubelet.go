package simulate

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

const gateContainer = v1alpha1.GateContainer

// retryMount is how soon a volume is looked at again.
const retryMount = time.Second

// stored returns the pod as it is in the API; nil when it is gone, or its kubelet
// cannot read or write it now.
func (i *instance) stored() *corev1.Pod {
	if i.m.isDown() {
		return nil
	}
	p := lookup[*corev1.Pod](i.m.w.store, pods, i.namespace, i.name)
	if p == nil || p.UID != i.pod {
		return nil
	}
	return p
}

// later continues with a stage, unless the instance has left the one before. On a
// machine that is down it waits.
func (i *instance) later(d time.Duration, in stage, next func()) {
	w := i.m.w
	w.after(d, func() {
		switch {
		case i.stage != in || i.m.instance(i.pod) != i:
		case i.m.isDown():
			i.later(time.Second, in, next)
		default:
			next()
		}
	})
}

// mount waits until every claim of the pod can be had on this node. One that is being deleted
// is not mounted any more, unless the kubelet has seen it before, or its protection is still
// there (k8s.io/kubernetes/pkg/kubelet/volumemanager/populator at 1.35.4, getPVCExtractPV).
func (i *instance) mount() {
	if i.stage != mounting {
		return
	}
	p := i.stored()
	if p == nil {
		i.later(retryMount, mounting, i.mount)
		return
	}
	if p.DeletionTimestamp != nil {
		return
	}
	w := i.m.w
	var wanted []types.UID
	waits := w.now < w.hanging
	for _, v := range p.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		c := lookup[*corev1.PersistentVolumeClaim](w.store, claims, p.Namespace, v.PersistentVolumeClaim.ClaimName)
		if c == nil || c.Spec.VolumeName == "" || c.DeletionTimestamp != nil && !slices.Contains(c.Finalizers, protectionFinalizer) && !slices.Contains(i.seen, c.UID) {
			waits = true
			continue
		}
		wanted = append(wanted, c.UID)
		waits = waits || w.isAttachedElsewhere(c, i.m)
	}
	i.seen = wanted
	if waits {
		i.later(retryMount, mounting, i.mount)
		return
	}
	i.mounted = wanted
	i.stage = initializing
	i.later(w.between(100*time.Millisecond, 2*time.Second), initializing, i.initialize)
}

// isAttachedElsewhere reports whether only one node may have a claim, and another one
// has it. A machine that is down keeps what it has.
func (w *world) isAttachedElsewhere(c *corev1.PersistentVolumeClaim, here *machine) bool {
	if slices.Contains(c.Spec.AccessModes, corev1.ReadWriteMany) {
		return false
	}
	return slices.ContainsFunc(w.machines, func(m *machine) bool {
		return m != here && slices.ContainsFunc(m.instances, func(i *instance) bool { return slices.Contains(i.mounted, c.UID) })
	})
}

// initialize runs the init containers, of which only the gate takes long.
func (i *instance) initialize() {
	p := i.stored()
	if p == nil {
		i.later(time.Second, initializing, i.initialize)
		return
	}
	w := i.m.w
	i.stage = gated
	w.as(i.m.actor, func() {
		change(w, p, true, func(p *corev1.Pod) {
			p.Status.StartTime = ptr.To(w.stamp())
			p.Status.InitContainerStatuses = nil
			for _, c := range p.Spec.InitContainers {
				s := corev1.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: c.Image, ContainerID: "containerd://" + string(i.pod) + "-" + c.Name}
				switch {
				case c.Name == gateContainer && !i.gateOpen:
					s.State.Running = &corev1.ContainerStateRunning{StartedAt: w.stamp()}
				case i.hasGate && !i.gateOpen && !v1alpha1.IsGateContainer(c.Name):
					s.State.Waiting = &corev1.ContainerStateWaiting{Reason: "PodInitializing"}
				default:
					s.State.Terminated = &corev1.ContainerStateTerminated{Reason: "Completed", StartedAt: w.stamp(), FinishedAt: w.stamp()}
				}
				p.Status.InitContainerStatuses = append(p.Status.InitContainerStatuses, s)
			}
			p.Status.ContainerStatuses = nil
			for _, c := range p.Spec.Containers {
				p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
					Name: c.Name, Image: c.Image, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}},
				})
			}
		})
	})
	if i.hasGate && !i.gateOpen {
		i.awaitGate()
		return
	}
	i.later(w.between(10*time.Millisecond, 300*time.Millisecond), gated, i.run)
}

const gatePoll = 100 * time.Millisecond

func (i *instance) awaitGate() {
	i.later(gatePoll, gated, func() {
		if i.gateOpen {
			i.run()
			return
		}
		i.awaitGate()
	})
}

// run starts the main containers, or has their processes restored.
func (i *instance) run() {
	if i.images != nil {
		i.awaitImages(i.m.w.now + restorePatience)
		return
	}
	i.beginWork()
	w := i.m.w
	i.change(func() { i.stage, i.runs = running, true })
	w.say(i.m.actor, "starts the containers of %s at work %d", i.name, i.volume)
	i.startProbe()
	i.writeRunning(false)
	i.later(w.between(200*time.Millisecond, 3*time.Second), running, i.becomeReady)
}

func (i *instance) writeRunning(ready bool) {
	p := i.stored()
	if p == nil {
		return
	}
	w := i.m.w
	// To the kubelet processes that are stopped are ready, where nothing probes them.
	i.ready, i.wasReady = ready, i.wasReady || ready && !i.held
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	w.as(i.m.actor, func() {
		change(w, p, true, func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodRunning
			for at := range p.Status.InitContainerStatuses {
				p.Status.InitContainerStatuses[at].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", FinishedAt: w.stamp()}}
			}
			p.Status.ContainerStatuses = nil
			for _, c := range p.Spec.Containers {
				p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
					Name: c.Name, Image: c.Image, ImageID: c.Image, ContainerID: "containerd://" + string(i.pod) + "-" + c.Name + "-" + fmt.Sprint(i.restarts),
					Ready: ready, Started: ptr.To(true), RestartCount: i.restarts,
					State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: w.stamp()}},
				})
			}
			setPodCondition(p, corev1.PodReady, status, "", w.stamp())
		})
	})
}

func (i *instance) becomeReady() {
	if i.ready {
		return
	}
	if i.frozen || i.held && i.probe != nil {
		i.later(time.Second, running, i.becomeReady)
		return
	}
	i.writeRunning(true)
}

// terminate ends the containers of a pod that is deleted: they get SIGTERM and end
// within the grace. What is frozen takes no notice before SIGKILL, and with cgroup v1 not
// even then (Linux, freezer-subsystem.rst): the kubelet tries until it is thawed.
func (i *instance) terminate(p *corev1.Pod) {
	w := i.m.w
	wasRunning := i.stage == running
	i.stage = ending
	i.grace = ptr.Deref(p.DeletionGracePeriodSeconds, 0)
	grace := time.Duration(ptr.Deref(p.DeletionGracePeriodSeconds, 0)) * time.Second
	if !wasRunning {
		w.after(w.between(10*time.Millisecond, 300*time.Millisecond), i.stop)
		return
	}
	w.checks.workChanged(i)
	needs := w.between(10*time.Millisecond, grace+10*time.Millisecond)
	i.awaitEnd(w.now+needs, w.now+grace)
}

func (i *instance) awaitEnd(needs, kill moment) {
	w := i.m.w
	w.after(20*time.Millisecond, func() {
		switch {
		case i.stage != ending:
		case i.m.off:
			i.losesMemory("its node went off while it saved")
			i.stop()
		case !i.killed && !i.isStopped() && w.now >= needs:
			i.save()
			i.stop()
		case i.killed, w.now >= kill && !i.m.cut && (!i.frozen || !w.scenario.cgroupV1):
			if i.grace >= w.scenario.grace {
				i.losesMemory("its application did not save within its grace period")
			}
			i.stop()
		default:
			i.awaitEnd(needs, kill)
		}
	})
}

// stop is the end of all containers.
func (i *instance) stop() {
	if i.stage == ended {
		return
	}
	w := i.m.w
	wasRunning := i.ready
	i.change(func() { i.stage, i.mounted, i.frozen, i.held, i.runs = ended, nil, false, false, false })
	w.say(i.m.actor, "has ended the containers of %s at work %d", i.name, i.volume)
	i.reportEnd(wasRunning)
}

// podCleanup is how long the kubelet may take to unmount what a pod had, after it has
// reported the end of its containers: its pod workers and its housekeeping look every two
// seconds at most.
const podCleanup = 2 * time.Second

func (i *instance) reportEnd(wasRunning bool) {
	w := i.m.w
	if i.m.isDown() {
		w.after(time.Second, func() { i.reportEnd(wasRunning) })
		return
	}
	p := i.stored()
	if p == nil {
		return
	}
	w.as(i.m.actor, func() {
		change(w, p, true, func(p *corev1.Pod) { i.writeEnd(p, wasRunning) })
	})
	w.after(w.between(10*time.Millisecond, podCleanup), func() {
		i.cleaned = true
		if p := i.stored(); p != nil && p.DeletionTimestamp != nil {
			i.m.finalize(p)
		}
	})
}

func (i *instance) writeEnd(p *corev1.Pod, wasRunning bool) {
	now := metav1.NewTime(i.m.w.stamp().Time)
	p.Status.Phase = corev1.PodFailed
	exit := int32(137)
	if wasRunning && !i.killed {
		exit = 0
		p.Status.Phase = corev1.PodSucceeded
	}
	for at := range p.Status.InitContainerStatuses {
		// The gate ends with 1 when it is asked to.
		if s := &p.Status.InitContainerStatuses[at]; s.State.Running != nil {
			s.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, FinishedAt: now}}
		}
	}
	for at := range p.Status.ContainerStatuses {
		s := &p.Status.ContainerStatuses[at]
		s.Ready = false
		// One that never started in a pod that was not initialised stays as it is.
		if s.State.Waiting == nil || s.State.Waiting.Reason != "PodInitializing" {
			s.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: exit, FinishedAt: now}}
		}
	}
	setPodCondition(p, corev1.PodReady, corev1.ConditionFalse, "", now)
}
