package kubectl

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// asked is a migration of pod trainer that nobody has looked at.
func asked(name string, ago time.Duration) *v1alpha1.PodMigration {
	return &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: types.UID("uid-" + name), Generation: 1,
			CreationTimestamp: metav1.NewTime(noon.Add(-ago)), Labels: map[string]string{v1alpha1.CreatedByLabel: createdByKubectl},
		},
		Spec: v1alpha1.PodMigrationSpec{PodName: "trainer", SourceNode: "node-a", TimeoutSeconds: 600, Reason: "requested with kubectl migrate"},
	}
}

func condition(m *v1alpha1.PodMigration, kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&m.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(noon)})
}

// accept brings a migration to the phase Preparing.
func accept(m *v1alpha1.PodMigration) {
	st := &m.Status
	st.Phase, st.Message = v1alpha1.PhasePreparing, "preparing to move pod trainer away from node node-a"
	st.Times.Started = at(0.5)
	st.Original = &v1alpha1.PodReference{Name: "trainer", UID: "uid-trainer", NodeName: "node-a"}
	st.Replacement = &v1alpha1.PodReference{Name: "trainer-migrated-1"}
	st.Handover = &v1alpha1.Handover{Method: v1alpha1.MethodCreate, Order: v1alpha1.OrderStopFirst, Reason: "what is in work is carried on a claim that two nodes cannot use at once"}
	st.CheckpointClaim = "checkpoint-trainer-1"
	st.Checkpoint = &v1alpha1.CheckpointStatus{Mode: v1alpha1.CheckpointFrozen, Volumes: []string{"work"}, Source: &v1alpha1.SourceReport{Bytes: 12 << 20, Files: 34}}
	st.Containers = []v1alpha1.ContainerVerdict{
		{Name: "prepare", Kind: v1alpha1.KindContainer, State: v1alpha1.StateCompleted, Reason: "Completed", Message: "finished with exit code 0 and will not restart: left out, its requests are freed"},
		{Name: "train", Kind: v1alpha1.KindContainer, State: v1alpha1.StateRunning, ShouldMigrate: true, Reason: "Running", Message: "is running"},
	}
	condition(m, v1alpha1.ConditionAccepted, metav1.ConditionTrue, "Accepted", "the pod can be moved and has a place in the budget")
}

func place(m *v1alpha1.PodMigration) {
	m.Status.Phase, m.Status.Message = v1alpha1.PhasePlacing, "waiting for the scheduler"
	m.Status.Times.Prepared = at(1.5)
	m.Status.Before = &v1alpha1.ResourceRecord{
		Requests: fixture.Amounts("1500m", "3Gi"), Usage: fixture.Amounts("420m", "800Mi"), Source: v1alpha1.UsageFromMetricsAPI,
	}
	m.Status.Before.Requests["nvidia.com/gpu"] = resource.MustParse("1")
}

func handOver(m *v1alpha1.PodMigration) {
	m.Status.Phase, m.Status.Message = v1alpha1.PhaseHandingOver, "the place on node node-b is held, handing over"
	m.Status.Times.Placed, m.Status.Times.HandingOver = at(2), at(3)
	m.Status.Replacement.UID, m.Status.Replacement.NodeName = "uid-new", "node-b"
	condition(m, v1alpha1.ConditionPlaced, metav1.ConditionTrue, "Placed", "bound to node node-b")
}

func succeed(m *v1alpha1.PodMigration) {
	m.Status.Phase, m.Status.Message = v1alpha1.PhaseSucceeded, "moved from node node-a to node node-b as pod trainer-migrated-1; requests freed: cpu 1, memory 2Gi"
	m.Status.Times.OriginalGone, m.Status.Times.Finished = at(4), at(8.25)
	m.Status.Downtime = &metav1.Duration{Duration: 1234 * time.Millisecond}
	m.Status.After = &v1alpha1.ResourceRecord{Requests: fixture.Amounts("500m", "1Gi"), Usage: fixture.Amounts("400m", "760Mi"), Source: v1alpha1.UsageFromMetricsAPI}
	condition(m, v1alpha1.ConditionHandedOver, metav1.ConditionTrue, "HandedOver", "the original is gone")
}

func rollBack(m *v1alpha1.PodMigration) {
	m.Status.Phase, m.Status.Message = v1alpha1.PhaseFailed, "the scheduler found no place for the replacement: 0/2 nodes are available"
	m.Status.Times.Finished = at(33)
	condition(m, v1alpha1.ConditionRolledBack, metav1.ConditionTrue, "Unschedulable", "everything the migration made was removed")
}

func cancelled(m *v1alpha1.PodMigration) {
	m.Status.Phase, m.Status.Message = v1alpha1.PhaseCancelled, "cancelled on request"
	m.Status.Times.Finished = at(2)
	condition(m, v1alpha1.ConditionRolledBack, metav1.ConditionTrue, "Cancelled", "everything the migration made was removed")
}

// through is a migration that has gone through some steps.
func through(m *v1alpha1.PodMigration, steps ...func(*v1alpha1.PodMigration)) *v1alpha1.PodMigration {
	for _, step := range steps {
		step(m)
	}
	return m
}

func event(m *v1alpha1.PodMigration, name, reason, message string, ago time.Duration) *corev1.Event {
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: m.Namespace, Name: name},
		InvolvedObject: corev1.ObjectReference{UID: m.UID}, Type: corev1.EventTypeNormal, Reason: reason, Message: message,
		EventTime: metav1.NewMicroTime(noon.Add(-ago)),
	}
}
