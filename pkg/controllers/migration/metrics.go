package migration

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
)

// Metrics of the controller. All that do not ask the cache count what this process
// wrote down, so a query takes the sum over the replicas.
type Metrics struct {
	finished      *prometheus.CounterVec
	phaseDuration *prometheus.HistogramVec
	downtime      prometheus.Histogram
	budgetWait    prometheus.Histogram
	carriedBytes  prometheus.Counter
	freedCPU      prometheus.Counter
	freedMemory   prometheus.Counter
}

// NewMetrics registers the metrics of the controller. cached lists the migrations
// that have not ended, with each scrape; it may be nil, and finds none then.
func NewMetrics(registerer prometheus.Registerer, cached client.Reader) *Metrics {
	m := &Metrics{
		finished: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ai_storage_migration_finished_total",
			Help: "Migrations that ended, by their final phase and reason.",
		}, []string{"result", "reason"}),
		phaseDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ai_storage_migration_phase_duration_seconds",
			Help:    "How long migrations were in each phase.",
			Buckets: prometheus.ExponentialBuckets(0.25, 2, 13),
		}, []string{"phase"}),
		downtime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "ai_storage_migration_downtime_seconds",
			Help:    "Time in which neither original nor replacement could work, of migrations that succeeded; 0 when they overlapped.",
			Buckets: append([]float64{0}, prometheus.ExponentialBuckets(0.25, 2, 12)...),
		}),
		budgetWait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "ai_storage_migration_budget_wait_seconds",
			Help:    "How long migrations that had to wait for their place in the budget were pending.",
			Buckets: prometheus.ExponentialBuckets(0.5, 2, 13),
		}),
		carriedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ai_storage_migration_carried_bytes_total",
			Help: "Content of emptyDir volumes that migrations which succeeded took along.",
		}),
		freedCPU: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ai_storage_migration_freed_cpu_cores_total",
			Help: "CPU that replacements request less than their originals did, in cores.",
		}),
		freedMemory: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ai_storage_migration_freed_memory_bytes_total",
			Help: "Memory that replacements request less than their originals did.",
		}),
	}
	if registerer != nil {
		registerer.MustRegister(m.finished, m.phaseDuration, m.downtime, m.budgetWait, m.carriedBytes, m.freedCPU, m.freedMemory)
		registerer.MustRegister(unfinishedMetrics(cached)...)
		registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ai_storage_migration_kept_claims",
			Help: "Checkpoint claims that have the only copy of a pod's state, which a failed migration has kept. Every replica reports the same.",
		}, func() float64 { return float64(keptClaims(cached)) }))
	}
	return m
}

// unfinishedMetrics ask the cache, so that what a dead controller left behind is
// seen too.
func unfinishedMetrics(cached client.Reader) []prometheus.Collector {
	var all []prometheus.Collector
	for _, phase := range v1alpha1.UnfinishedPhases {
		labels := prometheus.Labels{"phase": string(phase)}
		all = append(all,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "ai_storage_migration_in_flight", ConstLabels: labels,
				Help: "Migrations that have not ended, by phase. Every replica reports the same.",
			}, func() float64 { return float64(len(inPhase(cached, phase))) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "ai_storage_migration_oldest_phase_age_seconds", ConstLabels: labels,
				Help: "How long the migration that has been in a phase for the longest time has been in it; 0 when there is none. Every replica reports the same.",
			}, func() float64 { return oldest(inPhase(cached, phase), time.Now()).Seconds() }))
	}
	return all
}

func inPhase(cached client.Reader, phase v1alpha1.Phase) []v1alpha1.PodMigration {
	var found []v1alpha1.PodMigration
	for _, m := range allIn(cached) {
		if m.CurrentPhase() == phase {
			found = append(found, m)
		}
	}
	return found
}

// keptClaims counts the migrations whose claim has the only copy. Each has a claim of its own.
func keptClaims(cached client.Reader) (kept int) {
	all := allIn(cached)
	for i := range all {
		if isKeeping(&all[i]) {
			kept++
		}
	}
	return kept
}

func allIn(cached client.Reader) []v1alpha1.PodMigration {
	list := &v1alpha1.PodMigrationList{}
	if cached == nil || cached.List(context.Background(), list, client.UnsafeDisableDeepCopy) != nil {
		// The cache has not started, or is about to end.
		return nil
	}
	return list.Items
}

func oldest(migrations []v1alpha1.PodMigration, now time.Time) time.Duration {
	var age time.Duration
	for i := range migrations {
		if entered := migrations[i].PhaseSince(); !entered.IsZero() {
			age = max(age, now.Sub(entered))
		}
	}
	return age
}

// observe counts a change of phase that was written down.
func (x *Metrics) observe(before, after *v1alpha1.PodMigration) {
	from, to := before.CurrentPhase(), after.CurrentPhase()
	if from == to {
		return
	}
	if entered := before.PhaseSince(); !entered.IsZero() {
		if left := after.PhaseSince(); left.After(entered) {
			x.phaseDuration.WithLabelValues(string(from)).Observe(left.Sub(entered).Seconds())
			if from == v1alpha1.PhasePending && waitedForBudget(before) {
				x.budgetWait.Observe(left.Sub(entered).Seconds())
			}
		}
	}
	if to.IsFinished() {
		x.finished.WithLabelValues(string(to), finalReason(after)).Inc()
	}
	if to == v1alpha1.PhaseSucceeded {
		x.observeSuccess(after.Status)
	}
}

func (x *Metrics) observeSuccess(s v1alpha1.PodMigrationStatus) {
	if s.Downtime != nil {
		x.downtime.Observe(s.Downtime.Seconds())
	}
	if s.Checkpoint != nil && s.Checkpoint.Source != nil {
		x.carriedBytes.Add(float64(s.Checkpoint.Source.Bytes))
	}
	if s.Before != nil && s.After != nil {
		x.freedCPU.Add(freed(s, corev1.ResourceCPU))
		x.freedMemory.Add(freed(s, corev1.ResourceMemory))
	}
}

// freed is by how much the requests shrank, in the unit of the resource. A
// counter cannot count back where they grew.
func freed(s v1alpha1.PodMigrationStatus, name corev1.ResourceName) float64 {
	left := s.Before.Requests[name].DeepCopy()
	left.Sub(s.After.Requests[name])
	return max(0, left.AsApproximateFloat64())
}

func waitedForBudget(m *v1alpha1.PodMigration) bool {
	c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionAccepted)
	return c != nil && c.Status == metav1.ConditionFalse && c.Reason == decide.ReasonWaitingForBudget
}
