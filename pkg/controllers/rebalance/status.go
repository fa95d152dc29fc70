package rebalance

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/observe"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

// Status is what the loop saw and decided in one cycle. It is the form in which
// a plan is shown, whoever asks for it.
type Status struct {
	// Time at which the cluster was observed.
	Time time.Time `json:"time"`
	// DryRun reports that nothing was done, and that nodes were judged by what they
	// used at that moment.
	DryRun bool `json:"dryRun"`
	// Source of every load: Measured, or Requests where nothing measures.
	Source string `json:"source"`
	// Before and After are predicted for the plan.
	Before Prediction `json:"before"`
	After  Prediction `json:"after"`
	// Moves of the plan.
	Moves int `json:"moves"`
	// ExpectedDowntime of all pods that move, by the median of what was measured
	// in the last migrations; nil when that is unknown.
	ExpectedDowntime *metav1.Duration `json:"expectedDowntime,omitempty"`
	// Held says why not all moves of the plan are carried out.
	Held string `json:"held,omitempty"`
	// Paused tells who paused the loop; absent when nobody did.
	Paused *Pause `json:"paused,omitempty"`
	// Trimmed says what was left out of this status to make it fit; "" when it is whole.
	Trimmed string `json:"trimmed,omitempty"`
	// Plan in full.
	Plan *planner.Plan `json:"plan"`
	// Skipped lists the nodes that the loop does not touch, and why.
	Skipped []SkippedNode `json:"skipped"`
	// Abnormal lists the overutilized nodes, and for how long they have been overutilized.
	Abnormal []AbnormalNode `json:"abnormal,omitempty"`
	Breaker  Breaker        `json:"circuitBreaker"`
	// Cooldowns of workloads that stay where they are for now.
	Cooldowns []observe.Cooldown `json:"cooldowns"`

	// allowed is how many moves of the plan may be carried out, from its start.
	allowed int
	// metricsAge is how old the oldest of the nodes' last measurements is.
	metricsAge time.Duration
}

// Prediction is the state of the cluster in four figures; lower is better.
type Prediction struct {
	Objective float64 `json:"objective"`
	// CPUDeviation and MemoryDeviation are standard deviations of node load, as
	// fractions of what the nodes can allocate.
	CPUDeviation    float64 `json:"cpuDeviation"`
	MemoryDeviation float64 `json:"memoryDeviation"`
	// Fragmentation is the share of the free room that holds no whole shape.
	Fragmentation float64 `json:"fragmentation"`
}

// SkippedNode is a node that no pod is moved from or to.
type SkippedNode struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

func skipped(snapshot *cluster.Snapshot) []SkippedNode {
	nodes := []SkippedNode{}
	for _, node := range snapshot.Nodes {
		if node.Skipped != "" {
			nodes = append(nodes, SkippedNode{node.Name, node.Skipped})
		}
	}
	return nodes
}

// hold keeps every move back while the loop is paused.
func (s *Status) hold(pause Pause) {
	if pause.Paused {
		s.Paused, s.allowed, s.Held = &pause, 0, pause.String()
	}
}

// finish fills in what follows from the plan.
func (s *Status) finish(migrations []v1alpha1.PodMigration) {
	s.Plan.Source = s.Source
	s.Before, s.After = predictionOf(s.Plan.Before), predictionOf(s.Plan.After)
	s.Moves = len(s.Plan.Moves)
	s.allowed = min(s.allowed, s.Moves)
	if median, known := medianDowntime(migrations); known {
		s.Plan.ExpectedDowntime = median * time.Duration(s.Moves)
		s.ExpectedDowntime = &metav1.Duration{Duration: s.Plan.ExpectedDowntime}
	}
}

// startable are the moves that may begin now. One that needs the room of an
// original that moves before it is left to a later plan.
func (s *Status) startable() []*planner.Move {
	var moves []*planner.Move
	for i := range s.Plan.Moves[:s.allowed] {
		if len(s.Plan.Moves[i].After) == 0 {
			moves = append(moves, &s.Plan.Moves[i])
		}
	}
	return moves
}

func predictionOf(summary planner.Summary) Prediction {
	return Prediction{
		Objective: summary.Objective, CPUDeviation: summary.CPUDeviation,
		MemoryDeviation: summary.MemoryDeviation, Fragmentation: summary.Fragmentation,
	}
}

// recentDowntimes is how many of the last migrations the expected downtime is
// taken from.
const recentDowntimes = 51

// medianDowntime of the last migrations that succeeded and measured theirs.
func medianDowntime(migrations []v1alpha1.PodMigration) (median time.Duration, known bool) {
	var measured []*v1alpha1.PodMigration
	for i := range migrations {
		m := &migrations[i]
		if m.Status.Phase == v1alpha1.PhaseSucceeded && m.Status.Downtime != nil && m.Status.Times.Finished != nil {
			measured = append(measured, m)
		}
	}
	slices.SortFunc(measured, func(a, b *v1alpha1.PodMigration) int {
		return a.Status.Times.Finished.Compare(b.Status.Times.Finished.Time)
	})
	measured = measured[max(0, len(measured)-recentDowntimes):]
	if len(measured) == 0 {
		return 0, false
	}
	downtimes := make([]time.Duration, len(measured))
	for i, m := range measured {
		downtimes[i] = m.Status.Downtime.Duration
	}
	slices.Sort(downtimes)
	middle := len(downtimes) / 2
	if len(downtimes)%2 == 1 {
		return downtimes[middle], true
	}
	return (downtimes[middle-1] + downtimes[middle]) / 2, true
}
