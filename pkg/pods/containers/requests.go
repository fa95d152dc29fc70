package containers

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// PodLevelShare returns the pod-level resources (KEP-2837) of the stripped
// spec: those of the original less what the stripped containers requested, as
// far as the containers that remain allow.
func PodLevelShare(original, stripped *corev1.PodSpec) *corev1.ResourceRequirements {
	if original.Resources == nil {
		return nil
	}
	share := original.Resources.DeepCopy()
	before, after := aggregate(original, requestsOf), aggregate(stripped, requestsOf)
	for name, quantity := range share.Requests {
		share.Requests[name] = atLeast(less(quantity, before[name], after[name]), after[name])
	}
	// Limits of containers may add up to more than the pod's, so the least is
	// the largest of a single container, and the request.
	before, after = aggregate(original, limitsOf), aggregate(stripped, limitsOf)
	for name, quantity := range share.Limits {
		limit := less(quantity, before[name], after[name])
		eachContainer(stripped, func(c *corev1.Container) { limit = atLeast(limit, c.Resources.Limits[name]) })
		share.Limits[name] = atLeast(limit, share.Requests[name])
	}
	return share
}

func requestsOf(c *corev1.Container) corev1.ResourceList { return c.Resources.Requests }
func limitsOf(c *corev1.Container) corev1.ResourceList   { return c.Resources.Limits }

// aggregate sums containers as the scheduler does (KEP-753): containers and
// sidecars add up, and each init container needs its own and that of the
// sidecars started before it.
func aggregate(spec *corev1.PodSpec, of func(*corev1.Container) corev1.ResourceList) corev1.ResourceList {
	sum, sidecars, peak := corev1.ResourceList{}, corev1.ResourceList{}, corev1.ResourceList{}
	for i := range spec.Containers {
		add(sum, of(&spec.Containers[i]))
	}
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		need := corev1.ResourceList{}
		add(need, of(c))
		add(need, sidecars)
		if isSidecar(c) {
			add(sum, of(c))
			add(sidecars, of(c))
		}
		for name, quantity := range need {
			peak[name] = atLeast(peak[name], quantity)
		}
	}
	for name, quantity := range peak {
		sum[name] = atLeast(sum[name], quantity)
	}
	return sum
}

func add(to, from corev1.ResourceList) {
	for name, quantity := range from {
		sum := to[name].DeepCopy()
		sum.Add(quantity)
		to[name] = sum
	}
}

// less returns q - (before - after), and never below zero.
func less(q, before, after resource.Quantity) resource.Quantity {
	freed := before.DeepCopy()
	freed.Sub(after)
	left := q.DeepCopy()
	if freed.Sign() <= 0 {
		return left
	}
	left.Sub(freed)
	return atLeast(left, resource.Quantity{Format: q.Format})
}

func atLeast(q, least resource.Quantity) resource.Quantity {
	if q.Cmp(least) < 0 {
		return least.DeepCopy()
	}
	return q
}
