package migration

import (
	"slices"
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Next decides the next step of a migration. It is pure: the same state gives
// the same decision.
func Next(s State) Decision {
	st := newStep(&s)
	m := s.Migration
	switch {
	case m.Status.Phase.IsFinished():
		return st.finished()
	case !slices.Contains(m.Finalizers, v1alpha1.Finalizer):
		if m.DeletionTimestamp != nil {
			return st.decision
		}
		return st.do(Action{Type: AddFinalizer})
	case s.isRollingBack():
		return st.rollback()
	case s.wantsStop() && !s.isCommitted():
		return st.stop()
	}
	switch m.Status.Phase {
	case v1alpha1.PhasePreparing:
		return st.preparing()
	case v1alpha1.PhasePlacing:
		return st.placing()
	case v1alpha1.PhaseHandingOver:
		return st.handingOver()
	default:
		return st.pending()
	}
}

// finished cleans up the record itself. What is finished has nothing left to
// put back: its record can go at any time, also when no controller runs.
func (st *step) finished() Decision {
	m := st.Migration
	if slices.Contains(m.Finalizers, v1alpha1.Finalizer) {
		return st.do(Action{Type: RemoveFinalizer})
	}
	if m.DeletionTimestamp != nil {
		return st.decision
	}
	if m.Spec.TTLSecondsAfterFinished == nil || m.Status.Times.Finished == nil {
		return st.decision
	}
	expires := m.Status.Times.Finished.Add(time.Duration(*m.Spec.TTLSecondsAfterFinished) * time.Second)
	if st.Now.Before(expires) {
		st.decision.Wait = expires.Sub(st.Now)
		return st.decision
	}
	return st.do(Action{Type: DeleteMigration})
}

func (st *step) stop() Decision {
	message := "cancelled on request"
	if st.Migration.DeletionTimestamp != nil {
		message = "cancelled because the PodMigration is being deleted"
	}
	if st.Migration.Status.Phase == "" || st.Migration.Status.Phase == v1alpha1.PhasePending {
		st.event(false, nil, ReasonCancelled, message)
		return st.finish(v1alpha1.PhaseCancelled, message)
	}
	return st.giveUp(ReasonCancelled, message)
}
