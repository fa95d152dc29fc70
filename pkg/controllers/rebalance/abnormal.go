package rebalance

import (
	"maps"
	"slices"
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

// abnormality counts for how many cycles in a row each node has been overutilized. It is
// kept in memory alone: a restarted loop waits again, which is the safe side.
//
// Overutilized counts by the smoothed load. The load that plans are made with also holds
// the peaks of the window, so it stays high for a while after a load has gone.
type abnormality struct {
	source  string
	streaks map[string]streak
}

type streak struct {
	cycles int
	// at is the last measurement that was counted: a cycle that sees nothing new
	// counts for nothing.
	at time.Time
}

// watch takes in the snapshot of one cycle.
func (a *abnormality) watch(snapshot *cluster.Snapshot, args *config.RebalanceArgs) {
	if a.source != snapshot.Source {
		a.source, a.streaks = snapshot.Source, nil
	}
	limits := overutilizedLimits(snapshot, args)
	streaks := map[string]streak{}
	for _, node := range snapshot.Nodes {
		if !hasOwnLoad(node) || !isAbove(node, limits[node.Pool]) {
			continue
		}
		s := a.streaks[node.Name]
		if node.Smoothed.At.After(s.at) {
			s = streak{cycles: s.cycles + 1, at: node.Smoothed.At}
		}
		streaks[node.Name] = s
	}
	a.streaks = streaks
}

// sources are the nodes that have been overutilized for so many cycles.
func (a *abnormality) sources(cycles int) map[string]bool {
	found := map[string]bool{}
	for name, s := range a.streaks {
		if s.cycles >= cycles {
			found[name] = true
		}
	}
	return found
}

// AbnormalNode is a node that is overutilized.
type AbnormalNode struct {
	Name string `json:"name"`
	// Cycles in a row in which it was overutilized by a new measurement.
	Cycles int `json:"cycles"`
}

// list the overutilized nodes by name.
func (a *abnormality) list() []AbnormalNode {
	nodes := []AbnormalNode{}
	for _, name := range slices.Sorted(maps.Keys(a.streaks)) {
		nodes = append(nodes, AbnormalNode{name, a.streaks[name].cycles})
	}
	return nodes
}

// hasOwnLoad tells whether the load of a node is its own. While it is stabilizing it
// may be judged, though not yet acted upon.
func hasOwnLoad(node *cluster.Node) bool {
	return node.Smoothed != nil && (node.Skipped == "" || node.Stabilizing)
}

// overutilizedLimits are the loads above which a node is overutilized, for each pool.
func overutilizedLimits(snapshot *cluster.Snapshot, args *config.RebalanceArgs) map[int]planner.Thresholds {
	limits := map[int]planner.Thresholds{}
	counts := map[int]float64{}
	for _, node := range snapshot.Nodes {
		if !hasOwnLoad(node) {
			continue
		}
		load := loadOf(node)
		sum := limits[node.Pool]
		limits[node.Pool] = planner.Thresholds{CPU: sum.CPU + load.CPU, Memory: sum.Memory + load.Memory}
		counts[node.Pool]++
	}
	thresholds := Thresholds(args)
	for pool, sum := range limits {
		if args.Thresholds.Mode == config.ThresholdsDeviation {
			n := counts[pool]
			limits[pool] = planner.Thresholds{CPU: sum.CPU/n + thresholds.CPU, Memory: sum.Memory/n + thresholds.Memory}
		} else {
			limits[pool] = thresholds
		}
	}
	return limits
}

func isAbove(node *cluster.Node, limit planner.Thresholds) bool {
	load := loadOf(node)
	return load.CPU > limit.CPU || load.Memory > limit.Memory
}

// loadOf is the smoothed load as fractions of what the node can allocate.
func loadOf(node *cluster.Node) planner.Thresholds {
	return planner.Thresholds{
		CPU:    fraction(node.Smoothed.MilliCPU, node.Allocatable.MilliCPU),
		Memory: fraction(node.Smoothed.Memory, node.Allocatable.Memory),
	}
}

func fraction(used, allocatable int64) float64 {
	if allocatable <= 0 {
		return 0
	}
	return float64(used) / float64(allocatable)
}
