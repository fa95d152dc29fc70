package migration

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
)

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
		return decide.ReasonSucceeded
	}
	if c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionRolledBack); c != nil {
		return c.Reason
	}
	for _, kind := range []string{v1alpha1.ConditionReplacementReady, v1alpha1.ConditionAccepted} {
		if c := meta.FindStatusCondition(m.Status.Conditions, kind); c != nil && c.Status == metav1.ConditionFalse && c.Reason != decide.ReasonWaitingForBudget {
			return c.Reason
		}
	}
	return decide.ReasonCancelled
}

// report sends the events of a decision, once its status is written.
func (r *reconciler) report(m *v1alpha1.PodMigration, d *decide.Decision) {
	for _, e := range d.Events {
		kind := corev1.EventTypeNormal
		if e.Warning {
			kind = corev1.EventTypeWarning
		}
		if e.Pod == nil {
			r.recorder.Eventf(m, nil, kind, e.Reason, "Migrate", "%s", e.Message)
			continue
		}
		r.recorder.Eventf(m, e.Pod, kind, e.Reason, "Migrate", "%s", e.Message)
		r.recorder.Eventf(e.Pod, m, kind, e.Reason, "Migrate", "%s", e.Message)
	}
}
