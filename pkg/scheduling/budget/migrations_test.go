package budget

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// A migration that names a node is counted there until it is known better.
func TestMoveOf(t *testing.T) {
	spec := v1alpha1.PodMigrationSpec{PodName: "p", SourceNode: "asked-source", PlannedNode: "planned"}
	targeted := spec
	targeted.TargetNode = "target"
	at := func(node string) *v1alpha1.PodReference { return &v1alpha1.PodReference{Name: "p", NodeName: node} }
	tests := []struct {
		name     string
		spec     v1alpha1.PodMigrationSpec
		status   v1alpha1.PodMigrationStatus
		from, to string
	}{
		{"nothing is named", v1alpha1.PodMigrationSpec{PodName: "p"}, v1alpha1.PodMigrationStatus{}, "", ""},
		{"planned", spec, v1alpha1.PodMigrationStatus{}, "asked-source", "planned"},
		{"a target counts more than a plan", targeted, v1alpha1.PodMigrationStatus{}, "asked-source", "target"},
		{"accepted, not placed yet", spec, v1alpha1.PodMigrationStatus{Original: at("a"), Replacement: at("")}, "a", "planned"},
		{"placed elsewhere", spec, v1alpha1.PodMigrationStatus{Original: at("a"), Replacement: at("b")}, "a", "b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: tt.spec, Status: tt.status}
			want := Move{Namespace: "ns", Workload: "Pod/ns/p", From: tt.from, To: tt.to}
			if diff := cmp.Diff(want, MoveOf(m)); diff != "" {
				t.Errorf("move (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhichMigrationsCount(t *testing.T) {
	condition := func(kind string, status metav1.ConditionStatus) metav1.Condition {
		return metav1.Condition{Type: kind, Status: status}
	}
	accepted, handedOver := condition(v1alpha1.ConditionAccepted, "True"), condition(v1alpha1.ConditionHandedOver, "True")
	tests := []struct {
		name              string
		phase             v1alpha1.Phase
		conditions        []metav1.Condition
		disruptive, holds bool
	}{
		{"new", "", nil, true, false},
		{"waiting for its place", v1alpha1.PhasePending, []metav1.Condition{condition(v1alpha1.ConditionAccepted, "False")}, true, false},
		{"accepted", v1alpha1.PhasePreparing, []metav1.Condition{accepted}, true, true},
		{"eviction is blocked", v1alpha1.PhaseHandingOver, []metav1.Condition{accepted, condition(v1alpha1.ConditionHandedOver, "False")}, true, true},
		{"rolling back", v1alpha1.PhasePlacing, []metav1.Condition{accepted, condition(v1alpha1.ConditionRolledBack, "False")}, true, true},
		{"the original is gone", v1alpha1.PhaseHandingOver, []metav1.Condition{accepted, handedOver}, false, false},
		{"succeeded", v1alpha1.PhaseSucceeded, []metav1.Condition{accepted, handedOver}, false, false},
		{"failed", v1alpha1.PhaseFailed, []metav1.Condition{accepted}, false, false},
		{"cancelled", v1alpha1.PhaseCancelled, []metav1.Condition{accepted}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := &v1alpha1.PodMigration{Status: v1alpha1.PodMigrationStatus{Phase: tt.phase, Conditions: tt.conditions}}
			if got := IsDisruptive(m); got != tt.disruptive {
				t.Errorf("IsDisruptive = %t", got)
			}
			if got := HoldsPlace(m); got != tt.holds {
				t.Errorf("HoldsPlace = %t", got)
			}
		})
	}
}
