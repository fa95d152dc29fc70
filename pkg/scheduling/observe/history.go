package observe

import (
	"slices"
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// migrationHistory is what the migrations say of the recent past. It is read from the
// objects, so it survives restarts.
type migrationHistory struct {
	// inFlight are the nodes that a migration is about to change.
	inFlight map[string]bool
	// lastChange is when a migration last changed a node.
	lastChange map[string]time.Time
	// migrating are the pods of unfinished migrations.
	migrating map[cluster.PodKey]bool
	// ends of the finished migrations of each workload. A migration that ended
	// before the owner was known is filed under the pod alone.
	ends map[string][]migrationEnd
	// origins lead from the name of a replacement to that of its original, where
	// they differ, as workloads.
	origins map[string]string
}

// migrationEnd is when a migration ended, well or badly. The index tells
// migrations apart that ended at the same moment.
type migrationEnd struct {
	index int
	at    time.Time
}

func newMigrationHistory(migrations []v1alpha1.PodMigration) migrationHistory {
	h := migrationHistory{
		inFlight:   map[string]bool{},
		lastChange: map[string]time.Time{},
		migrating:  map[cluster.PodKey]bool{},
		ends:       map[string][]migrationEnd{},
		origins:    map[string]string{},
	}
	for i := range migrations {
		h.addOrigin(&migrations[i])
	}
	for i := range migrations {
		h.add(i, &migrations[i])
	}
	return h
}

func (h migrationHistory) addOrigin(m *v1alpha1.PodMigration) {
	if m.Status.Replacement == nil || m.Status.Replacement.Name == "" || m.Status.Replacement.Name == m.Spec.PodName {
		return
	}
	h.origins[budget.WorkloadOf(m.Namespace, m.Status.Replacement.Name, nil)] = budget.WorkloadOf(m.Namespace, m.Spec.PodName, nil)
}

// lineage is a bare pod under all the names that the migrations know it by.
func (h migrationHistory) lineage(workload string) []string {
	names := []string{workload}
	for {
		original, ok := h.origins[workload]
		if !ok || slices.Contains(names, original) { // names may be given again
			return names
		}
		names, workload = append(names, original), original
	}
}

func (h migrationHistory) add(index int, m *v1alpha1.PodMigration) {
	move := budget.MoveOf(m)
	if m.Status.Phase.IsFinished() {
		h.addEnd(migrationEnd{index, endOf(m)}, move.Workload, budget.WorkloadOf(m.Namespace, m.Spec.PodName, nil))
	} else {
		for _, pod := range podsOf(m) {
			h.migrating[pod] = true
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

func (h migrationHistory) addEnd(end migrationEnd, workload, pod string) {
	if end.at.IsZero() {
		return
	}
	h.ends[workload] = append(h.ends[workload], end)
	if pod != workload {
		h.ends[pod] = append(h.ends[pod], end)
	}
}

func endOf(m *v1alpha1.PodMigration) time.Time {
	if m.Status.Times.Finished == nil {
		return time.Time{}
	}
	return m.Status.Times.Finished.Time
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
