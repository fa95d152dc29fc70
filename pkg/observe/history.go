package observe

import (
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/budget"
	"github.com/ai-storage/orchestrator/pkg/cluster"
)

// history is what the migrations say of the recent past. It is read from the
// objects, so it survives restarts.
type history struct {
	// inFlight are the nodes that a migration is about to change.
	inFlight map[string]bool
	// lastChange is when a migration last changed a node.
	lastChange map[string]time.Time
	// migrating are the pods of unfinished migrations.
	migrating map[cluster.PodKey]bool
	// lastEnd is when the last migration of a pod ended, well or badly.
	lastEnd map[cluster.PodKey]time.Time
}

func newHistory(migrations []v1alpha1.PodMigration) history {
	h := history{
		inFlight:   map[string]bool{},
		lastChange: map[string]time.Time{},
		migrating:  map[cluster.PodKey]bool{},
		lastEnd:    map[cluster.PodKey]time.Time{},
	}
	for i := range migrations {
		h.add(&migrations[i])
	}
	return h
}

func (h history) add(m *v1alpha1.PodMigration) {
	move := budget.MoveOf(m)
	finished := m.Status.Phase.IsFinished()
	for _, pod := range podsOf(m) {
		if !finished {
			h.migrating[pod] = true
		} else if end := m.Status.Times.Finished; end != nil && end.After(h.lastEnd[pod]) {
			h.lastEnd[pod] = end.Time
		}
	}
	for _, node := range []string{move.From, move.To} {
		if budget.IsDisruptive(m) {
			h.inFlight[node] = true
		}
		if changed := lastChangeOf(m); changed.After(h.lastChange[node]) {
			h.lastChange[node] = changed
		}
	}
}

func podsOf(m *v1alpha1.PodMigration) []cluster.PodKey {
	pods := []cluster.PodKey{{Namespace: m.Namespace, Name: m.Spec.PodName}}
	if m.Status.Replacement != nil {
		pods = append(pods, cluster.PodKey{Namespace: m.Namespace, Name: m.Status.Replacement.Name})
	}
	return pods
}

// lastChangeOf is when a migration last started or ended a pod.
func lastChangeOf(m *v1alpha1.PodMigration) time.Time {
	times := m.Status.Times
	if times.OriginalGone != nil {
		return times.OriginalGone.Time
	}
	if times.Placed != nil && times.Finished != nil {
		return times.Finished.Time
	}
	return time.Time{}
}
