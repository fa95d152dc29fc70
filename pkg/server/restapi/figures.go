package restapi

import (
	"net/http"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/server/restapi/auth"
)

// Figures sum up the migrations that there are records of.
type Figures struct {
	Migrations Counts `json:"migrations"`
	// SuccessPercent is the share of those that ended well or badly.
	SuccessPercent         Figure `json:"success_percent"`
	AverageDurationSeconds Figure `json:"average_duration_seconds"`
	AverageDowntimeSeconds Figure `json:"average_downtime_seconds"`
	// Savings are what the replacements request, or use, less than their originals.
	CPURequestSavingsPercent    Figure `json:"cpu_request_savings_percent"`
	MemoryRequestSavingsPercent Figure `json:"memory_request_savings_percent"`
	CPUUsageSavingsPercent      Figure `json:"cpu_usage_savings_percent"`
	MemoryUsageSavingsPercent   Figure `json:"memory_usage_savings_percent"`
}

// Counts of migrations. Total is the sum of the others.
type Counts struct {
	Total     int `json:"total"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	Cancelled int `json:"cancelled"`
	Running   int `json:"running"`
	Queued    int `json:"queued"`
}

// Figure is a value with the number of migrations behind it; null without any.
type Figure struct {
	Value *float64 `json:"value"`
	N     int      `json:"n"`
}

func (s *Server) figures(w http.ResponseWriter, r *http.Request, caller user.Info) error {
	values, err := parametersOf(r, "namespace")
	if err != nil {
		return err
	}
	namespace, err := namespaceOf(values)
	if err != nil {
		return err
	}
	if err := s.o.Authorizer.Allow(r.Context(), caller, auth.Access{Verb: "list", Namespace: namespace}); err != nil {
		return err
	}
	migrations, err := s.migrations(r.Context(), namespace)
	if err != nil {
		return err
	}
	writeJSON(r.Context(), w, http.StatusOK, figuresOf(migrations))
	return nil
}

func figuresOf(migrations []v1alpha1.PodMigration) Figures {
	var f Figures
	var duration, downtime mean
	var cpu, memory, cpuUse, memoryUse saving
	for i := range migrations {
		m := &migrations[i]
		f.Migrations.count(m)
		if m.Status.Phase != v1alpha1.PhaseSucceeded {
			continue
		}
		if t := m.Status.Times; t.Started != nil && t.Finished != nil {
			duration.add(t.Finished.Sub(t.Started.Time).Seconds())
		}
		if m.Status.Downtime != nil {
			downtime.add(m.Status.Downtime.Seconds())
		}
		before, after := m.Status.Before, m.Status.After
		if before == nil || after == nil {
			continue
		}
		cpu.add(before.Requests, after.Requests, corev1.ResourceCPU)
		memory.add(before.Requests, after.Requests, corev1.ResourceMemory)
		if before.Source == v1alpha1.UsageFromMetricsAPI && after.Source == v1alpha1.UsageFromMetricsAPI {
			cpuUse.add(before.Usage, after.Usage, corev1.ResourceCPU)
			memoryUse.add(before.Usage, after.Usage, corev1.ResourceMemory)
		}
	}
	if ended := f.Migrations.Succeeded + f.Migrations.Failed; ended > 0 {
		f.SuccessPercent = Figure{new(100 * float64(f.Migrations.Succeeded) / float64(ended)), ended}
	}
	f.AverageDurationSeconds, f.AverageDowntimeSeconds = duration.figure(), downtime.figure()
	f.CPURequestSavingsPercent, f.MemoryRequestSavingsPercent = cpu.figure(), memory.figure()
	f.CPUUsageSavingsPercent, f.MemoryUsageSavingsPercent = cpuUse.figure(), memoryUse.figure()
	return f
}

func (c *Counts) count(m *v1alpha1.PodMigration) {
	c.Total++
	switch phase := m.CurrentPhase(); {
	case phase == v1alpha1.PhaseSucceeded:
		c.Succeeded++
	case phase == v1alpha1.PhaseFailed:
		c.Failed++
	case phase == v1alpha1.PhaseCancelled:
		c.Cancelled++
	case meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionAccepted):
		c.Running++
	default:
		c.Queued++
	}
}

// mean of values that were added.
type mean struct {
	sum float64
	n   int
}

func (m *mean) add(value float64) { m.sum, m.n = m.sum+value, m.n+1 }

func (m *mean) figure() Figure {
	if m.n == 0 {
		return Figure{}
	}
	return Figure{new(m.sum / float64(m.n)), m.n}
}

// saving compares the sums before and after, so that large pods count for more.
type saving struct {
	before, after float64
	n             int
}

// add counts a migration that has the resource before its move. What a replacement
// does not request is saved.
func (s *saving) add(before, after corev1.ResourceList, name corev1.ResourceName) {
	quantity := before[name]
	if quantity.Sign() <= 0 {
		return
	}
	left := after[name]
	s.before, s.after, s.n = s.before+quantity.AsApproximateFloat64(), s.after+left.AsApproximateFloat64(), s.n+1
}

func (s *saving) figure() Figure {
	if s.n == 0 {
		return Figure{}
	}
	return Figure{new(100 * (1 - s.after/s.before)), s.n}
}
