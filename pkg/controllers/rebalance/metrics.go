package rebalance

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What became of a planned move.
const (
	outcomeCreated = "created"
	outcomeStale   = "stale"
)

// How a cycle ended.
const (
	resultPlanned = "planned"
	resultFailed  = "failed"
)

// When a figure is of: now, or predicted for the end of the plan.
const (
	stateBefore    = "before"
	statePredicted = "predicted"
)

// Metrics of the loop. Only the leader plans: those of another replica stay 0, so
// a query takes the largest.
type Metrics struct {
	cycles            *prometheus.CounterVec
	lastCycle         prometheus.Gauge
	metricsAge        prometheus.Gauge
	planDuration      prometheus.Histogram
	moves             *prometheus.CounterVec
	deviation         *prometheus.GaugeVec
	objective         *prometheus.GaugeVec
	overutilizedNodes prometheus.Gauge
	skipped           prometheus.Gauge
	coolingDown       prometheus.Gauge
	breaker           *prometheus.GaugeVec
	paused            prometheus.Gauge
}

// NewMetrics registers the metrics of the loop.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		cycles: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ai_storage_rebalance_cycles_total",
			Help: "Cycles of the loop, by result: planned, or failed.",
		}, []string{"result"}),
		lastCycle: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ai_storage_rebalance_last_cycle_timestamp_seconds",
			Help: "When the last cycle that made a plan observed the cluster, in seconds since 1970.",
		}),
		metricsAge: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ai_storage_rebalance_metrics_age_seconds",
			Help: "Age of the oldest of the last measurements of all nodes, in the last cycle; 0 where nothing measures.",
		}),
		planDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "ai_storage_rebalance_plan_duration_seconds",
			Help:    "Time to observe the cluster and make a plan.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 14),
		}),
		moves: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ai_storage_rebalance_moves_total",
			Help: "Planned moves, by what became of them: created as a PodMigration, or stale when validated.",
		}, []string{"outcome"}),
		deviation: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ai_storage_rebalance_node_load_deviation_ratio",
			Help: "Standard deviation of node load as a fraction of allocatable: before the plan, and predicted for its end.",
		}, []string{"resource", "state"}),
		objective: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ai_storage_rebalance_objective",
			Help: "Cost of the cluster in the planner's objective, before the plan and predicted for its end; lower is better.",
		}, []string{"state"}),
		overutilizedNodes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ai_storage_rebalance_overutilized_nodes",
			Help: "Nodes whose load is above a threshold.",
		}),
		skipped: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ai_storage_rebalance_nodes_skipped",
			Help: "Nodes that no pod is moved from or to; the status says why.",
		}),
		coolingDown: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ai_storage_rebalance_workloads_cooling_down",
			Help: "Workloads that stay where they are since a migration of them ended not long ago.",
		}),
		breaker: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ai_storage_rebalance_circuit_breaker",
			Help: "1 for the state that the circuit breaker is in, 0 for the others.",
		}, []string{"state"}),
		paused: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ai_storage_rebalance_paused",
			Help: "1 while a user has paused the loop: it plans, and begins no migrations.",
		}),
	}
	for _, result := range []string{resultPlanned, resultFailed} {
		m.cycles.WithLabelValues(result)
	}
	registerer.MustRegister(m.cycles, m.lastCycle, m.metricsAge, m.planDuration, m.moves, m.deviation, m.objective, m.overutilizedNodes, m.skipped, m.coolingDown, m.breaker, m.paused)
	return m
}

func (m *Metrics) observe(status *Status, took time.Duration) {
	plan := status.Plan
	m.paused.Set(0)
	if status.Paused != nil {
		m.paused.Set(1)
	}
	m.skipped.Set(float64(len(status.Skipped)))
	m.coolingDown.Set(float64(len(status.Cooldowns)))
	for _, state := range []BreakerState{BreakerClosed, BreakerOpen, BreakerTrying} {
		value := 0.0
		if state == status.Breaker.State {
			value = 1
		}
		m.breaker.WithLabelValues(string(state)).Set(value)
	}
	m.planDuration.Observe(took.Seconds())
	m.cycles.WithLabelValues(resultPlanned).Inc()
	m.lastCycle.Set(float64(status.Time.UnixMilli()) / 1000)
	m.metricsAge.Set(status.metricsAge.Seconds())
	for state, figures := range map[string]Prediction{stateBefore: status.Before, statePredicted: status.After} {
		m.deviation.WithLabelValues("cpu", state).Set(figures.CPUDeviation)
		m.deviation.WithLabelValues("memory", state).Set(figures.MemoryDeviation)
		m.objective.WithLabelValues(state).Set(figures.Objective)
	}
	overutilized := 0
	for _, node := range plan.Before.Nodes {
		if node.Overutilized {
			overutilized++
		}
	}
	m.overutilizedNodes.Set(float64(overutilized))
}
