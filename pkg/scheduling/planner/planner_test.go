package planner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

var (
	noon        = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	plenty      = budget.Limits{InFlight: 1000, PerNode: 1000, PerNamespace: 1000, PerWorkload: 1}
	defaultTest = Thresholds{CPU: 0.7, Memory: 0.8}
)

const gib = int64(1) << 30

// node has 4 cores and 16 GiB and uses the given share of them.
func aNode(name string, cpu, memory float64) *cluster.Node {
	return &cluster.Node{
		Name:        name,
		Allocatable: cluster.Resources{MilliCPU: 4000, Memory: 16 * gib},
		Measured:    &cluster.Usage{MilliCPU: int64(4000 * cpu), Memory: int64(float64(16*gib) * memory), At: noon},
		Schedulable: true,
		Object:      &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}},
	}
}

// pod uses what it asks for.
func aPod(name, nodeName string, milliCPU, memory int64) *cluster.Pod {
	requests := cluster.Resources{MilliCPU: milliCPU, Memory: memory}
	object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)}}
	return &cluster.Pod{
		Namespace: "ns", Name: name, UID: types.UID(name), NodeName: nodeName, Workload: "Pod/ns/" + name,
		Requests: requests, StrippedRequests: requests,
		Measured: &cluster.Usage{MilliCPU: milliCPU, Memory: memory, At: noon},
		Object:   object, Replacement: func() *corev1.Pod { return object },
	}
}

// refusing is a Feasibility that refuses some nodes and records what it placed.
type refusing struct {
	nodes  map[string]string
	placed []string
	asked  map[string]int
	err    error
}

func (r *refusing) Fits(_ context.Context, pod *corev1.Pod, node string) (string, error) {
	if r.asked != nil {
		r.asked[pod.Name+"→"+node]++
	}
	return r.nodes[node], r.err
}

func (r *refusing) Place(pod *corev1.Pod, node string) error {
	r.placed = append(r.placed, pod.Name+"→"+node)
	return nil
}

// Remove forgets the latest placement of a pod; one that was never placed is
// of the snapshot.
func (r *refusing) Remove(pod *corev1.Pod) error {
	for i := len(r.placed) - 1; i >= 0; i-- {
		if strings.HasPrefix(r.placed[i], pod.Name+"→") {
			r.placed = slices.Delete(r.placed, i, i+1)
			break
		}
	}
	return nil
}

func TestMake(t *testing.T) {
	big := func(p *cluster.Pod) *cluster.Pod {
		p.Requests.MilliCPU, p.StrippedRequests.MilliCPU = 5000, 5000
		return p
	}
	immovable := func(p *cluster.Pod, why string) *cluster.Pod { p.Immovable = why; return p }
	tests := []struct {
		name       string
		nodes      []*cluster.Node
		pods       []*cluster.Pod
		refused    map[string]string
		limits     budget.Limits
		maxMoves   int
		wantMoves  []string
		wantReason string
	}{{
		name:  "an overutilized node is relieved to the least utilized node",
		nodes: []*cluster.Node{aNode("overutilized", 0.9, 0.2), aNode("warm", 0.5, 0.2), aNode("cool", 0.1, 0.1)},
		pods:  []*cluster.Pod{aPod("a", "overutilized", 1000, gib), aPod("b", "overutilized", 400, gib)}, limits: plenty, maxMoves: 5,
		wantMoves: []string{"a→cool"},
	}, {
		name:  "no node is overutilized",
		nodes: []*cluster.Node{aNode("x", 0.7, 0.8), aNode("y", 0, 0)},
		pods:  []*cluster.Pod{aPod("a", "x", 1000, gib)}, limits: plenty, maxMoves: 5,
	}, {
		name:  "a pod that makes any node overutilized stays where it is",
		nodes: []*cluster.Node{aNode("x", 0.9, 0.2), aNode("y", 0, 0)},
		pods:  []*cluster.Pod{aPod("a", "x", 3600, gib)}, limits: plenty, maxMoves: 5,
		wantReason: "would become overutilized",
	}, {
		name:  "memory makes a node overutilized too",
		nodes: []*cluster.Node{aNode("overutilized", 0.1, 0.95), aNode("cool", 0.1, 0.1)},
		pods:  []*cluster.Pod{aPod("a", "overutilized", 100, 4*gib)}, limits: plenty, maxMoves: 5,
		wantMoves: []string{"a→cool"},
	}, {
		name:  "a pod whose requests fit nowhere stays",
		nodes: []*cluster.Node{aNode("overutilized", 0.9, 0.2), aNode("cool", 0.1, 0.1)},
		pods:  []*cluster.Pod{big(aPod("a", "overutilized", 1000, gib))}, limits: plenty, maxMoves: 5,
		wantReason: "no room for the requests",
	}, {
		name:  "a destination must not become overutilized",
		nodes: []*cluster.Node{aNode("overutilized", 0.9, 0.2), aNode("warm", 0.6, 0.1)},
		pods:  []*cluster.Pod{aPod("a", "overutilized", 1000, gib)}, limits: plenty, maxMoves: 5,
		wantReason: "would become overutilized",
	}, {
		name:  "the scheduler's refusal sends the pod to the next best node",
		nodes: []*cluster.Node{aNode("overutilized", 0.9, 0.2), aNode("warm", 0.3, 0.2), aNode("cool", 0.1, 0.1)},
		pods:  []*cluster.Pod{aPod("a", "overutilized", 1000, gib)}, limits: plenty, maxMoves: 5,
		refused:   map[string]string{"cool": "aNode(s) had untolerated taint(s)"},
		wantMoves: []string{"a→warm"},
	}, {
		name:  "the scheduler's refusal is reported",
		nodes: []*cluster.Node{aNode("overutilized", 0.9, 0.2), aNode("cool", 0.1, 0.1)},
		pods:  []*cluster.Pod{aPod("a", "overutilized", 1000, gib)}, limits: plenty, maxMoves: 5,
		refused:    map[string]string{"cool": "aNode(s) had untolerated taint(s)"},
		wantReason: "scheduler: aNode(s) had untolerated taint(s)",
	}, {
		name:  "the budget holds",
		nodes: []*cluster.Node{aNode("overutilized", 1.0, 0.2), aNode("cool", 0.1, 0.1), aNode("cold", 0, 0.1)},
		pods:  []*cluster.Pod{aPod("a", "overutilized", 600, gib), aPod("b", "overutilized", 600, gib)}, maxMoves: 5,
		limits:    budget.Limits{InFlight: 1, PerNode: 9, PerNamespace: 9, PerWorkload: 1},
		wantMoves: []string{"a→cold"}, wantReason: "budget: 1 of 1 migrations in flight",
	}, {
		name:  "the cap on moves holds",
		nodes: []*cluster.Node{aNode("overutilized", 1.0, 0.2), aNode("cool", 0.1, 0.1), aNode("cold", 0, 0.1)},
		pods:  []*cluster.Pod{aPod("a", "overutilized", 600, gib), aPod("b", "overutilized", 600, gib)}, limits: plenty, maxMoves: 1,
		wantMoves: []string{"a→cold"}, wantReason: "as many moves as one cycle may make",
	}, {
		name:  "an immovable pod stays and its reason is reported",
		nodes: []*cluster.Node{aNode("overutilized", 0.9, 0.2), aNode("cool", 0.1, 0.1)},
		pods:  []*cluster.Pod{immovable(aPod("a", "overutilized", 1000, gib), "moved less than 10m ago")}, limits: plenty, maxMoves: 5,
		wantReason: "moved less than 10m ago",
	}, {
		name: "a skipped node is neither relieved nor used",
		nodes: []*cluster.Node{
			func() *cluster.Node {
				n := aNode("overutilized", 0.9, 0.2)
				n.Skipped = "a migration is in flight"
				return n
			}(),
			aNode("cool", 0.1, 0.1)},
		pods: []*cluster.Pod{aPod("a", "overutilized", 1000, gib)}, limits: plenty, maxMoves: 5,
		wantReason: "a migration is in flight",
	}, {
		name: "a node that cannot be scheduled to is no destination",
		nodes: []*cluster.Node{aNode("overutilized", 0.9, 0.2), aNode("warm", 0.2, 0.2),
			func() *cluster.Node { n := aNode("cordoned", 0, 0); n.Schedulable = false; return n }()},
		pods: []*cluster.Pod{aPod("a", "overutilized", 1000, gib)}, limits: plenty, maxMoves: 5,
		wantMoves: []string{"a→warm"},
	}, {
		name: "no other node takes pods",
		nodes: []*cluster.Node{aNode("overutilized", 0.9, 0.2),
			func() *cluster.Node { n := aNode("cordoned", 0, 0); n.Schedulable = false; return n }()},
		pods: []*cluster.Pod{aPod("a", "overutilized", 1000, gib)}, limits: plenty, maxMoves: 5,
		wantReason: "the other nodes take no new pods",
	}, {
		name: "all other nodes are skipped",
		nodes: []*cluster.Node{aNode("overutilized", 0.9, 0.2),
			func() *cluster.Node { n := aNode("unknown", 0, 0); n.Skipped = "not measured"; return n }()},
		pods: []*cluster.Pod{aPod("a", "overutilized", 1000, gib)}, limits: plenty, maxMoves: 5,
		wantReason: "the other nodes are skipped",
	}, {
		name:  "a pod that uses almost nothing is not worth a move",
		nodes: []*cluster.Node{aNode("overutilized", 0.9, 0.2), aNode("cool", 0.1, 0.1)},
		pods:  []*cluster.Pod{aPod("a", "overutilized", 4, gib/1024)}, limits: plenty, maxMoves: 5,
		wantReason: "gain less than it costs",
	}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			feasibility := &refusing{nodes: tt.refused}
			plan, err := Make(t.Context(), cluster.NewSnapshot(noon, tt.nodes, tt.pods), feasibility,
				Options{Thresholds: defaultTest, MaxMoves: tt.maxMoves, Budget: budget.NewLedger(tt.limits)})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.wantMoves, feasibility.placed); diff != "" {
				t.Errorf("moves (-want +got):\n%s", diff)
			}
			if len(plan.Moves) != len(tt.wantMoves) {
				t.Errorf("plan has %d moves, want %d", len(plan.Moves), len(tt.wantMoves))
			}
			var reasons []string
			for _, overutilized := range plan.StillOverutilized {
				reasons = append(reasons, overutilized.Reasons...)
			}
			if got := strings.Join(reasons, "; "); !strings.Contains(got, tt.wantReason) || (tt.wantReason == "") != (got == "") {
				t.Errorf("reasons for what stays overutilized = %q, want %q", got, tt.wantReason)
			}
		})
	}
}

func TestMakeReturnsTheErrorOfTheFeasibility(t *testing.T) {
	broken := errors.New("informers have stopped")
	snapshot := cluster.NewSnapshot(noon, []*cluster.Node{aNode("overutilized", 0.9, 0), aNode("cool", 0, 0)}, []*cluster.Pod{aPod("a", "overutilized", 1000, gib)})
	_, err := Make(t.Context(), snapshot, &refusing{err: broken},
		Options{Thresholds: defaultTest, MaxMoves: 1, Budget: budget.NewLedger(plenty)})
	if !errors.Is(err, broken) {
		t.Fatalf("error = %v, want one that wraps %v", err, broken)
	}
}

// never is a scheduler that refuses everything, and counts.
type never struct{ asked map[string]int }

func (n never) Fits(_ context.Context, pod *corev1.Pod, node string) (string, error) {
	n.asked[pod.Name+"→"+node]++
	return "no", nil
}

func (never) Place(*corev1.Pod, string) error { return nil }
func (never) Remove(*corev1.Pod) error        { return nil }

func TestTheSchedulerIsAskedOnceAndNotForEver(t *testing.T) {
	const podCount, nodeCount = 150, 120
	overutilized := aNode("overutilized", 0, 0)
	var pods []*cluster.Pod
	for i := range podCount {
		pods = append(pods, aPod(fmt.Sprint("pod-", i), "overutilized", 200, gib))
	}
	overutilized.Allocatable, overutilized.Measured.MilliCPU = cluster.Resources{MilliCPU: 10_000, Memory: 200 * gib}, 30_000
	nodes := []*cluster.Node{overutilized}
	for i := range nodeCount {
		nodes = append(nodes, aNode(fmt.Sprint("node-", i), 0.1, 0.1))
	}
	scheduler := never{asked: map[string]int{}}
	plan, err := Make(t.Context(), cluster.NewSnapshot(noon, nodes, pods), scheduler,
		Options{Thresholds: defaultTest, MaxMoves: 5, Budget: budget.NewLedger(plenty)})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for pair, times := range scheduler.asked {
		total += times
		if times > 1 {
			t.Fatalf("the scheduler was asked %d times about %s", times, pair)
		}
	}
	if total != maxQuestions {
		t.Errorf("the scheduler was asked %d times, want the limit of %d", total, maxQuestions)
	}
	if got := strings.Join(plan.StillOverutilized[0].Reasons, "; "); !strings.Contains(got, "too many questions") {
		t.Errorf("the limit is not told: %s", got)
	}
}

func TestARefusalIsRemembered(t *testing.T) {
	// The best destination of every pod refuses; each of two steps meets it.
	nodes := []*cluster.Node{aNode("overutilized", 1.0, 0.2), aNode("warm", 0.2, 0.1), aNode("cold", 0, 0.1)}
	pods := []*cluster.Pod{aPod("a", "overutilized", 700, gib), aPod("b", "overutilized", 700, gib)}
	feasibility := &refusing{nodes: map[string]string{"cold": "no"}, asked: map[string]int{}}
	plan, err := Make(t.Context(), cluster.NewSnapshot(noon, nodes, pods), feasibility,
		Options{Thresholds: defaultTest, MaxMoves: 5, Budget: budget.NewLedger(plenty)})
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Moves) != 2 {
		t.Fatalf("%d moves, want 2", len(plan.Moves))
	}
	for _, pair := range []string{"a→cold", "b→cold"} {
		if times := feasibility.asked[pair]; times != 1 {
			t.Errorf("the scheduler was asked %d times about %s", times, pair)
		}
	}
}

func TestStrippingMakesAPodFit(t *testing.T) {
	stripped := aPod("a", "overutilized", 1000, gib)
	stripped.Requests.MilliCPU, stripped.StrippedRequests.MilliCPU = 4000, 700
	filler := aPod("filler", "cool", 3000, gib)
	filler.Measured = nil
	filler.Immovable = "not measured"
	snapshot := cluster.NewSnapshot(noon, []*cluster.Node{aNode("overutilized", 0.9, 0.1), aNode("cool", 0.1, 0.1)}, []*cluster.Pod{stripped, filler})
	plan, err := Make(t.Context(), snapshot, &refusing{}, Options{Thresholds: defaultTest, MaxMoves: 5, Budget: budget.NewLedger(plenty)})
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Moves) != 1 || plan.FreedRequests().MilliCPU != 3300 {
		t.Fatalf("moves %d, freed %dm, want 1 move that frees 3300m", len(plan.Moves), plan.FreedRequests().MilliCPU)
	}
}
