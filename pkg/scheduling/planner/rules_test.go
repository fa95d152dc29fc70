package planner

import (
	"fmt"
	"math"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/internal/race"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// asks sets what a pod requests, whatever it uses.
func asks(p *cluster.Pod, milliCPU int64) *cluster.Pod {
	p.Requests.MilliCPU, p.StrippedRequests.MilliCPU = milliCPU, milliCPU
	return p
}

func fixed(p *cluster.Pod) *cluster.Pod { p.Immovable = "fixed"; return p }

func of(p *cluster.Pod, workload string) *cluster.Pod { p.Workload = workload; return p }

// told writes the moves as pod→node, with the moves they wait for.
func told(plan *Plan) string {
	var all []string
	for _, m := range plan.Moves {
		text := m.Pod.Name + "→" + m.To
		if len(m.After) > 0 {
			text += fmt.Sprint(m.After)
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

func mustMake(t *testing.T, nodes []*cluster.Node, pods []*cluster.Pod, o Options) *Plan {
	t.Helper()
	if o.Thresholds == (Thresholds{}) {
		o.Thresholds = defaultTest
	}
	if o.MaxMoves == 0 {
		o.MaxMoves = 10
	}
	plan, err := Make(t.Context(), cluster.NewSnapshot(noon, nodes, pods), &refusing{}, o)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func TestRules(t *testing.T) {
	half := []cluster.Resources{{MilliCPU: 2000}}
	drainable := func() []*cluster.Pod {
		return []*cluster.Pod{aPod("a", "light", 100, 0), aPod("b", "light", 100, 0), aPod("c", "light", 100, 0), fixed(aPod("x", "full", 2000, 0))}
	}
	lightAndFull := func() []*cluster.Node {
		return []*cluster.Node{aNode("light", 0.075, 0), aNode("full", 0.5, 0)}
	}
	emptying := Options{Weights: Weights{Consolidate: 1}}
	with := func(o Options, change func(*Options)) Options { change(&o); return o }
	for _, tt := range []struct {
		name    string
		nodes   []*cluster.Node
		pods    []*cluster.Pod
		options Options
		want    string
	}{{
		name:  "a pod without room pushes another one on, and waits for it",
		nodes: []*cluster.Node{aNode("overutilized", 0.9, 0), aNode("full", 0.3, 0), aNode("small", 0.6, 0)},
		pods: []*cluster.Pod{aPod("p", "overutilized", 1000, 0), fixed(aPod("h", "overutilized", 2600, 0)),
			asks(aPod("q", "full", 100, 0), 900), fixed(asks(aPod("f", "full", 1100, 0), 2800)), fixed(asks(aPod("s", "small", 2400, 0), 3100))},
		want: "q→small p→full[0]",
	}, {
		name:  "a cycle of full nodes is dropped",
		nodes: []*cluster.Node{aNode("a", 0.1, 0), aNode("b", 0.1, 0)},
		pods: []*cluster.Pod{aPod("p", "a", 1500, 0), fixed(aPod("f", "a", 2500, 0)),
			aPod("q", "b", 500, 0), fixed(aPod("g", "b", 3500, 0))},
		options: Options{Weights: Weights{Defragment: 100}, Shapes: half},
	}, {
		name:  "two moves make a whole piece free of which neither gains alone",
		nodes: []*cluster.Node{aNode("a", 0.1, 0), aNode("b", 0.1, 0), aNode("c", 0.1, 0)},
		pods: []*cluster.Pod{aPod("p", "a", 500, 0), aPod("q", "a", 500, 0), fixed(aPod("f", "a", 2000, 0)),
			fixed(aPod("g", "b", 3500, 0)), fixed(aPod("h", "c", 3500, 0))},
		options: Options{Weights: Weights{Defragment: 1}, Shapes: half},
		want:    "q→b p→c",
	}, {
		name: "a lightly used node is emptied", nodes: lightAndFull(), pods: drainable(), options: emptying,
		want: "a→full b→full c→full",
	}, {
		name: "what cannot be emptied within the cap pays only where the first moves do", nodes: lightAndFull(), pods: drainable(),
		options: with(emptying, func(o *Options) { o.MaxMoves, o.MinimumGain = 2, 5 }),
	}, {
		name: "the whole gains what its beginning does not", nodes: lightAndFull(), pods: drainable(),
		options: with(emptying, func(o *Options) { o.MaxMoves, o.MinimumGain = 3, 5 }),
		want:    "a→full b→full c→full",
	}, {
		name: "a node with a pod that cannot leave takes pods in", nodes: lightAndFull(),
		pods: append(drainable(), fixed(aPod("stays", "light", 10, 0)), of(fixed(aPod("d", "full", 10, 0)), "DaemonSet/ns/d")), options: emptying,
	}, {
		name:  "the node that takes fewest moves is emptied",
		nodes: lightAndFull(), pods: append(drainable()[:3], aPod("x", "full", 2000, 0)), options: emptying,
		want: "x→light",
	}, {
		name: "pods of the node itself do not keep it from being empty", nodes: lightAndFull(),
		pods: append(drainable(), of(fixed(aPod("d", "light", 10, 0)), "DaemonSet/ns/d")), options: emptying,
		want: "a→full b→full c→full",
	}, {
		name:  "free room is brought together",
		nodes: []*cluster.Node{aNode("a", 0.2, 0), aNode("b", 0.2, 0)},
		pods:  []*cluster.Pod{aPod("p", "a", 1000, 0), fixed(aPod("f", "a", 2000, 0)), fixed(aPod("g", "b", 3000, 0))}, options: Options{Weights: Weights{Defragment: 1}, Shapes: half},
		want: "p→b",
	}, {
		name:  "room that no shape asks for may be in pieces",
		nodes: []*cluster.Node{aNode("a", 0.2, 0), aNode("b", 0.2, 0)},
		pods:  []*cluster.Pod{aPod("p", "a", 1000, 0), fixed(aPod("f", "a", 2000, 0)), fixed(aPod("g", "b", 3000, 0))}, options: Options{Weights: Weights{Defragment: 1}},
	}, {
		name:    "in deviation mode a node is overutilized by the mean",
		nodes:   []*cluster.Node{aNode("x", 0.5, 0), aNode("y", 0.1, 0), aNode("z", 0.1, 0)},
		pods:    []*cluster.Pod{aPod("p", "x", 700, 0), aPod("r", "x", 700, 0)},
		options: Options{Deviation: &Thresholds{CPU: 0.1, Memory: 0.1}}, want: "p→y",
	}, {
		name:    "only sources give pods away",
		nodes:   []*cluster.Node{aNode("x", 0.9, 0), aNode("y", 0.95, 0), aNode("z", 0.1, 0)},
		pods:    []*cluster.Pod{aPod("p", "x", 1000, 0), aPod("q", "y", 1000, 0)},
		options: Options{Sources: map[string]bool{"x": true}}, want: "p→z",
	}, {
		name:    "a move must gain as many times its cost as is asked for",
		nodes:   []*cluster.Node{aNode("x", 0.71, 0), aNode("z", 0.1, 0)},
		pods:    []*cluster.Pod{aPod("p", "x", 100, 0)},
		options: Options{MinimumGain: 4},
	}, {
		name:  "without a minimum the same move is made",
		nodes: []*cluster.Node{aNode("x", 0.71, 0), aNode("z", 0.1, 0)},
		pods:  []*cluster.Pod{aPod("p", "x", 100, 0)}, want: "p→z",
	}, {
		name:  "of two alike, the pod whose workload has not moved goes",
		nodes: []*cluster.Node{aNode("x", 1, 0), aNode("y", 0.1, 0), aNode("z", 0.1, 0)},
		pods: []*cluster.Pod{of(aPod("p1", "x", 700, 0), "ReplicaSet/ns/p"), of(aPod("p2", "x", 700, 0), "ReplicaSet/ns/p"),
			of(aPod("q", "x", 700, 0), "ReplicaSet/ns/q")},
		options: Options{Budget: budget.NewLedger(budget.Limits{InFlight: 9, PerNode: 9, PerNamespace: 9, PerWorkload: 9})}, want: "p1→y q→z",
	}} {
		t.Run(tt.name, func(t *testing.T) {
			if got := told(mustMake(t, tt.nodes, tt.pods, tt.options)); got != tt.want {
				t.Errorf("moves %q, want %q", got, tt.want)
			}
		})
	}
}

// Two NUMA nodes with 1000m each do not take a pod that needs 1500m on one.
// A destination is filled to 95 % of a threshold, and in mode Deviation to half of
// the way above the mean; an overutilized node has more than the whole.
func TestDestinationsAreNotFilledToTheBrim(t *testing.T) {
	for _, tt := range []struct {
		name    string
		uses    int64 // of the pod, in thousandths of a core
		options Options
		want    string
	}{
		// 0.43 + 0.23 = 0.66, which is below 0.95 · 0.7 = 0.665, and 0.43 + 0.24 = 0.67 above.
		{"CPU below 95 %", 920, Options{}, "p→taker"},
		{"CPU above 95 %", 960, Options{}, ""},
		// Mean 0.665: destinations are filled up to 0.735, overutilized is above 0.805.
		{"below half of the deviation", 1200, Options{Deviation: &Thresholds{CPU: 0.14, Memory: 1}}, "p→taker"},
		{"above half of the deviation", 1240, Options{Deviation: &Thresholds{CPU: 0.14, Memory: 1}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nodes := []*cluster.Node{aNode("giver", 0.9, 0), aNode("taker", 0.43, 0)}
			pods := []*cluster.Pod{aPod("p", "giver", tt.uses, 0), fixed(aPod("h", "giver", 3600-tt.uses, 0)), fixed(aPod("t", "taker", 1720, 0))}
			if got := told(mustMake(t, nodes, pods, tt.options)); got != tt.want {
				t.Errorf("moves %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNUMANodes(t *testing.T) {
	place := func(zones int) string {
		there := aNode("there", 0.2, 0)
		there.Zones = []cluster.Resources{{MilliCPU: 1000, Memory: gib}, {MilliCPU: 1000, Memory: gib}}
		p := aPod("p", "overutilized", 1500, 0)
		for z := range zones {
			p.Zones = append(p.Zones, z)
		}
		return told(mustMake(t, []*cluster.Node{aNode("overutilized", 0.95, 0), there}, []*cluster.Pod{p, fixed(asks(aPod("f", "there", 100, 0), 2000))}, Options{}))
	}
	if got := place(1); got != "" {
		t.Errorf("a pod that needs one NUMA node: %q", got)
	}
	if got := place(2); got != "p→there" {
		t.Errorf("a pod that is spread over two: %q", got)
	}
}

// What a node costs by the scheduler's plugin is what the search reckons with.
func TestNodeCostIsWhatTheSearchReckonsWith(t *testing.T) {
	for seed := range race.Examples(60) {
		snapshot, options := randomSnapshot(seed), randomOptions(seed)
		options.Deviation = nil
		s := newState(snapshot, options)
		objective := Objective{Thresholds: options.Thresholds, Weights: options.Weights, Shapes: options.Shapes}
		for i := range s.nodes {
			n := &s.nodes[i]
			state := NodeState{Allocatable: n.Allocatable, Used: cluster.Resources{MilliCPU: n.load[0], Memory: n.load[1]},
				Evictable: cluster.Resources{MilliCPU: n.evictable[0], Memory: n.evictable[1]}, Pinned: n.pinned}
			for _, id := range n.residents {
				state.Requested = state.Requested.Add(s.pods[id].Requests)
			}
			cost, _ := s.costWith(n, nil, 0)
			if want := objective.NodeCost(state); math.Abs(cost-want) > 1e-9 {
				t.Fatalf("seed %d, node %s: the search reckons with %f, NodeCost is %f", seed, n.Name, cost, want)
			}
		}
	}
}

// After a plan was carried out there is nothing left to do, for any strategy.
func TestAPlanLeavesNothingToUndo(t *testing.T) {
	for seed := range race.Examples(80) {
		snapshot, options := withReplacements(randomSnapshot(seed)), randomOptions(seed)
		options.MaxMoves = 50
		moved := map[cluster.PodKey]string{}
		for cycle := range 6 {
			plan, err := Make(t.Context(), snapshot, &moody{placed: map[*corev1.Pod]string{}}, options)
			if err != nil {
				t.Fatal(err)
			}
			for _, move := range plan.Moves {
				if moved[move.Pod] == move.To {
					t.Fatalf("seed %d, cycle %d: %s goes back to %s", seed, cycle, move.Pod, move.To)
				}
				moved[move.Pod] = move.From
			}
			snapshot = carriedOut(snapshot, plan)
		}
	}
}

// carriedOut is the snapshot after all moves.
func carriedOut(before *cluster.Snapshot, plan *Plan) *cluster.Snapshot {
	to := map[cluster.PodKey]string{}
	change := map[string]cluster.Resources{}
	for _, move := range plan.Moves {
		to[move.Pod] = move.To
		change[move.From] = change[move.From].Sub(move.Usage)
		change[move.To] = change[move.To].Add(move.Usage)
	}
	var nodes []*cluster.Node
	for _, n := range before.Nodes {
		after, use := *n, *n.Measured
		use.MilliCPU, use.Memory = use.MilliCPU+change[n.Name].MilliCPU, use.Memory+change[n.Name].Memory
		after.Measured = &use
		nodes = append(nodes, &after)
	}
	var pods []*cluster.Pod
	for _, p := range before.Pods {
		after := *p
		if node, moved := to[p.Key()]; moved {
			after.NodeName, after.Requests = node, p.StrippedRequests
		}
		pods = append(pods, &after)
	}
	return cluster.NewSnapshot(before.Time, nodes, pods)
}
