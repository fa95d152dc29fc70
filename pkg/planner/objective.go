package planner

import "github.com/ai-storage/orchestrator/pkg/cluster"

const (
	// overloadWeight prices one whole node's worth of load above the threshold
	// against the square of the load, which is at most 1.
	overloadWeight = 10.0
	// MoveCost is what a move must gain at least. It equals taking half a percent
	// of a node off the load above a threshold.
	MoveCost = 0.05
)

// Thresholds are the load above which a node is hot, as fractions of what the
// node can allocate.
type Thresholds struct {
	CPU    float64
	Memory float64
}

// Weights of the strategies against each other.
type Weights struct {
	Balance, Consolidate, Defragment float64
}

// aboveMean turns a deviation into thresholds: that much above the mean load of
// the measured nodes that are not left alone.
func aboveMean(nodes []*cluster.Node, deviation Thresholds) Thresholds {
	var sum Thresholds
	n := 0.0
	for _, node := range nodes {
		if node.Measured == nil || node.LeftAlone != "" {
			continue
		}
		sum.CPU += fraction(node.Measured.MilliCPU, node.Allocatable.MilliCPU)
		sum.Memory += fraction(node.Measured.Memory, node.Allocatable.Memory)
		n++
	}
	if n == 0 {
		return Thresholds{CPU: 1, Memory: 1}
	}
	return Thresholds{CPU: sum.CPU/n + deviation.CPU, Memory: sum.Memory/n + deviation.Memory}
}

// NodeCost prices the load of a node: what is above the thresholds weighs
// heavily, and the square of the load makes even loads cheaper than uneven
// ones. A resource that the node has none of costs nothing.
func NodeCost(allocatable, used cluster.Resources, thresholds Thresholds) float64 {
	return loadCost(fraction(used.MilliCPU, allocatable.MilliCPU), thresholds.CPU) +
		loadCost(fraction(used.Memory, allocatable.Memory), thresholds.Memory)
}

func loadCost(load, threshold float64) float64 {
	return overloadWeight*max(0, load-threshold) + load*load
}

func fraction(used, allocatable int64) float64 {
	if allocatable <= 0 {
		return 0
	}
	return float64(used) / float64(allocatable)
}
