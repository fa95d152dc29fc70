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

// Metrics of the loop.
type Metrics struct {
	planDuration prometheus.Histogram
	moves        *prometheus.CounterVec
	deviation    *prometheus.GaugeVec
	objective    prometheus.Gauge
	hotNodes     prometheus.Gauge
	leftAlone    prometheus.Gauge
	coolingDown  prometheus.Gauge
	breaker      *prometheus.GaugeVec
	paused       prometheus.Gauge
}

// NewMetrics registers the metrics of the loop.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
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
			Help: "Standard deviation of measured node load, as a fraction of allocatable.",
		}, []string{"resource"}),
		objective: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ai_storage_rebalance_objective",
			Help: "Cost of the observed cluster in the planner's objective; lower is better.",
		}),
		hotNodes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ai_storage_rebalance_hot_nodes",
			Help: "Nodes whose load is above a threshold.",
		}),
		leftAlone: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ai_storage_rebalance_nodes_left_alone",
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
			Help: "1 while somebody has paused the loop: it plans, and begins no migrations.",
		}),
	}
	registerer.MustRegister(m.planDuration, m.moves, m.deviation, m.objective, m.hotNodes, m.leftAlone, m.coolingDown, m.breaker, m.paused)
	return m
}

func (m *Metrics) observe(status *Status, took time.Duration) {
	plan := status.Plan
	m.paused.Set(0)
	if status.Paused != nil {
		m.paused.Set(1)
	}
	m.leftAlone.Set(float64(len(status.LeftAlone)))
	m.coolingDown.Set(float64(len(status.Cooldowns)))
	for _, state := range []BreakerState{BreakerClosed, BreakerOpen, BreakerTrying} {
		value := 0.0
		if state == status.Breaker.State {
			value = 1
		}
		m.breaker.WithLabelValues(string(state)).Set(value)
	}
	m.planDuration.Observe(took.Seconds())
	m.deviation.WithLabelValues("cpu").Set(plan.Before.CPUDeviation)
	m.deviation.WithLabelValues("memory").Set(plan.Before.MemoryDeviation)
	m.objective.Set(plan.Before.Objective)
	hot := 0
	for _, node := range plan.Before.Nodes {
		if node.Hot {
			hot++
		}
	}
	m.hotNodes.Set(float64(hot))
}
