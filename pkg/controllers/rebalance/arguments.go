package rebalance

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/observe"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

// ObserveOptions says what the loop may touch, by the arguments, with signals
// that know nothing yet, where node agents run.
func ObserveOptions(args *config.RebalanceArgs) (observe.Options, error) {
	nodes := labels.Everything()
	if args.NodeSelector != nil {
		var err error
		if nodes, err = metav1.LabelSelectorAsSelector(args.NodeSelector); err != nil {
			return observe.Options{}, fmt.Errorf("nodeSelector: %w", err)
		}
	}
	pools := make([]labels.Selector, len(args.NodePools))
	for i := range args.NodePools {
		var err error
		if pools[i], err = metav1.LabelSelectorAsSelector(&args.NodePools[i]); err != nil {
			return observe.Options{}, fmt.Errorf("nodePools[%d]: %w", i, err)
		}
	}
	return observe.Options{
		SchedulerName:   v1alpha1.SchedulerName,
		Nodes:           nodes,
		Pools:           pools,
		MetricsMaxAge:   args.MetricsMaxAge.Duration,
		MinimumSamples:  int(args.AbnormalCycles),
		MinimumPodAge:   args.MinimumPodAge.Duration,
		Cooldown:        args.Cooldown.Duration,
		MaxCooldown:     args.MaxCooldown.Duration,
		PriorityCeiling: args.PriorityCeiling,
		CarriesState:    true,
		MetricsHistory: observe.NewMetricsHistory(observe.MetricsHistoryOptions{
			HalfLife:   args.Signals.HalfLife.Duration,
			Window:     args.Signals.Window.Duration,
			Percentile: int(args.Signals.Percentile),
		}),
		Assessments: observe.NewAssessments(),
	}, nil
}

// Defragments reports whether room for the shapes of pods counts.
func Defragments(args *config.RebalanceArgs) bool { return weights(args.Strategies).Defragment > 0 }

// PrometheusOptions of the arguments; nil when the metrics API is asked.
func PrometheusOptions(args *config.RebalanceArgs) *observe.PrometheusOptions {
	prometheus := args.Signals.Prometheus
	if prometheus == nil {
		return nil
	}
	return &observe.PrometheusOptions{
		URL:             prometheus.URL,
		BearerTokenFile: prometheus.BearerTokenFile,
		NodeCPU:         prometheus.Queries.NodeCPU,
		NodeMemory:      prometheus.Queries.NodeMemory,
		PodCPU:          prometheus.Queries.PodCPU,
		PodMemory:       prometheus.Queries.PodMemory,
		Range:           prometheus.Queries.Range.Duration,
		Window:          args.Signals.Window.Duration,
		Step:            args.Interval.Duration,
	}
}

// planningOptions are those of one plan, but for the sources.
func planningOptions(args *config.RebalanceArgs, observation *observe.Observation) planner.Options {
	options := planner.Options{
		Weights:     weights(args.Strategies),
		Thresholds:  Thresholds(args),
		MinimumGain: args.MinimumGain,
		MaxMoves:    int(args.Budget.MaxMovesPerCycle),
		Budget:      ledger(args, observation.Migrations),
	}
	if args.Thresholds.Mode == config.ThresholdsDeviation {
		deviation := options.Thresholds
		options.Deviation = &deviation
	}
	if options.Weights.Defragment > 0 {
		// Pods that wait for room now come before those that may.
		options.Shapes = observe.PendingShapes(observation.Pods, v1alpha1.SchedulerName)
		for _, shape := range args.Shapes {
			options.Shapes = append(options.Shapes, cluster.ResourcesOf(shape))
		}
	}
	return options
}

// weights of the strategies, which together are 1: how expensive a move is does not
// depend on how they are written.
func weights(strategies []config.Strategy) planner.Weights {
	sum := 0.0
	for _, strategy := range strategies {
		sum += float64(strategy.Weight)
	}
	var w planner.Weights
	for _, strategy := range strategies {
		share := float64(strategy.Weight) / sum
		switch strategy.Name {
		case config.StrategyBalance:
			w.Balance = share
		case config.StrategyConsolidate:
			w.Consolidate = share
		case config.StrategyDefragment:
			w.Defragment = share
		}
	}
	return w
}

// Thresholds converts percentages to fractions. In mode Deviation they count
// from the mean.
func Thresholds(args *config.RebalanceArgs) cluster.Utilization {
	return cluster.Percent(args.Thresholds.CPU, args.Thresholds.Memory)
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
