package migration

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

var (
	migrationsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ai_storage_migration_migrations_total",
		Help: "Migrations that ended, by their final phase and reason.",
	}, []string{"result", "reason"})

	phaseDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "ai_storage_migration_phase_duration_seconds",
		Help:    "How long migrations were in each phase.",
		Buckets: prometheus.ExponentialBuckets(0.25, 2, 13),
	}, []string{"phase"})
)

func init() { metrics.Registry.MustRegister(migrationsTotal, phaseDuration) }

// observePhase counts a change of phase that was written down.
func observePhase(before, after *v1alpha1.PodMigration) {
	from, to := before.Status.Phase, after.Status.Phase
	if from == to {
		return
	}
	if entered := enteredAt(before); !entered.IsZero() && from != "" {
		if left := enteredAt(after); left.After(entered) {
			phaseDuration.WithLabelValues(string(from)).Observe(left.Sub(entered).Seconds())
		}
	}
	if to.IsFinished() {
		migrationsTotal.WithLabelValues(string(to), finalReason(after)).Inc()
	}
}

// enteredAt is when a migration came into its phase.
func enteredAt(m *v1alpha1.PodMigration) time.Time {
	t := m.Status.Times
	switch m.Status.Phase {
	case v1alpha1.PhasePending:
		return m.CreationTimestamp.Time
	case v1alpha1.PhasePreparing:
		return orZero(t.Started)
	case v1alpha1.PhasePlacing:
		return orZero(t.Prepared)
	case v1alpha1.PhaseHandingOver:
		return orZero(t.HandingOver)
	default:
		return orZero(t.Finished)
	}
}

// ReasonOf is the CamelCase reason of where a migration is: what ended it, or
// else the condition that changed last. "" before there is one.
func ReasonOf(m *v1alpha1.PodMigration) string {
	if m.Status.Phase.IsFinished() {
		return finalReason(m)
	}
	var last metav1.Condition
	for _, c := range m.Status.Conditions {
		if !c.LastTransitionTime.Before(&last.LastTransitionTime) {
			last = c
		}
	}
	return last.Reason
}

// finalReason is the reason of the condition that ended a migration.
func finalReason(m *v1alpha1.PodMigration) string {
	if m.Status.Phase == v1alpha1.PhaseSucceeded {
		return ReasonSucceeded
	}
	if c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionRolledBack); c != nil {
		return c.Reason
	}
	for _, kind := range []string{v1alpha1.ConditionReplacementReady, v1alpha1.ConditionAccepted} {
		if c := meta.FindStatusCondition(m.Status.Conditions, kind); c != nil && c.Status == metav1.ConditionFalse && c.Reason != ReasonWaitingForBudget {
			return c.Reason
		}
	}
	return ReasonCancelled
}

func orZero(t *metav1.MicroTime) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}

// report sends the events of a decision, once its status is written.
func (r *reconciler) report(m *v1alpha1.PodMigration, d *Decision) {
	for _, e := range d.Events {
		kind := corev1.EventTypeNormal
		if e.Warning {
			kind = corev1.EventTypeWarning
		}
		note := cut(e.Message, maxEventNote)
		if e.Pod == nil {
			r.recorder.Eventf(m, nil, kind, e.Reason, "Migrate", "%s", note)
			continue
		}
		r.recorder.Eventf(m, e.Pod, kind, e.Reason, "Migrate", "%s", note)
		r.recorder.Eventf(e.Pod, m, kind, e.Reason, "Migrate", "%s", note)
	}
}
