package rebalance

import (
	"maps"
	"slices"
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// overutilizationTracker counts for how many consecutive cycles each node has been
// overutilized. It is kept in memory alone: a restarted loop waits again, which is
// the safe side.
//
// It goes by the smoothed load, and the planner by the measured one: see
// cluster.Node.IsOverutilized.
type overutilizationTracker struct {
	source string
	nodes  map[string]consecutive
}

// consecutive is how often in a row a node was overutilized.
type consecutive struct {
	cycles int
	// at is the last measurement that was counted: a cycle that sees nothing new
	// counts for nothing.
	at time.Time
}

// record takes in the snapshot of one cycle.
func (t *overutilizationTracker) record(snapshot *cluster.Snapshot, args *config.RebalanceArgs) {
	if t.source != snapshot.Source {
		t.source, t.nodes = snapshot.Source, nil
	}
	limits := overutilizedLimits(snapshot, args)
	nodes := map[string]consecutive{}
	for _, node := range snapshot.Nodes {
		if !hasOwnLoad(node) || !node.IsOverutilized(node.Smoothed.MilliCPU, node.Smoothed.Memory, limits[node.Pool]) {
			continue
		}
		c := t.nodes[node.Name]
		if node.Smoothed.At.After(c.at) {
			c = consecutive{cycles: c.cycles + 1, at: node.Smoothed.At}
		}
		nodes[node.Name] = c
	}
	t.nodes = nodes
}

// sources are the nodes that have been overutilized for so many cycles.
func (t *overutilizationTracker) sources(cycles int) map[string]bool {
	found := map[string]bool{}
	for name, c := range t.nodes {
		if c.cycles >= cycles {
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
func (t *overutilizationTracker) list() []AbnormalNode {
	nodes := []AbnormalNode{}
	for _, name := range slices.Sorted(maps.Keys(t.nodes)) {
		nodes = append(nodes, AbnormalNode{name, t.nodes[name].cycles})
	}
	return nodes
}

// hasOwnLoad reports whether the load of a node is its own. While it is stabilizing
// it may be watched, though not yet acted upon.
func hasOwnLoad(node *cluster.Node) bool {
	return node.Smoothed != nil && (node.Skipped == "" || node.Stabilizing)
}

// overutilizedLimits are the loads above which a node is overutilized, for each pool.
func overutilizedLimits(snapshot *cluster.Snapshot, args *config.RebalanceArgs) map[int]cluster.Utilization {
	loads := map[int][]cluster.Utilization{}
	for _, node := range snapshot.Nodes {
		if hasOwnLoad(node) {
			loads[node.Pool] = append(loads[node.Pool], node.Utilization(node.Smoothed.MilliCPU, node.Smoothed.Memory))
		}
	}
	limits := map[int]cluster.Utilization{}
	for pool := range loads {
		limits[pool] = cluster.OverutilizedAbove(Thresholds(args), args.Thresholds.Mode == config.ThresholdsDeviation, loads[pool])
	}
	return limits
}
