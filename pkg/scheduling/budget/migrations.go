package budget

import (
	"cmp"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// MoveOf describes a migration to the ledger: where the pod was found, or is
// said to be, and the best that is known of where it goes.
func MoveOf(m *v1alpha1.PodMigration) Move {
	move := Move{
		Namespace: m.Namespace,
		Workload:  WorkloadOf(m.Namespace, m.Spec.PodName, nil),
		From:      m.Spec.SourceNode,
		To:        cmp.Or(m.Spec.TargetNode, m.Spec.PlannedNode),
	}
	if handover := m.Status.Handover; handover != nil {
		move.Workload = WorkloadOf(m.Namespace, m.Spec.PodName, handover.Owner)
	}
	if original := m.Status.Original; original != nil {
		move.From = cmp.Or(original.NodeName, move.From)
	}
	if replacement := m.Status.Replacement; replacement != nil {
		move.To = cmp.Or(replacement.NodeName, move.To)
	}
	return move
}

// WorkloadOf names the workload of a pod: its controller, or the pod itself when
// it has none.
func WorkloadOf(namespace, pod string, controller *metav1.OwnerReference) string {
	if controller == nil {
		return "Pod/" + namespace + "/" + pod
	}
	return controller.Kind + "/" + namespace + "/" + controller.Name
}

// IsDisruptive reports whether a migration may still change where pods run: it
// has not finished and its original is not gone yet.
func IsDisruptive(m *v1alpha1.PodMigration) bool {
	return !m.Status.Phase.IsFinished() && !meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionHandedOver)
}

// HoldsPlace reports whether a migration was given a place in the budget that
// it has not given back.
func HoldsPlace(m *v1alpha1.PodMigration) bool {
	return IsDisruptive(m) && meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionAccepted)
}
