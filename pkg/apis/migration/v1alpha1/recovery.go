package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// KeepsOnlyCopy reports whether the claim of a migration has the only copy of the state.
func (m *PodMigration) KeepsOnlyCopy() bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, ConditionCheckpointKept)
}

// Recovery is the migration that starts the pod of a failed one again, from the claim that
// has the only copy. pod is the name of the pod to start, "" that of the original;
// keepClaim is whether the claim stays when that pod is gone, nil as the failed migration
// was asked to. Who requests it adds labels and what else is wished.
func (m *PodMigration) Recovery(pod string, keepClaim *bool) *PodMigration {
	if pod == "" {
		pod = m.Spec.PodName
		if original := m.Status.Original; original != nil {
			pod = original.Name
		}
	}
	policy := m.Spec.Checkpoint.ReclaimPolicy
	if keepClaim != nil {
		policy = ClaimDelete
		if *keepClaim {
			policy = ClaimRetain
		}
	}
	return &PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: m.Namespace, GenerateName: pod + "-"},
		Spec:       PodMigrationSpec{PodName: pod, RecoverFrom: m.Name, Checkpoint: CheckpointSpec{ReclaimPolicy: policy}},
	}
}
