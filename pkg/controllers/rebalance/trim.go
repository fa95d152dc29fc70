package rebalance

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

// maxStatusBytes keeps the published status below what one object may hold in
// etcd (1.5 MiB by default, of which a ConfigMap may use 1 MiB).
const maxStatusBytes = 900 << 10

// keptOfEach is how many entries of each list a status keeps that is too large
// even without the nodes that do not matter.
const keptOfEach = 500

// encodeStatus writes a status in at most limit bytes. What has to be left out for
// that is named in Trimmed.
func encodeStatus(status *Status, limit int) ([]byte, error) {
	encoded, err := json.Marshal(status)
	if err != nil || len(encoded) <= limit {
		return encoded, err
	}
	trimmed := *status
	plan := *status.Plan
	trimmed.Plan = &plan
	matter := nodesThatMatter(status)
	all := len(plan.Before.Nodes)
	plan.Before.Nodes, plan.After.Nodes = only(plan.Before.Nodes, matter), only(plan.After.Nodes, matter)
	trimmed.Trimmed = fmt.Sprintf("%d of %d nodes are shown: those that are overutilized or that a move touches", len(plan.Before.Nodes), all)
	for kept := keptOfEach; ; kept /= 2 {
		if encoded, err = json.Marshal(&trimmed); err != nil || len(encoded) <= limit {
			return encoded, err
		}
		if kept == 0 {
			return nil, fmt.Errorf("it has %d bytes with nothing left to leave out, and may have %d", len(encoded), limit)
		}
		plan.Before.Nodes, plan.After.Nodes = first(plan.Before.Nodes, kept), first(plan.After.Nodes, kept)
		plan.StillOverutilized, plan.Moves = first(plan.StillOverutilized, kept), first(plan.Moves, kept)
		trimmed.Skipped, trimmed.Abnormal = first(status.Skipped, kept), first(status.Abnormal, kept)
		trimmed.Cooldowns = first(status.Cooldowns, kept)
		trimmed.Trimmed = fmt.Sprintf("the lists are shown to their first %d entries; the plan has %d moves and saw %d nodes", kept, status.Moves, all)
	}
}

// nodesThatMatter are overutilized, or a move comes from or goes to them.
func nodesThatMatter(status *Status) map[string]bool {
	matter := map[string]bool{}
	for _, summary := range []planner.Summary{status.Plan.Before, status.Plan.After} {
		for _, node := range summary.Nodes {
			if node.Overutilized {
				matter[node.Name] = true
			}
		}
	}
	for _, move := range status.Plan.Moves {
		matter[move.From], matter[move.To] = true, true
	}
	return matter
}

func only(nodes []planner.NodeLoad, matter map[string]bool) []planner.NodeLoad {
	return slices.DeleteFunc(slices.Clone(nodes), func(node planner.NodeLoad) bool { return !matter[node.Name] })
}

func first[T any](list []T, n int) []T { return list[:min(n, len(list))] }
