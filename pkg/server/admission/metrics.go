package admission

import "github.com/prometheus/client_golang/prometheus"

// What became of a pod that the webhook was asked about.
const (
	outcomeRewritten = "rewritten"
	outcomePassed    = "passed"
	outcomeFailed    = "failed"
)

// Metrics of the webhook.
type Metrics struct{ pods *prometheus.CounterVec }

// NewMetrics registers the metrics of the webhook; a nil registerer registers none.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{pods: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ai_storage_admission_pods_total",
		Help: "Pods that the webhook was asked about: rewritten to a replacement, passed because no migration expects them, or failed and passed unchanged.",
	}, []string{"outcome"})}
	for _, outcome := range []string{outcomeRewritten, outcomePassed, outcomeFailed} {
		m.pods.WithLabelValues(outcome)
	}
	if registerer != nil {
		registerer.MustRegister(m.pods)
	}
	return m
}

func (m *Metrics) observe(outcome string) { m.pods.WithLabelValues(outcome).Inc() }
