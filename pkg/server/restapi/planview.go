package restapi

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/observe"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

// Plan is what the loop saw and decided last, and whether it is paused.
type Plan struct {
	// Status is that of the loop as its leader has written it; null before its
	// first cycle.
	Status *LoopStatus     `json:"status"`
	Paused rebalance.Pause `json:"paused"`
	// AgeSeconds is how old the status is; null without one.
	AgeSeconds *float64 `json:"age_seconds"`
}

// LoopStatus is what the loop saw and decided in one cycle (rebalance.Status), in
// the words of this API. Lists are never null.
type LoopStatus struct {
	Time   time.Time `json:"time"`
	DryRun bool      `json:"dry_run"`
	// Source of every load: Measured, or Requests where nothing measures.
	Source string `json:"source"`
	// Before and After are predicted for the plan.
	Before Prediction `json:"before"`
	After  Prediction `json:"after"`
	// ExpectedDowntimeSeconds of all pods that move together; null where unknown.
	ExpectedDowntimeSeconds *float64 `json:"expected_downtime_seconds"`
	// Moves of the plan, in order.
	Moves []PlannedMove `json:"moves"`
	// Held says why not all moves are carried out.
	Held string `json:"held,omitempty"`
	// Trimmed says what was left out of a large status.
	Trimmed string `json:"trimmed,omitempty"`
	// StillOverutilized are the nodes that the plan cannot relieve.
	StillOverutilized []UnrelievedNode `json:"still_overutilized"`
	// Skipped are the nodes that no pod is moved from or to.
	Skipped []SkippedNode `json:"skipped"`
	// Overutilized are the nodes above a threshold, and for how many cycles.
	Overutilized   []OverutilizedNode `json:"overutilized"`
	CircuitBreaker Breaker            `json:"circuit_breaker"`
	// Cooldowns of workloads that stay where they are for now.
	Cooldowns []Cooldown `json:"cooldowns"`
}

// Prediction is the state of the cluster in four figures; lower is better.
type Prediction struct {
	Objective float64 `json:"objective"`
	// CPUDeviation and MemoryDeviation are standard deviations of node load, as
	// fractions of what the nodes can allocate.
	CPUDeviation    float64 `json:"cpu_deviation"`
	MemoryDeviation float64 `json:"memory_deviation"`
	Fragmentation   float64 `json:"fragmentation"`
}

// PlannedMove takes one pod from one node to another.
type PlannedMove struct {
	Namespace  string `json:"namespace"`
	PodName    string `json:"pod_name"`
	PodUID     string `json:"pod_uid"`
	Workload   string `json:"workload"`
	SourceNode string `json:"source_node"`
	TargetNode string `json:"target_node"`
	// Gain and Cost are in the unit of the objective.
	Gain float64 `json:"gain"`
	Cost float64 `json:"cost"`
	// After are the moves, by their index, that have to finish before.
	After []int `json:"after"`
	// Usage moves along; FreedRequests are those of stripped containers.
	Usage         Amounts `json:"usage"`
	FreedRequests Amounts `json:"freed_requests"`
	Reason        string  `json:"reason"`
}

// Amounts are CPU in millicores, memory in bytes and other resources in their own
// units.
type Amounts struct {
	CPU      int64                         `json:"cpu"`
	Memory   int64                         `json:"memory"`
	Extended map[corev1.ResourceName]int64 `json:"extended"`
}

// SkippedNode is a node that no pod is moved from or to.
type SkippedNode struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// UnrelievedNode stays overutilized after the plan.
type UnrelievedNode struct {
	Name    string   `json:"name"`
	Reasons []string `json:"reasons"`
}

// OverutilizedNode is above a threshold for so many cycles in a row.
type OverutilizedNode struct {
	Name   string `json:"name"`
	Cycles int    `json:"cycles"`
}

// Breaker is the circuit breaker of the loop.
type Breaker struct {
	State rebalance.BreakerState `json:"state"`
	// Failed migrations, of the last ones that Finished.
	Failed   int `json:"failed"`
	Finished int `json:"finished"`
	// Until when it stays open.
	Until *time.Time `json:"until,omitempty"`
}

// Cooldown of a workload after so many migrations.
type Cooldown struct {
	Workload   string    `json:"workload"`
	Migrations int       `json:"migrations"`
	Until      time.Time `json:"until"`
}

// LoopStatusOf shows a status.
func LoopStatusOf(s *rebalance.Status) *LoopStatus {
	v := &LoopStatus{
		Time: s.Time, DryRun: s.DryRun, Source: s.Source, Before: Prediction(s.Before), After: Prediction(s.After), Held: s.Held, Trimmed: s.Trimmed,
		Moves:             mapped(s.Plan.Moves, plannedMoveOf),
		StillOverutilized: mapped(s.Plan.StillOverutilized, func(n planner.OverutilizedNode) UnrelievedNode { return UnrelievedNode(n) }),
		Skipped:           mapped(s.Skipped, func(n rebalance.SkippedNode) SkippedNode { return SkippedNode(n) }),
		Overutilized:      mapped(s.Abnormal, func(n rebalance.AbnormalNode) OverutilizedNode { return OverutilizedNode(n) }),
		CircuitBreaker:    Breaker{s.Breaker.State, s.Breaker.Failed, s.Breaker.Finished, s.Breaker.Until},
		Cooldowns:         mapped(s.Cooldowns, func(c observe.Cooldown) Cooldown { return Cooldown(c) }),
	}
	if s.ExpectedDowntime != nil {
		v.ExpectedDowntimeSeconds = new(s.ExpectedDowntime.Seconds())
	}
	return v
}

func plannedMoveOf(m planner.Move) PlannedMove {
	return PlannedMove{
		Namespace: m.Pod.Namespace, PodName: m.Pod.Name, PodUID: string(m.UID), Workload: m.Workload, SourceNode: m.From, TargetNode: m.To,
		Gain: m.Gain, Cost: m.Cost, After: append([]int{}, m.After...), Usage: amountsOf(m.Usage), FreedRequests: amountsOf(m.FreedRequests), Reason: m.Reason,
	}
}

func amountsOf(r cluster.Resources) Amounts {
	amounts := Amounts{CPU: r.MilliCPU, Memory: r.Memory, Extended: r.Scalar}
	if amounts.Extended == nil {
		amounts.Extended = map[corev1.ResourceName]int64{}
	}
	return amounts
}

// mapped shows a list; never nil.
func mapped[T, V any](list []T, show func(T) V) []V {
	shown := make([]V, len(list))
	for i := range list {
		shown[i] = show(list[i])
	}
	return shown
}
