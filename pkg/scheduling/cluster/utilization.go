package cluster

import "math"

// Utilization is CPU and memory as fractions of what a node can allocate: a load,
// or the threshold of one.
type Utilization struct {
	CPU    float64
	Memory float64
}

// Percent turns whole percentages into fractions.
func Percent(cpu, memory int32) Utilization {
	return Utilization{CPU: float64(cpu) / 100, Memory: float64(memory) / 100}
}

// Plus adds both fractions.
func (u Utilization) Plus(other Utilization) Utilization {
	return Utilization{CPU: u.CPU + other.CPU, Memory: u.Memory + other.Memory}
}

// Times multiplies both fractions.
func (u Utilization) Times(factor float64) Utilization {
	return Utilization{CPU: u.CPU * factor, Memory: u.Memory * factor}
}

// MeanUtilization of some nodes, each of which counts the same whatever its size; 0 of
// none.
func MeanUtilization(loads []Utilization) Utilization {
	var sum Utilization
	for _, load := range loads {
		sum = sum.Plus(load)
	}
	n := math.Max(1, float64(len(loads)))
	return Utilization{CPU: sum.CPU / n, Memory: sum.Memory / n}
}

// Utilization is a load of the node, in thousandths of a core and bytes, as
// fractions of what it can allocate; of a node that can allocate nothing it is 0.
func (n *Node) Utilization(milliCPU, memory int64) Utilization {
	return Utilization{CPU: Fraction(milliCPU, n.Allocatable.MilliCPU), Memory: Fraction(memory, n.Allocatable.Memory)}
}

// IsOverutilized is the rule by which a node is overutilized, for whoever asks: its
// CPU or its memory is above the limit. A load of exactly the limit is not.
//
// The limit is that of the thresholds, or their distance above the mean of the
// nodes that take part (OverutilizedAbove). Which load counts depends on what is
// decided:
//
//   - Whether a node has been overutilized for long enough to give pods away: its
//     Smoothed load (pkg/controllers/rebalance, overutilizationTracker). It falls
//     soon after a load has gone, so a peak that is over does not count as another
//     cycle. Nodes that are Stabilizing take part: a node may be watched before it may
//     be changed.
//   - What a plan relieves, and how far: its Measured load (pkg/scheduling/planner),
//     which holds the peaks of the window as well, since a destination must bear
//     them. Only nodes that are not Skipped take part: a plan touches no other.
//
// So a node whose smoothed load has just fallen may be above the limit in a plan,
// and gives nothing away; one whose smoothed load rises is above it in both.
func (n *Node) IsOverutilized(milliCPU, memory int64, limit Utilization) bool {
	return Fraction(milliCPU, n.Allocatable.MilliCPU) > limit.CPU || Fraction(memory, n.Allocatable.Memory) > limit.Memory
}

// OverutilizedAbove is the limit of IsOverutilized: the thresholds themselves, or,
// where they count from the mean, the mean of the loads plus the thresholds.
func OverutilizedAbove(thresholds Utilization, fromMean bool, loads []Utilization) Utilization {
	if !fromMean {
		return thresholds
	}
	return MeanUtilization(loads).Plus(thresholds)
}

// Fraction is used / allocatable, and 0 where nothing can be allocated.
func Fraction(used, allocatable int64) float64 {
	if allocatable <= 0 {
		return 0
	}
	return float64(used) / float64(allocatable)
}

// Deviation is the population standard deviation; 0 of no values.
func Deviation(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	var mean float64
	for _, v := range values {
		mean += v / float64(len(values))
	}
	var variance float64
	for _, v := range values {
		variance += (v - mean) * (v - mean) / float64(len(values))
	}
	return math.Sqrt(variance)
}
