package planner

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// Plan is an ordered list of moves. Each finds room after the moves before it,
// with their originals still in place, except for those in its After. So moves
// without After may be carried out together, and the others when those they
// wait for have finished.
type Plan struct {
	// SnapshotTime is the moment the plan was made for.
	SnapshotTime time.Time `json:"snapshotTime"`
	Moves        []Move    `json:"moves"`
	Before       Summary   `json:"before"`
	After        Summary   `json:"after"`
	// StillOverutilized lists the nodes that the plan leaves overutilized, and why.
	StillOverutilized []OverutilizedNode `json:"stillOverutilized,omitempty"`
	// Source tells what the loads are made from: that of the snapshot.
	Source string `json:"source"`
	// ExpectedDowntime adds up what the moves are expected to take away from
	// their pods. Make leaves it at zero: only who has carried out moves knows.
	ExpectedDowntime time.Duration `json:"expectedDowntime"`
}

// Move takes one pod from one node to another.
type Move struct {
	Pod      cluster.PodKey `json:"pod"`
	UID      types.UID      `json:"uid"`
	Workload string         `json:"workload"`
	From     string         `json:"from"`
	To       string         `json:"to"`
	// Gain is by how much this move makes the nodes cheaper after the moves before
	// it. A move that only makes room for a later one may have a negative gain.
	Gain float64 `json:"gain"`
	// Cost is the price of the move itself.
	Cost float64 `json:"cost"`
	// After are the moves, by their index in the plan, that must have finished
	// before this one may start: it needs the room that their originals leave.
	After []int `json:"after,omitempty"`
	// Usage is the measured load that moves along.
	Usage cluster.Resources `json:"usage"`
	// FreedRequests are the requests that stripping finished containers frees.
	FreedRequests cluster.Resources `json:"freedRequests"`
	// Reason explains the move in a sentence: what it gains, what it costs, and
	// which rule allowed it.
	Reason string `json:"reason"`
}

// Summary describes the measured nodes.
type Summary struct {
	// Objective is the sum of NodeCost over the measured nodes.
	Objective float64 `json:"objective"`
	// CPU and Memory are the population standard deviations of the load, as
	// fractions of what the nodes can allocate.
	CPUDeviation    float64 `json:"cpuDeviation"`
	MemoryDeviation float64 `json:"memoryDeviation"`
	// Fragmentation is the share of the free room that holds no whole shape; 0
	// when no shapes are given.
	Fragmentation float64 `json:"fragmentation"`
	// Nodes in order of their names.
	Nodes []NodeLoad `json:"nodes"`
}

// NodeLoad is the load of one node as fractions of what it can allocate.
type NodeLoad struct {
	Name         string  `json:"name"`
	CPU          float64 `json:"cpu"`
	Memory       float64 `json:"memory"`
	Overutilized bool    `json:"overutilized"`
}

// OverutilizedNode is a node above a threshold that the plan could not relieve.
type OverutilizedNode struct {
	Name string `json:"name"`
	// Reasons say what stood in the way, with the number of times.
	Reasons []string `json:"reasons"`
}

// FreedRequests adds up what the moves free by stripping.
func (p *Plan) FreedRequests() cluster.Resources {
	var sum cluster.Resources
	for _, move := range p.Moves {
		sum = sum.Add(move.FreedRequests)
	}
	return sum
}
