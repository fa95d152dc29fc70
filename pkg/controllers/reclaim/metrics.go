package reclaim

import "github.com/prometheus/client_golang/prometheus"

// What became of a resize.
const (
	outcomeReclaimed = "reclaimed"
	outcomeGivenBack = "given_back"
	outcomeRefused   = "refused"
)

// Metrics of the controller.
type Metrics struct {
	cpu, memory prometheus.Counter
	resizes     *prometheus.CounterVec
}

// NewMetrics registers the metrics of the controller.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		cpu: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ai_storage_reclaim_cpu_cores_total",
			Help: "CPU requests of finished containers that were reclaimed in place, in cores.",
		}),
		memory: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ai_storage_reclaim_memory_bytes_total",
			Help: "Memory requests of finished containers that were reclaimed in place.",
		}),
		resizes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ai_storage_reclaim_resizes_total",
			Help: "Resizes of pods, by outcome: reclaimed, given_back to a container that starts again, or refused.",
		}, []string{"outcome"}),
	}
	registerer.MustRegister(m.cpu, m.memory, m.resizes)
	return m
}
