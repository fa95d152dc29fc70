package observe

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
)

// Cooldown keeps a workload where it is.
type Cooldown struct {
	Workload string `json:"workload"`
	// Migrations of the workload that ended one soon after the other.
	Migrations int       `json:"migrations"`
	Until      time.Time `json:"until"`
}

// Cooldowns lists the workloads that cool down after a migration, by name.
func Cooldowns(observation *Observation, options Options) []Cooldown {
	h := newMigrationHistory(observation.Migrations)
	found := map[string]Cooldown{}
	for _, pod := range observation.Pods {
		if pod.Spec.SchedulerName != options.SchedulerName {
			continue
		}
		if c := h.cooldown(pod, options); c.Until.After(observation.At) && c.Until.After(found[c.Workload].Until) {
			found[c.Workload] = c
		}
	}
	list := make([]Cooldown, 0, len(found))
	for _, c := range found {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b Cooldown) int { return cmp.Compare(a.Workload, b.Workload) })
	return list
}

// cooldown of the workload of a pod. Its first pods may be gone, and a bare pod
// has another name after every move, so that several names lead to it.
func (h migrationHistory) cooldown(pod *corev1.Pod, options Options) Cooldown {
	if len(h.ends) == 0 && pod.Labels[v1alpha1.MigrationUIDLabel] == "" {
		return Cooldown{}
	}
	root := budget.WorkloadOf(pod.Namespace, containers.RootName(pod), nil)
	names := h.lineage(budget.WorkloadOf(pod.Namespace, pod.Name, nil))
	if !slices.Contains(names, root) {
		names = append(names, root)
	}
	c := Cooldown{Workload: root}
	if controller := metav1.GetControllerOf(pod); controller != nil {
		c.Workload = budget.WorkloadOf(pod.Namespace, pod.Name, controller)
		names = append(names, c.Workload)
	}
	var ends []migrationEnd
	for _, name := range names {
		ends = append(ends, h.ends[name]...)
	}
	slices.SortFunc(ends, func(a, b migrationEnd) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.index, b.index)) })
	ends = slices.Compact(ends)
	// A replacement is the trace of a move that is left when its PodMigration was
	// deleted.
	if n := len(ends); pod.Labels[v1alpha1.MigrationUIDLabel] != "" && (n == 0 || pod.CreationTimestamp.After(ends[n-1].at)) {
		ends = append(ends, migrationEnd{-1, pod.CreationTimestamp.Time})
	}
	c.Migrations, c.Until = coolDown(ends, options.Cooldown, options.MaxCooldown)
	return c
}

// ResetWindow is how long a workload must have been at rest before its cooldown
// is the shortest again. It is longer than every cooldown, so that waiting for
// the end of one does not reset the next.
func ResetWindow(maxCooldown time.Duration) time.Duration { return 2 * maxCooldown }

// coolDown doubles the cooldown with every migration that ended within the
// reset window of the one before. It returns how many did in a row, and when
// the last cooldown ends.
func coolDown(ends []migrationEnd, shortest, longest time.Duration) (inARow int, until time.Time) {
	longest = max(shortest, longest)
	length := shortest
	for i, end := range ends {
		if i > 0 && end.at.Sub(ends[i-1].at) < ResetWindow(longest) {
			length = min(2*length, longest)
			inARow++
		} else {
			length, inARow = shortest, 1
		}
		until = end.at.Add(length)
	}
	return inARow, until
}
