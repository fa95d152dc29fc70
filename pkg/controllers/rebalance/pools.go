package rebalance

import (
	"cmp"
	"context"
	"slices"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

// makePlan plans each node pool by itself, so that moves and means stay within
// it. What the pools share (budget, cap on moves, what the scheduler has seen) is
// handed from one to the next. No pools is one of all nodes.
func makePlan(ctx context.Context, snapshot *cluster.Snapshot, feasibility planner.Feasibility, pools int, options planner.Options) (*planner.Plan, error) {
	if pools <= 1 {
		return planner.Make(ctx, snapshot, feasibility, options)
	}
	var whole *planner.Plan
	left := options.MaxMoves
	for pool := range pools {
		options.MaxMoves = max(1, left)
		plan, err := planner.Make(ctx, onlyPool(snapshot, pool), feasibility, options)
		if err != nil {
			return nil, err
		}
		if left <= 0 {
			// Nothing is left to do in this pool but to say that its nodes stay overutilized.
			plan.Moves, plan.After = nil, plan.Before
		}
		left -= len(plan.Moves)
		whole = join(whole, plan, nodesOf(snapshot, pool))
	}
	return whole, nil
}

// onlyPool is the snapshot in which the nodes of other pools are skipped.
func onlyPool(snapshot *cluster.Snapshot, pool int) *cluster.Snapshot {
	only := *snapshot
	only.Nodes = make([]*cluster.Node, len(snapshot.Nodes))
	for i, node := range snapshot.Nodes {
		if node.Pool != pool && node.Skipped == "" {
			copied := *node
			copied.Skipped = "the node is in another node pool"
			node = &copied
		}
		only.Nodes[i] = node
	}
	return &only
}

func nodesOf(snapshot *cluster.Snapshot, pool int) map[string]bool {
	names := map[string]bool{}
	for _, node := range snapshot.Nodes {
		// Nodes in no pool are reported with the first.
		if node.Pool == pool || (node.Pool < 0 && pool == 0) {
			names[node.Name] = true
		}
	}
	return names
}

// join adds the plan of one pool to those before it.
func join(whole, plan *planner.Plan, pool map[string]bool) *planner.Plan {
	if whole == nil {
		whole = &planner.Plan{SnapshotTime: plan.SnapshotTime, Moves: []planner.Move{}, Source: plan.Source}
		whole.Before, whole.After = plan.Before, plan.Before
		whole.Before.Nodes, whole.After.Nodes = []planner.NodeLoad{}, []planner.NodeLoad{}
	}
	before := len(whole.Moves)
	for _, move := range plan.Moves {
		for i := range move.After {
			move.After[i] += before
		}
		whole.Moves = append(whole.Moves, move)
	}
	whole.After.Objective += plan.After.Objective - plan.Before.Objective
	whole.After.Fragmentation += plan.After.Fragmentation - plan.Before.Fragmentation
	whole.Before.Nodes = joinLoads(whole.Before.Nodes, plan.Before.Nodes, pool)
	whole.After.Nodes = joinLoads(whole.After.Nodes, plan.After.Nodes, pool)
	for _, summary := range []*planner.Summary{&whole.Before, &whole.After} {
		var cpu, memory []float64
		for _, node := range summary.Nodes {
			cpu, memory = append(cpu, node.CPU), append(memory, node.Memory)
		}
		summary.CPUDeviation, summary.MemoryDeviation = cluster.Deviation(cpu), cluster.Deviation(memory)
	}
	for _, overutilized := range plan.StillOverutilized {
		if pool[overutilized.Name] {
			whole.StillOverutilized = append(whole.StillOverutilized, overutilized)
		}
	}
	return whole
}

// joinLoads adds the nodes of one pool, and keeps the order of names.
func joinLoads(loads, more []planner.NodeLoad, pool map[string]bool) []planner.NodeLoad {
	for _, load := range more {
		if pool[load.Name] {
			loads = append(loads, load)
		}
	}
	slices.SortFunc(loads, func(a, b planner.NodeLoad) int { return cmp.Compare(a.Name, b.Name) })
	return loads
}
