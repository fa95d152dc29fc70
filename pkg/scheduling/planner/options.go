package planner

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// Feasibility answers for the scheduler: it holds the pods of the snapshot in
// their places and lets the planner try changes.
type Feasibility interface {
	// Fits reports whether the scheduler would put the pod on the node; if not,
	// refusal is the scheduler's own reason.
	Fits(ctx context.Context, pod *corev1.Pod, node string) (refusal string, err error)
	// Place makes the pod hold its place on the node from now on.
	Place(pod *corev1.Pod, node string) error
	// Remove takes a pod off its node: one that was placed, or one of the snapshot.
	Remove(pod *corev1.Pod) error
}

// Options tune a plan.
type Options struct {
	// Weights mix the strategies.
	Weights Weights
	// Thresholds are the loads above which a node is overutilized.
	Thresholds Thresholds
	// Deviation, when set, takes the place of Thresholds: a node is overutilized above the
	// mean load plus Deviation, the mean taken over the nodes that the planner may
	// touch.
	Deviation *Thresholds
	// Shapes are the pieces that free room should be able to hold; Defragment
	// needs them.
	Shapes []cluster.Resources
	// Sources are the overutilized nodes that may give pods away; nil means all of them.
	// Consolidation and defragmentation do not ask for it.
	Sources map[string]bool
	// MinimumGain is how many times its cost a move must gain. Less than 1 counts
	// as 1: a plan never costs more than it brings.
	MinimumGain float64
	// MaxMoves caps the plan.
	MaxMoves int
	// Budget limits what is disrupted at once; nil sets no limit. The planner adds
	// its moves to it. All moves of a plan count, also those that wait for others.
	Budget *budget.Ledger
	// Seed of the search.
	Seed uint64
}

// limits are the load above which a node is overutilized, and the load up to which a
// node may take pods. The latter is lower: a node filled to the brim would be
// overutilized with the next measurement, and give away what it was given.
type limits struct{ overutilized, fill cluster.Utilization }

// fillShare is how much of an absolute threshold a destination may use.
const fillShare = 0.95

// limitsOf takes the mean, where thresholds count from it, over the measured loads of
// the nodes that a plan may touch (cluster.Node.IsOverutilized says why).
func limitsOf(options Options, nodes []node) limits {
	if options.Deviation == nil {
		return limits{overutilized: options.Thresholds, fill: options.Thresholds.Times(fillShare)}
	}
	var loads []cluster.Utilization
	for i := range nodes {
		if n := &nodes[i]; n.usable {
			loads = append(loads, n.Utilization(n.load[0], n.load[1]))
		}
	}
	return limits{
		overutilized: cluster.OverutilizedAbove(*options.Deviation, true, loads),
		fill:         cluster.OverutilizedAbove(options.Deviation.Times(0.5), true, loads),
	}
}
