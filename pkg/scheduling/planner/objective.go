package planner

import (
	"math"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

const (
	// overloadWeight prices one whole node's worth of load above the threshold
	// against the square of the load, which is at most 1.
	overloadWeight = 10.0
	// strandedWeight prices a node that has all of one resource left and nothing
	// of the other. It only decides between places that are nearly alike.
	strandedWeight = 0.1
	// occupiedWeight prices a node that is in use at all: as much as 40 moves.
	occupiedWeight = 2.0
	// occupiedHalf is the use at which a node costs half of that. The price falls
	// fastest when little is left, so that a node that is nearly empty is emptied.
	occupiedHalf = 0.1
	// MoveCost is what a move must gain at least. It equals taking half a percent
	// of a node off the load above a threshold.
	MoveCost = 0.05
	// siblingCost is added to the price of a move for every other move of the same
	// workload, as a share of MoveCost.
	siblingCost = 0.5
)

// Thresholds are the load above which a node is overutilized, as fractions of what the
// node can allocate.
type Thresholds = cluster.Utilization

// Weights mix the strategies. The load above the thresholds always counts. The
// zero value means Balance 1.
type Weights struct {
	// Balance makes even loads cheaper than uneven ones.
	Balance float64
	// Consolidate makes empty nodes cheaper than used ones.
	Consolidate float64
	// Defragment makes room that holds whole shapes cheaper than room that does not.
	Defragment float64
}

func (w Weights) orBalance() Weights {
	if w == (Weights{}) {
		return Weights{Balance: 1}
	}
	return w
}

func (w Weights) sum() float64 { return w.Balance + w.Consolidate + w.Defragment }

// Objective prices nodes. Scheduler and planner share it, so that they never
// pull in different directions.
type Objective struct {
	Thresholds Thresholds
	Weights    Weights
	// Shapes are the pieces that free room should be able to hold.
	Shapes []cluster.Resources
}

// NodeState is what the objective reads of a node.
type NodeState struct {
	// Allocatable is what pods may request, Used the measured load, Requested what
	// pods request.
	Allocatable, Used, Requested cluster.Resources
	// Evictable is the part of Requested that would have to leave before the node
	// is empty.
	Evictable cluster.Resources
	// Pinned reports that a pod on the node cannot leave: it costs the same whatever
	// comes or goes.
	Pinned bool
}

// NodeCost prices a node: what it uses above the thresholds weighs heavily,
// the square of the load and what is stranded a little. Consolidation adds a
// price for being in use, defragmentation one for free room that holds no whole
// shape. A resource that the node has none of costs nothing.
func (o Objective) NodeCost(n NodeState) float64 {
	w := o.Weights.orBalance()
	part := func(amount, of int64) float64 { return cluster.Fraction(amount, of) }
	free := n.Allocatable.Sub(n.Requested)
	cost := loadCost(part(n.Used.MilliCPU, n.Allocatable.MilliCPU), o.Thresholds.CPU, w.Balance) +
		loadCost(part(n.Used.Memory, n.Allocatable.Memory), o.Thresholds.Memory, w.Balance) +
		w.sum()*strandedCost(part(free.MilliCPU, n.Allocatable.MilliCPU), part(free.Memory, n.Allocatable.Memory))
	if w.Consolidate > 0 {
		cost += w.Consolidate * occupiedCost(max(part(n.Evictable.MilliCPU, n.Allocatable.MilliCPU), part(n.Evictable.Memory, n.Allocatable.Memory)), n.Pinned)
	}
	if w.Defragment > 0 && len(o.Shapes) > 0 {
		index := newResourceIndex(o.Shapes, n.Allocatable)
		shapes := newShapes(o.Shapes, index)
		cost += w.Defragment * shapes.waste(index.vector(free), inverses(index.vector(n.Allocatable)))
	}
	return cost
}

func loadCost(load, threshold, balance float64) float64 {
	return overloadWeight*max(0, load-threshold) + balance*load*load
}

// strandedCost prices what is left of one resource and cannot be used for want
// of the other.
func strandedCost(freeCPU, freeMemory float64) float64 {
	return strandedWeight * math.Abs(max(0, freeCPU)-max(0, freeMemory))
}

// occupiedCost prices a node of which the share used is taken by pods that would
// have to leave.
func occupiedCost(used float64, pinned bool) float64 {
	if pinned {
		return occupiedWeight
	}
	if used <= 0 {
		return 0
	}
	return occupiedWeight * used / (used + occupiedHalf)
}

// shape is one piece as a vector; only its positive amounts count.
type shape struct {
	resources []int
	amounts   []int64
}

type shapes []shape

func newShapes(list []cluster.Resources, index *resourceIndex) shapes {
	var all shapes
	for _, r := range list {
		var one shape
		for i, amount := range index.vector(r) {
			if amount > 0 {
				one.resources, one.amounts = append(one.resources, i), append(one.amounts, amount)
			}
		}
		if len(one.resources) > 0 {
			all = append(all, one)
		}
	}
	return all
}

// waste is the share of a node that is free and holds no whole shape: free
// modulo shape, averaged over the resources of a shape and over the shapes.
// inverse is one over what the node can allocate of each resource.
func (all shapes) waste(free []int64, inverse []float64) float64 {
	var sum float64
	for _, one := range all {
		whole := int64(math.MaxInt64)
		for i, r := range one.resources {
			whole = min(whole, max(0, free[r])/one.amounts[i])
		}
		for i, r := range one.resources {
			sum += float64(max(0, free[r])-whole*one.amounts[i]) * inverse[r] / float64(len(one.resources)*len(all))
		}
	}
	return sum
}

// total is the free room that waste is a part of, counted in the same way.
func (all shapes) total(free []int64, inverse []float64) float64 {
	var sum float64
	for _, one := range all {
		for _, r := range one.resources {
			sum += float64(max(0, free[r])) * inverse[r] / float64(len(one.resources)*len(all))
		}
	}
	return sum
}

func inverses(amounts []int64) []float64 {
	all := make([]float64, len(amounts))
	for i, amount := range amounts {
		if amount > 0 {
			all[i] = 1 / float64(amount)
		}
	}
	return all
}

// resourceIndex numbers resources: CPU, memory, then the others by name.
type resourceIndex struct {
	seen  map[corev1.ResourceName]bool
	names []corev1.ResourceName
}
