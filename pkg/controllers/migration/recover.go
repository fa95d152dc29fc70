package migration

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
)

// isKeeping reports whether a migration has ended with the only copy of the state.
func isKeeping(m *v1alpha1.PodMigration) bool {
	return m.Status.Phase.IsFinished() && m.KeepsOnlyCopy()
}

// gatherRecovery reads what a recovery is checked against, and then what it has made. It
// has no original.
func (r *reconciler) gatherRecovery(ctx context.Context, s *decide.State) error {
	m := s.Migration
	if m.Status.Phase != "" && m.Status.Phase != v1alpha1.PhasePending {
		return r.gatherMade(ctx, s)
	}
	var err error
	if s.Failed, err = read(ctx, r.live, m.Namespace, m.Spec.RecoverFrom, &v1alpha1.PodMigration{}); err != nil || s.Failed == nil {
		return err
	}
	if claim := s.Failed.Status.CheckpointClaim; claim != "" {
		if s.Claim, err = read(ctx, r.live, m.Namespace, claim, &corev1.PersistentVolumeClaim{}); err != nil {
			return err
		}
	}
	if s.Replacement, err = read(ctx, r.live, m.Namespace, m.Spec.PodName, &corev1.Pod{}); err != nil {
		return err
	}
	if err := r.gatherRequested(ctx, s); err != nil {
		return err
	}
	neighbours := &corev1.PodList{}
	if err := r.live.List(ctx, neighbours, client.InNamespace(m.Namespace)); err != nil {
		return err
	}
	s.Neighbours = neighbours.Items
	return nil
}

// sealsNext reports whether the last copy is asked for next: from then on it has to be
// known what the pod was.
func sealsNext(m *v1alpha1.PodMigration) bool {
	c := m.Status.Checkpoint
	return m.Status.Phase == v1alpha1.PhaseHandingOver && c.Carries() && c.Step == v1alpha1.StepCopy
}

// gatherStored reads the original as it is stored, unless it was recreated.
func (r *reconciler) gatherStored(ctx context.Context, s *decide.State) error {
	stored, err := readStored(ctx, r.live, s.Pod.Namespace, s.Pod.Name)
	if err == nil && stored != nil && stored.GetUID() == s.Pod.UID {
		s.Stored = runtime.DeepCopyJSON(stored.Object)
	}
	return err
}
