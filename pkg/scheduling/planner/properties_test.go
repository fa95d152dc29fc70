package planner

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/internal/race"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

const testGPU = corev1.ResourceName("example.com/gpu")

// randomSnapshot is a cluster whose pods lie where chance put them, within the
// nodes' room; some clusters are nearly full.
func randomSnapshot(seed uint64) *cluster.Snapshot {
	rng := rand.New(rand.NewPCG(seed, 1))
	nodeCount, podCount := 2+rng.IntN(12), rng.IntN(120)
	nodes, room := make([]*cluster.Node, nodeCount), map[string]cluster.Resources{}
	for i := range nodes {
		nodes[i] = aNode(fmt.Sprintf("node-%02d", i), 0, 0)
		nodes[i].Schedulable = rng.IntN(10) > 0
		if rng.IntN(3) == 0 {
			nodes[i].Allocatable.Scalar = map[corev1.ResourceName]int64{testGPU: 4, corev1.ResourcePods: 8 + rng.Int64N(20)}
		}
		if rng.IntN(15) == 0 {
			nodes[i].Skipped = "because"
		}
		room[nodes[i].Name] = nodes[i].Allocatable
	}
	var pods []*cluster.Pod
	for i := range podCount {
		on := nodes[min(rng.IntN(nodeCount), rng.IntN(nodeCount))]
		p := aPod(fmt.Sprintf("pod-%02d", i), on.Name, 50+rng.Int64N(900), rng.Int64N(3*gib))
		p.Workload = fmt.Sprint("ReplicaSet/ns/", rng.IntN(20))
		p.Requests.MilliCPU += rng.Int64N(200)
		if on.Allocatable.Scalar != nil && rng.IntN(3) == 0 {
			p.Requests.Scalar = map[corev1.ResourceName]int64{testGPU: 1 + rng.Int64N(2)}
			p.StrippedRequests.Scalar = p.Requests.Scalar
		}
		if rng.IntN(5) == 0 {
			p.Immovable = "because"
		}
		if !p.Requests.FitsIn(room[on.Name]) || on.Allocatable.Scalar != nil && room[on.Name].Scalar[corev1.ResourcePods] < 1 {
			continue
		}
		room[on.Name] = room[on.Name].Sub(withPodCount(p.Requests))
		on.Measured.MilliCPU += p.Measured.MilliCPU
		on.Measured.Memory += p.Measured.Memory
		pods = append(pods, p)
	}
	rng.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
	rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	return cluster.NewSnapshot(noon, nodes, pods)
}

func withPodCount(r cluster.Resources) cluster.Resources {
	return r.Add(cluster.Resources{Scalar: map[corev1.ResourceName]int64{corev1.ResourcePods: 1}})
}

// randomOptions draws strategies, caps and thresholds.
func randomOptions(seed uint64) Options {
	rng := rand.New(rand.NewPCG(seed, 2))
	o := Options{Thresholds: defaultTest, MaxMoves: 1 + rng.IntN(20), Seed: seed}
	switch rng.IntN(4) {
	case 1:
		o.Weights = Weights{Consolidate: 1}
	case 2:
		o.Weights = Weights{Defragment: 2}
	case 3:
		o.Weights = Weights{Balance: 1, Consolidate: 0.5, Defragment: 1}
	}
	o.Shapes = []cluster.Resources{{MilliCPU: 2000, Memory: 4 * gib}, {Scalar: map[corev1.ResourceName]int64{testGPU: 4}}}
	if rng.IntN(3) == 0 {
		o.Deviation = &Thresholds{CPU: 0.1, Memory: 0.15}
	}
	if rng.IntN(3) == 0 {
		o.MinimumGain = 2
	}
	return o
}

var tight = budget.Limits{InFlight: 12, PerNode: 3, PerNamespace: 10, PerWorkload: 2}

// moody is a scheduler that refuses one pair in five, always the same, and that
// lets no node have two placed replacements whose names end in the same digit.
type moody struct{ placed map[*corev1.Pod]string }

func (m *moody) Fits(_ context.Context, pod *corev1.Pod, node string) (string, error) {
	hash := fnv.New32()
	hash.Write([]byte(pod.Name + node))
	if hash.Sum32()%5 == 0 {
		return "moody", nil
	}
	for other, on := range m.placed {
		if on == node && other != pod && other.Name[len(other.Name)-1] == pod.Name[len(pod.Name)-1] {
			return "two alike", nil
		}
	}
	return "", nil
}

func (m *moody) Place(pod *corev1.Pod, node string) error { m.placed[pod] = node; return nil }
func (m *moody) Remove(pod *corev1.Pod) error             { delete(m.placed, pod); return nil }

// withReplacements gives every pod a replacement that can be distinguished from it.
func withReplacements(snapshot *cluster.Snapshot) *cluster.Snapshot {
	for _, p := range snapshot.Pods {
		replacement := p.Object.DeepCopy()
		p.Replacement = func() *corev1.Pod { return replacement }
	}
	return snapshot
}

func TestPlanProperties(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	waiting, total := 0, 0
	for seed := range race.Examples(200) {
		snapshot, options := withReplacements(randomSnapshot(seed)), randomOptions(seed)
		var first []byte
		for _, workers := range []int{1, 2, 8} {
			runtime.GOMAXPROCS(workers)
			options.Budget = budget.NewLedger(tight)
			plan, err := Make(t.Context(), snapshot, &moody{placed: map[*corev1.Pod]string{}}, options)
			if err != nil {
				t.Fatal(err)
			}
			encoded, err := json.Marshal(plan)
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = encoded
				check(t, seed, snapshot, plan, options)
				for _, move := range plan.Moves {
					total++
					waiting += min(1, len(move.After))
				}
			} else if !bytes.Equal(first, encoded) {
				t.Fatalf("seed %d: with %d workers the plan is another one:\n%s\n%s", seed, workers, first, encoded)
			}
		}
	}
	if !race.Enabled && (total < 250 || waiting < 3) {
		t.Errorf("%d moves, %d of which wait for others: the clusters put nothing to the test", total, waiting)
	}
}

// check judges a plan by nothing but the snapshot.
func check(t *testing.T, seed uint64, snapshot *cluster.Snapshot, plan *Plan, options Options) {
	t.Helper()
	pods := map[cluster.PodKey]*cluster.Pod{}
	for _, p := range snapshot.Pods {
		pods[p.Key()] = p
	}
	if len(plan.Moves) > options.MaxMoves {
		t.Fatalf("seed %d: %d moves, at most %d are allowed", seed, len(plan.Moves), options.MaxMoves)
	}
	perNode, perWorkload, moved := map[string]int{}, map[string]int{}, map[cluster.PodKey]bool{}
	cost := 0.0
	for i, move := range plan.Moves {
		p := pods[move.Pod]
		if p == nil || p.Immovable != "" || p.NodeName != move.From || moved[move.Pod] || move.From == move.To {
			t.Fatalf("seed %d, move %d: %+v must not be", seed, i, move)
		}
		moved[move.Pod] = true
		for _, node := range []string{move.From, move.To} {
			if perNode[node]++; perNode[node] > tight.PerNode {
				t.Fatalf("seed %d, move %d: over the budget of node %s", seed, i, node)
			}
		}
		if perWorkload[move.Workload]++; perWorkload[move.Workload] > tight.PerWorkload || i >= tight.PerNamespace {
			t.Fatalf("seed %d, move %d: over the budget", seed, i)
		}
		if !slices.IsSorted(move.After) || len(move.After) > 0 && move.After[len(move.After)-1] >= i {
			t.Fatalf("seed %d, move %d waits for %v", seed, i, move.After)
		}
		cost += move.Cost
	}
	checkObjective(t, seed, plan, cost*max(1, options.MinimumGain))
	checkLoads(t, seed, snapshot, plan, pods)
	for run := range uint64(6) {
		execute(t, seed, run, snapshot, plan, pods)
	}
}

func checkObjective(t *testing.T, seed uint64, plan *Plan, price float64) {
	t.Helper()
	if plan.After.Objective+price > plan.Before.Objective+1e-6 {
		t.Fatalf("seed %d: %f and moves for %f after %f make it worse", seed, plan.After.Objective, price, plan.Before.Objective)
	}
	gained := 0.0
	for _, move := range plan.Moves {
		gained += move.Gain
	}
	if math.Abs(plan.Before.Objective-plan.After.Objective-gained) > 1e-6 {
		t.Fatalf("seed %d: the moves gain %f, the objective falls from %f to %f", seed, gained, plan.Before.Objective, plan.After.Objective)
	}
}

// checkLoads counts the loads again, and that no node becomes overutilized.
func checkLoads(t *testing.T, seed uint64, snapshot *cluster.Snapshot, plan *Plan, pods map[cluster.PodKey]*cluster.Pod) {
	t.Helper()
	loads := map[string]int64{}
	for _, n := range snapshot.Nodes {
		loads[n.Name] = n.Measured.MilliCPU
	}
	takesIn := map[string]bool{}
	for _, move := range plan.Moves {
		loads[move.From] -= pods[move.Pod].Measured.MilliCPU
		loads[move.To] += pods[move.Pod].Measured.MilliCPU
		takesIn[move.To] = true
	}
	for i, n := range plan.After.Nodes {
		if math.Abs(n.CPU-float64(loads[n.Name])/float64(snapshot.Nodes[i].Allocatable.MilliCPU)) > 1e-9 {
			t.Fatalf("seed %d: node %s has load %f after the plan, want %dm", seed, n.Name, n.CPU, loads[n.Name])
		}
		if n.Overutilized && (takesIn[n.Name] || !plan.Before.Nodes[i].Overutilized) {
			t.Fatalf("seed %d: node %s is overutilized after the plan, and takes pods in", seed, n.Name)
		}
	}
}

// execute carries the plan out as the cluster would: a move may start when those
// it waits for have finished, takes its room at once, and gives back the room of
// its original when it finishes. Chance decides who comes next.
func execute(t *testing.T, seed, run uint64, snapshot *cluster.Snapshot, plan *Plan, pods map[cluster.PodKey]*cluster.Pod) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 100+run))
	room := map[string]cluster.Resources{}
	for _, n := range snapshot.Nodes {
		room[n.Name] = n.Allocatable
	}
	for _, p := range snapshot.Pods {
		room[p.NodeName] = room[p.NodeName].Sub(withPodCount(p.Requests))
	}
	limitsPods := func(node string) bool {
		i, _ := slices.BinarySearchFunc(snapshot.Nodes, node, func(n *cluster.Node, name string) int { return bytes.Compare([]byte(n.Name), []byte(name)) })
		_, limits := snapshot.Nodes[i].Allocatable.Scalar[corev1.ResourcePods]
		return limits
	}
	started, finished := make([]bool, len(plan.Moves)), make([]bool, len(plan.Moves))
	for done := 0; done < len(plan.Moves); {
		i := rng.IntN(len(plan.Moves))
		move := plan.Moves[i]
		p := pods[move.Pod]
		switch {
		case finished[i] || !started[i] && slices.ContainsFunc(move.After, func(j int) bool { return !finished[j] }):
		case !started[i]:
			started[i] = true
			need := p.StrippedRequests
			if limitsPods(move.To) {
				need = withPodCount(need)
			}
			if !need.FitsIn(room[move.To]) {
				t.Fatalf("seed %d, move %d: %s finds no room on %s: %+v in %+v", seed, i, move.Pod, move.To, need, room[move.To])
			}
			room[move.To] = room[move.To].Sub(withPodCount(p.StrippedRequests))
		default:
			finished[i] = true
			room[move.From] = room[move.From].Add(withPodCount(p.Requests))
			done++
		}
	}
}
