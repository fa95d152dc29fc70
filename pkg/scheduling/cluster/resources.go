package cluster

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
)

// Resources is a vector of amounts. The zero value is nothing of everything.
type Resources struct {
	// MilliCPU is in thousandths of a core.
	MilliCPU int64
	// Memory is in bytes.
	Memory int64
	// Scalar holds every other resource in its own unit (bytes, devices, …).
	Scalar map[corev1.ResourceName]int64
}

// ResourcesOf converts a resource list.
func ResourcesOf(list corev1.ResourceList) Resources {
	r := Resources{MilliCPU: list.Cpu().MilliValue(), Memory: list.Memory().Value()}
	for name, quantity := range list {
		if name == corev1.ResourceCPU || name == corev1.ResourceMemory {
			continue
		}
		if r.Scalar == nil {
			r.Scalar = map[corev1.ResourceName]int64{}
		}
		r.Scalar[name] = quantity.Value()
	}
	return r
}

// Add returns r + other.
func (r Resources) Add(other Resources) Resources { return r.plus(other, 1) }

// Sub returns r - other. Amounts may become negative.
func (r Resources) Sub(other Resources) Resources { return r.plus(other, -1) }

func (r Resources) plus(other Resources, sign int64) Resources {
	sum := Resources{
		MilliCPU: r.MilliCPU + sign*other.MilliCPU,
		Memory:   r.Memory + sign*other.Memory,
	}
	if len(r.Scalar)+len(other.Scalar) > 0 {
		sum.Scalar = make(map[corev1.ResourceName]int64, len(r.Scalar)+len(other.Scalar))
		maps.Copy(sum.Scalar, r.Scalar)
		for name, amount := range other.Scalar {
			sum.Scalar[name] += sign * amount
		}
	}
	return sum
}

// Equal reports whether all amounts are the same. An amount that is not named is
// zero.
func (r Resources) Equal(other Resources) bool {
	difference := r.Sub(other)
	for _, amount := range difference.Scalar {
		if amount != 0 {
			return false
		}
	}
	return difference.MilliCPU == 0 && difference.Memory == 0
}

// FitsIn reports whether no amount of r is above that of room. As for the
// scheduler, zero always fits, also where room is overdrawn.
func (r Resources) FitsIn(room Resources) bool {
	fits := func(amount, room int64) bool { return amount <= 0 || amount <= room }
	if !fits(r.MilliCPU, room.MilliCPU) || !fits(r.Memory, room.Memory) {
		return false
	}
	for name, amount := range r.Scalar {
		if !fits(amount, room.Scalar[name]) {
			return false
		}
	}
	return true
}
