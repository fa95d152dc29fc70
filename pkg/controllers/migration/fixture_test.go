package migration

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) *metav1.MicroTime { return ptr.To(metav1.NewMicroTime(t0.Add(-d))) }

func originalPod() *corev1.Pod {
	return fixture.MakePod("train").Node("a").RestartPolicy(corev1.RestartPolicyNever).Container("serve", fixture.Running()).Obj()
}

// in is a migration in a phase, with the times of those before.
func in(phase v1alpha1.Phase) *v1alpha1.PodMigration {
	m := &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "m", UID: "m", Generation: 1,
			Finalizers: []string{v1alpha1.Finalizer}, CreationTimestamp: metav1.NewTime(t0.Add(-time.Minute))},
		Spec: v1alpha1.PodMigrationSpec{PodName: "train", TimeoutSeconds: 600},
	}
	if phase == "" || phase == v1alpha1.PhasePending {
		return m
	}
	m.Status = v1alpha1.PodMigrationStatus{
		Phase: phase, Original: &v1alpha1.PodReference{Name: "train", UID: "uid-train", NodeName: "a"},
		Replacement: &v1alpha1.PodReference{Name: "train-r"}, CheckpointClaim: "checkpoint",
		Handover:   &v1alpha1.Handover{Method: v1alpha1.MethodCreate, Order: v1alpha1.OrderStartFirst},
		Checkpoint: &v1alpha1.CheckpointStatus{Mode: v1alpha1.CheckpointFrozen, Attempt: 1},
		Times:      v1alpha1.StepTimes{Started: ago(50 * time.Second)},
	}
	if phase == v1alpha1.PhasePreparing {
		return m
	}
	m.Status.Times.Prepared = ago(40 * time.Second)
	if phase == v1alpha1.PhasePlacing {
		return m
	}
	m.Status.Times.HandingOver = ago(20 * time.Second)
	m.Status.Times.ReplacementReady = m.Status.Times.HandingOver
	return m
}

// with sets a condition of a migration.
func with(m *v1alpha1.PodMigration, kind string, status metav1.ConditionStatus, reason string) *v1alpha1.PodMigration {
	meta.SetStatusCondition(&m.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: "why", LastTransitionTime: metav1.NewTime(t0)})
	return m
}
