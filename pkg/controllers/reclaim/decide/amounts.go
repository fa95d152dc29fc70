package decide

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/reclaimed"
)

// What a finished container still requests: the least that the API allows to
// stand for "almost nothing". Zero would change the class of some pods.
var (
	leastCPU    = resource.MustParse("1m")
	leastMemory = resource.MustParse("1Mi")
)

// resizable are the only resources that the resize subresource changes.
var resizable = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// leastToTakeFrom is what a running container must request, at least, to give up
// a thousandth of a CPU: a hundredth of it at most.
var leastToTakeFrom = resource.MustParse("100m")

func least(name corev1.ResourceName) resource.Quantity {
	if name == corev1.ResourceCPU {
		return leastCPU
	}
	return leastMemory
}

// shrinkContainer returns how a finished container is resized. Before is the change that
// was recorded for it, where it is known, whose original counts. It is not ok when
// nothing would become less.
func shrinkContainer(c *corev1.Container, before reclaimed.Change, known bool, class corev1.PodQOSClass) (change reclaimed.Change, ok bool) {
	if asksForRestart(c) {
		return before, false
	}
	found := before.Original
	if !known {
		found = amountsOf(c.Resources, class)
	}
	change.Original = found
	shrink := func(list corev1.ResourceList) corev1.ResourceList {
		small := corev1.ResourceList{}
		for name, amount := range list {
			if limit := least(name); amount.Cmp(limit) > 0 {
				amount, ok = limit, true
			}
			small[name] = amount.DeepCopy()
		}
		return small
	}
	change.Resized = corev1.ResourceRequirements{Requests: shrink(found.Requests), Limits: shrink(found.Limits)}
	return change, ok
}

// amountsOf returns what may change. What is not set cannot be set: the API
// does not let it be taken away again.
func amountsOf(r corev1.ResourceRequirements, class corev1.PodQOSClass) corev1.ResourceRequirements {
	pick := func(list corev1.ResourceList) corev1.ResourceList {
		picked := corev1.ResourceList{}
		for _, name := range resizable {
			if amount, is := list[name]; is {
				picked[name] = amount.DeepCopy()
			}
		}
		return picked
	}
	found := corev1.ResourceRequirements{Requests: pick(r.Requests)}
	if class == corev1.PodQOSGuaranteed {
		found.Limits = pick(r.Limits)
	}
	return found
}

// asksForRestart reports whether a resize of the container is to restart it.
// The kubelet does not restart one that has finished, but its author is obeyed.
func asksForRestart(c *corev1.Container) bool {
	return slices.ContainsFunc(c.ResizePolicy, func(p corev1.ContainerResizePolicy) bool {
		return p.RestartPolicy == corev1.RestartContainer
	})
}

// takeOneMilli takes 1m from the running container that requests most CPU.
func takeOneMilli(pod *corev1.Pod, keep *reclaimed.Record, class corev1.PodQOSClass) {
	var chosen *corev1.Container
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if !isRunning(pod, c.Name) || asksForRestart(c) || c.Resources.Requests.Cpu().Cmp(leastToTakeFrom) < 0 {
			continue
		}
		if chosen == nil || c.Resources.Requests.Cpu().Cmp(*chosen.Resources.Requests.Cpu()) > 0 {
			chosen = c
		}
	}
	if chosen == nil {
		return
	}
	now := amountsOf(chosen.Resources, class)
	change, known := keep.Containers[chosen.Name]
	if !known {
		change = reclaimed.Change{TookMilli: true, Original: now}
	}
	change.Resized = *now.DeepCopy()
	for _, list := range []corev1.ResourceList{change.Resized.Requests, change.Resized.Limits} {
		if cpu, set := list[corev1.ResourceCPU]; set {
			cpu.Sub(leastCPU)
			list[corev1.ResourceCPU] = cpu
		}
	}
	reclaimed.Set(&chosen.Resources, change.Resized)
	keep.Containers[chosen.Name] = change
}

func isRunning(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool {
		return s.Name == name && s.State.Running != nil
	})
}

func hasPodLevel(spec *corev1.PodSpec) bool {
	return spec.Resources != nil && len(spec.Resources.Requests)+len(spec.Resources.Limits) > 0
}

// sharePodLevel sets the pod-level requests of a pod whose containers are as
// they shall be: the original less what its containers no longer request.
func sharePodLevel(want *corev1.Pod, keep *reclaimed.Record) {
	if !hasPodLevel(&want.Spec) {
		return
	}
	before := want.DeepCopy()
	for i := range before.Spec.Containers {
		c := &before.Spec.Containers[i]
		if change, resized := keep.Containers[c.Name]; resized {
			reclaimed.Set(&c.Resources, change.Original)
		}
	}
	if keep.Pod != nil {
		reclaimed.Set(before.Spec.Resources, keep.Pod.Original)
	}
	share := containers.PodLevelShare(&before.Spec, &want.Spec)
	change := reclaimed.Change{
		Original: amountsOf(*before.Spec.Resources, corev1.PodQOSBurstable),
		Resized:  amountsOf(*share, corev1.PodQOSBurstable),
	}
	reclaimed.Set(want.Spec.Resources, change.Resized)
	keep.Pod = &change
	if sameAmounts(change.Original, change.Resized) {
		keep.Pod = nil
	}
}

func withAmounts(r, amounts corev1.ResourceRequirements) corev1.ResourceRequirements {
	r = *r.DeepCopy()
	reclaimed.Set(&r, amounts)
	return r
}

func sameAmounts(a, b corev1.ResourceRequirements) bool {
	same := func(a, b corev1.ResourceList) bool {
		for _, name := range resizable {
			one, inOne := a[name]
			other, inOther := b[name]
			if inOne != inOther || one.Cmp(other) != 0 {
				return false
			}
		}
		return true
	}
	return same(a.Requests, b.Requests) && same(a.Limits, b.Limits)
}

func samePodLevel(a, b *corev1.ResourceRequirements) bool {
	return a == nil || b == nil || sameAmounts(*a, *b)
}
