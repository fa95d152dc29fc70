package v1alpha1

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Phases are all phases, in the order of a migration; the final ones come last.
var Phases = slices.Concat(UnfinishedPhases, []Phase{PhaseSucceeded, PhaseFailed, PhaseCancelled})

// UnfinishedPhases are those that a migration goes through before it ends.
var UnfinishedPhases = []Phase{PhasePending, PhasePreparing, PhasePlacing, PhaseHandingOver}

// CurrentPhase is the phase of a migration: Pending before the controller has
// written one.
func (m *PodMigration) CurrentPhase() Phase { return cmp.Or(m.Status.Phase, PhasePending) }

// PhaseSpan is the time that a migration was in one phase.
//
// +kubebuilder:object:generate=false
type PhaseSpan struct {
	Phase Phase
	// Start is zero where it was never written; End is zero while the phase lasts,
	// and for the phase that a migration ended in.
	Start, End time.Time
}

// PhaseSpans are the phases that a migration has entered, in order. A phase that a
// rollback cut short ends with the migration. No span ends before its start: a
// creation is stored in whole seconds, the other moments are not.
func (m *PodMigration) PhaseSpans() []PhaseSpan {
	t := m.Status.Times
	spans := []PhaseSpan{{Phase: PhasePending, Start: m.CreationTimestamp.Time}}
	for _, next := range []struct {
		phase Phase
		at    *metav1.MicroTime
	}{{PhasePreparing, t.Started}, {PhasePlacing, t.Prepared}, {PhaseHandingOver, t.HandingOver}, {m.Status.Phase, t.Finished}} {
		if next.at == nil {
			continue
		}
		last := &spans[len(spans)-1]
		last.End = next.at.Time
		if last.End.Before(last.Start) {
			last.End = last.Start
		}
		spans = append(spans, PhaseSpan{Phase: next.phase, Start: next.at.Time})
	}
	return spans
}

// PhaseSince is when a migration entered its current phase; zero where that was not
// written.
func (m *PodMigration) PhaseSince() time.Time {
	for _, span := range m.PhaseSpans() {
		if span.Phase == m.CurrentPhase() {
			return span.Start
		}
	}
	return time.Time{}
}
