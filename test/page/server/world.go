package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/observe"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
	"github.com/ai-storage/orchestrator/pkg/server/nodeview"
	"github.com/ai-storage/orchestrator/pkg/server/restapi"
)

// world is a cluster that was made up from a seed.
type world struct {
	size          int
	start         time.Time
	pause         rebalance.Pause
	withoutStream bool
	// idle worlds have no migrations and no plan.
	idle bool
	// late is how old everything is.
	late time.Duration
}

// worlds by token.
func worlds(start time.Time) map[string]*world {
	return map[string]*world{
		"rebalance": {size: 20, start: start},
		"large":     {size: 1200, start: start},
		"medium":    {size: 160, start: start},
		"empty":     {start: start, idle: true},
		"paused": {size: 20, start: start, pause: rebalance.Pause{
			Paused: true, By: "jane", Reason: "storage upgrade", Since: new(start.Add(-4 * time.Minute)),
		}},
		"no-stream": {size: 20, start: start, withoutStream: true},
		"stale":     {size: 20, start: start, late: 12 * time.Minute},
	}
}

const gib = 1 << 30

func nodeName(i int) string { return fmt.Sprintf("node-%d", i) }

// chance is a number from 0 to 1 that belongs to a node and a purpose.
func chance(node int, purpose uint64) float64 {
	return rand.New(rand.NewPCG(uint64(node), purpose)).Float64()
}

// load of a node as fractions of CPU and memory; it sways a little.
func (w *world) load(i int, now time.Time) (cpu, memory float64) {
	sway := 0.02 * math.Sin(now.Sub(w.start).Seconds()/20+float64(i))
	cpu, memory = 0.08+0.55*chance(i, 1)+sway, 0.15+0.5*chance(i, 2)+sway/2
	if i == 3 || i == 11 || i > 20 && chance(i, 3) > 0.97 {
		cpu, memory = 0.84+0.1*chance(i, 4)+sway, 0.62+0.3*chance(i, 5)
	}
	return cpu, memory
}

func (w *world) nodes(now time.Time) restapi.Nodes {
	nodes := restapi.Nodes{Source: nodeview.SourceMetricsAPI, Items: []nodeview.Node{}}
	if w.size == 0 {
		nodes.Source = nodeview.SourceUnavailable
	}
	for i := range w.size {
		nodes.Items = append(nodes.Items, w.node(i, now))
	}
	return nodes
}

func (w *world) node(i int, now time.Time) nodeview.Node {
	cpu, memory := w.load(i, now)
	cores, bytes := int64(32000), int64(128*gib)
	n := nodeview.Node{
		Name: nodeName(i), Ready: true, Schedulable: true, Overutilized: cpu > 0.7 || memory > 0.8, Pods: 10 + i%17,
		CPU: nodeview.Resource{
			Allocatable: cores, Requested: int64(float64(cores) * min(1, cpu*0.9+0.2*chance(i, 6))),
			Used: new(int64(float64(cores) * cpu)), Reclaimable: int64(2000 * chance(i, 7)),
		},
		Memory: nodeview.Resource{
			Allocatable: bytes, Requested: int64(float64(bytes) * min(1, memory*0.9+0.25*chance(i, 8))),
			Used: new(int64(float64(bytes) * memory)), Reclaimable: int64(8 * gib * chance(i, 9)),
		},
		Extended:   map[corev1.ResourceName]nodeview.Extended{},
		MeasuredAt: new(metav1.NewTime(now.Add(-9*time.Second - w.late))),
	}
	if i%3 == 0 {
		n.Extended["nvidia.com/gpu"] = nodeview.Extended{Allocatable: 8, Requested: int64(9 * chance(i, 10))}
	}
	switch {
	case i == 7 || i > 20 && chance(i, 11) > 0.98:
		n.Skipped = "the node has been measured 1 of 3 times since it changed, or since the rebalancer started"
	case i == 14 || i > 20 && chance(i, 12) > 0.985:
		n.Schedulable = false
	case i == 17:
		n.Ready, n.Schedulable, n.Overutilized, n.Skipped = false, false, false, "the node has no measurement"
		n.CPU.Used, n.Memory.Used, n.MeasuredAt = nil, nil, nil
	}
	return n
}

func (w *world) plan(now time.Time) restapi.Plan {
	if w.idle {
		return restapi.Plan{Paused: w.pause}
	}
	made := now.Truncate(5 * time.Second).Add(-w.late)
	status := rebalance.Status{
		Time: made, Source: "Measured", Plan: &planner.Plan{SnapshotTime: made, Source: "Measured"},
		Before:           rebalance.Prediction{Objective: 41.72, CPUDeviation: 0.214, MemoryDeviation: 0.173, Fragmentation: 0.08},
		After:            rebalance.Prediction{Objective: 28.06, CPUDeviation: 0.131, MemoryDeviation: 0.149, Fragmentation: 0.08},
		ExpectedDowntime: &metav1.Duration{Duration: 4200 * time.Millisecond},
		Skipped:          []rebalance.SkippedNode{},
		Abnormal:         []rebalance.AbnormalNode{{Name: nodeName(3), Cycles: 6}, {Name: nodeName(11), Cycles: 4}},
		Breaker:          rebalance.Breaker{State: rebalance.BreakerClosed, Failed: 1, Finished: 10},
		Cooldowns: []observe.Cooldown{
			{Workload: "training/Job/resnet50-sweep", Migrations: 1, Until: made.Add(7 * time.Minute)},
			{Workload: "serving/ReplicaSet/embedder-6c9d8f", Migrations: 2, Until: made.Add(19 * time.Minute)},
		},
	}
	for _, n := range w.nodes(now).Items {
		if n.Skipped != "" {
			status.Skipped = append(status.Skipped, rebalance.SkippedNode{Name: n.Name, Reason: n.Skipped})
		}
	}
	status.Plan.StillOverutilized = []planner.OverutilizedNode{{Name: nodeName(11), Reasons: []string{"its pods are younger than the minimum age (3 times)", "a budget for disruptions allows none (1 times)"}}}
	status.Plan.Moves = w.moves(now)
	status.Moves = len(status.Plan.Moves)
	if w.pause.Paused {
		status.Held, status.Paused = w.pause.String(), &w.pause
	}
	return restapi.Plan{Status: restapi.LoopStatusOf(&status), Paused: w.pause, AgeSeconds: new(now.Sub(made).Seconds())}
}

// moves of the plan are those that run and the next ones.
func (w *world) moves(now time.Time) []planner.Move {
	var moves []planner.Move
	current := int(now.Sub(w.start)/startEvery) - 1
	for i := current; i < current+4; i++ {
		m := w.migration(i, now)
		move := planner.Move{
			Pod: cluster.PodKey{Namespace: m.Namespace, Name: m.PodName}, UID: types.UID(m.ID), Workload: m.Namespace + "/Job/" + m.PodName,
			From: m.SourceNode, To: m.TargetNode, Gain: 3.41 - 0.37*float64(i-current), Cost: 0.52,
			FreedRequests: cluster.Resources{MilliCPU: 1500, Memory: 4 * gib},
			Reason: fmt.Sprintf("node %s is overutilized (CPU 91%%, memory 78%%); moving 4200m CPU and 9216Mi to node %s (CPU 38%%, memory 41%%) gains %.2f and costs 0.52; its finished containers request 1500m CPU and 4096Mi, which are freed",
				m.SourceNode, m.TargetNode, 3.41-0.37*float64(i-current)),
		}
		if i == current+3 {
			move.After = []int{0}
		}
		moves = append(moves, move)
	}
	return moves
}
