package checkpointvolume

import (
	"sync"
	"time"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// What a replacement waits for before it is bound.
const (
	stepFree   = "free"
	stepAttach = "attach"
)

var (
	waits = metrics.NewHistogramVec(&metrics.HistogramOpts{
		Name:           "ai_storage_checkpoint_volume_wait_duration_seconds",
		Help:           "How long pods waited before they were bound: until their claims were bound and free on other nodes, and until the volumes were attached to the chosen one.",
		Buckets:        metrics.ExponentialBuckets(0.1, 2, 12),
		StabilityLevel: metrics.ALPHA,
	}, []string{"step"})
	attachFailures = metrics.NewCounter(&metrics.CounterOpts{
		Name:           "ai_storage_checkpoint_volume_attach_failures_total",
		Help:           "Attaches of volumes that failed, after which the node is left out for a while.",
		StabilityLevel: metrics.ALPHA,
	})
)

// Metrics of the plugin, which kube-scheduler serves with its own.
var Metrics = []metrics.Registerable{waits, attachFailures}

var registerMetrics = sync.OnceFunc(func() { legacyregistry.MustRegister(Metrics...) })

func waited(step string, since time.Time) {
	waits.WithLabelValues(step).Observe(time.Since(since).Seconds())
}
