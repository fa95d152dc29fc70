package rebalance

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/budget"
	"github.com/ai-storage/orchestrator/pkg/observe"
	"github.com/ai-storage/orchestrator/pkg/planner"
)

// ObserveOptions says what the loop may touch, by the arguments.
func ObserveOptions(args *config.RebalanceArgs) (observe.Options, error) {
	nodes := labels.Everything()
	if args.NodeSelector != nil {
		var err error
		if nodes, err = metav1.LabelSelectorAsSelector(args.NodeSelector); err != nil {
			return observe.Options{}, fmt.Errorf("nodeSelector: %w", err)
		}
	}
	return observe.Options{
		SchedulerName:   v1alpha1.SchedulerName,
		Nodes:           nodes,
		MetricsMaxAge:   args.MetricsMaxAge.Duration,
		MinimumPodAge:   args.MinimumPodAge.Duration,
		Cooldown:        args.Cooldown.Duration,
		PriorityCeiling: args.PriorityCeiling,
		Assessments:     observe.NewAssessments(),
	}, nil
}

// Thresholds converts percentages to fractions.
func Thresholds(args *config.RebalanceArgs) planner.Thresholds {
	return planner.Thresholds{CPU: float64(args.Thresholds.CPU) / 100, Memory: float64(args.Thresholds.Memory) / 100}
}

// Limits are the budget of the arguments.
func Limits(args *config.RebalanceArgs) budget.Limits {
	return budget.Limits{
		InFlight:     int(args.Budget.MaxInFlight),
		PerNode:      int(args.Budget.MaxInFlightPerNode),
		PerNamespace: int(args.Budget.MaxInFlightPerNamespace),
		PerWorkload:  int(args.Budget.MaxInFlightPerWorkload),
	}
}
