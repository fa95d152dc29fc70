package planner

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// newResourceIndex numbers the resources that occur. The search works on
// vectors: maps would cost most of its time.
func newResourceIndex(shapes []cluster.Resources, more ...cluster.Resources) *resourceIndex {
	x := &resourceIndex{}
	for _, list := range [][]cluster.Resources{shapes, more} {
		for _, r := range list {
			x.include(r)
		}
	}
	x.sort()
	return x
}

func (x *resourceIndex) include(r cluster.Resources) {
	for name := range r.Scalar {
		if x.seen == nil {
			x.seen = map[corev1.ResourceName]bool{}
		}
		x.seen[name] = true
	}
}

// sort makes the numbering the same in every run.
func (x *resourceIndex) sort() { x.names = slices.Sorted(maps.Keys(x.seen)) }

// size is the length of a vector.
func (x *resourceIndex) size() int { return 2 + len(x.names) }

// vector writes amounts in the order of the index; what it does not know is
// left out.
func (x *resourceIndex) vector(r cluster.Resources) []int64 {
	v := make([]int64, x.size())
	x.fill(v, r)
	return v
}

func (x *resourceIndex) fill(v []int64, r cluster.Resources) {
	v[0], v[1] = r.MilliCPU, r.Memory
	if len(r.Scalar) == 0 {
		return
	}
	for i, name := range x.names {
		v[2+i] = r.Scalar[name]
	}
}

// podsResource is how many pods a node takes, where it says so.
const podsResource = corev1.ResourcePods

// fits reports whether no amount of need is above that of room. As for the
// scheduler, zero always fits, also where room is overdrawn.
func fits(need, room []int64) bool {
	for r, amount := range need {
		if amount > 0 && amount > room[r] {
			return false
		}
	}
	return true
}

func addTo(sum, amounts []int64, sign int64) {
	for r, amount := range amounts {
		sum[r] += sign * amount
	}
}
