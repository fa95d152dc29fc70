package planner

import (
	"context"
	"math"

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

// limits are the thresholds in force, and the load up to which a node may take
// pods. The latter is lower: a node filled to the brim would be overutilized with the
// next measurement, and give away what it was given.
type limits struct{ overutilized, fill [2]float64 }

// fillShare is how much of an absolute threshold a destination may use.
const fillShare = 0.95

func limitsOf(options Options, nodes []node) limits {
	if options.Deviation == nil {
		t := options.Thresholds
		return limits{overutilized: [2]float64{t.CPU, t.Memory}, fill: [2]float64{fillShare * t.CPU, fillShare * t.Memory}}
	}
	var mean [2]float64
	count := 0.0
	for i := range nodes {
		if nodes[i].usable {
			count++
			for d := range mean {
				mean[d] += float64(nodes[i].load[d]) * nodes[i].inverse[d]
			}
		}
	}
	var l limits
	for d, above := range [2]float64{options.Deviation.CPU, options.Deviation.Memory} {
		m := mean[d] / math.Max(1, count)
		l.overutilized[d], l.fill[d] = m+above, m+above/2
	}
	return l
}
