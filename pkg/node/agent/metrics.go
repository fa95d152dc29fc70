package agent

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/transfer"
)

// Passes over the volumes of a pod.
const (
	passCopy    = "copy"
	passSeal    = "seal"
	passReceive = "receive"
	passAdopt   = "adopt"
	passRestore = "restore"
)

var passes = []string{passCopy, passSeal, passReceive, passAdopt, passRestore}

// Metrics of an agent.
type Metrics struct {
	passes  *prometheus.CounterVec
	written *prometheus.CounterVec
	freezes prometheus.Histogram
	errors  *prometheus.CounterVec
	refused prometheus.Counter
}

// NewMetrics registers the metrics of an agent; a nil registerer registers none.
// With each scrape frozen is asked how many pods the agent keeps frozen, overdue how many
// of them for longer than they may be.
func NewMetrics(registerer prometheus.Registerer, frozen, overdue func() float64) *Metrics {
	m := &Metrics{
		passes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ai_storage_node_agent_passes_total",
			Help: "Passes over the volumes of pods that were finished: copy and seal on the source node, receive on the destination; adopt gave a replacement what waited there, restore what was on its claim.",
		}, []string{"pass"}),
		written: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ai_storage_node_agent_written_bytes_total",
			Help: "Content that finished passes sent (copy and seal), received (receive) or read from a claim (restore).",
		}, []string{"pass"}),
		freezes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "ai_storage_node_agent_freeze_duration_seconds",
			Help:    "How long pods were frozen for the last copy, from the freezing to the seal.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 13),
		}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ai_storage_node_agent_errors_total",
			Help: "Failures that the agent reported to the migration, by their reason.",
		}, []string{"reason"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ai_storage_node_agent_refused_connections_total",
			Help: "Connections that the agent refused, since no migration expects who made them or what they sent.",
		}),
	}
	for _, pass := range passes {
		m.passes.WithLabelValues(pass)
		m.written.WithLabelValues(pass)
	}
	if registerer != nil {
		registerer.MustRegister(m.passes, m.written, m.freezes, m.errors, m.refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ai_storage_node_agent_frozen_pods",
			Help: "Pods that the agent keeps frozen now.",
		}, frozen), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ai_storage_node_agent_frozen_pods_overdue",
			Help: "Pods that are frozen for longer than their migration allows, before their replacement was released, or whose migration has failed while the released replacement may still run.",
		}, overdue))
	}
	return m
}

func (m *Metrics) passed(pass string, r transfer.PassResult) {
	m.passes.WithLabelValues(pass).Inc()
	m.written.WithLabelValues(pass).Add(float64(r.Written))
}

// ended counts a connection that has ended, by its reason.
func (m *Metrics) ended(reason string) {
	if reason == transfer.ReasonRefused || reason == transfer.ReasonCorrupt {
		m.refused.Inc()
	}
}

func (m *Metrics) froze(from, to time.Time) { m.freezes.Observe(to.Sub(from).Seconds()) }

// failed counts a failure and returns its reason.
func (m *Metrics) failed(failure error) string {
	reason := transfer.ReasonOf(failure)
	if errors.Is(failure, context.DeadlineExceeded) {
		reason = v1alpha1.ReportFreezeTooLong
	}
	m.errors.WithLabelValues(reason).Inc()
	return reason
}
