package simulation_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ai-storage/orchestrator/internal/world"
	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/observe"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
	"github.com/ai-storage/orchestrator/pkg/scheduling/simulation"
)

func newSimulator(t *testing.T) *simulation.Simulator {
	t.Helper()
	configuration, err := load.File("../../../config/scheduler-configuration.yaml")
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "apps"}})
	factory := informers.NewSharedInformerFactory(client, 0)
	ctx, cancel := context.WithCancel(context.Background())
	simulator, err := simulation.New(ctx, configuration.Scheduler, client, factory, nil)
	if err != nil {
		t.Fatal(err)
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	t.Cleanup(func() {
		cancel()
		factory.Shutdown()
	})
	return simulator
}

// filters is the scheduler as the planner asks it.
type filters struct{ *simulation.Session }

func (f filters) Fits(ctx context.Context, pod *corev1.Pod, node string) (string, error) {
	verdict, err := f.Session.Fits(ctx, pod, node)
	if err != nil || verdict.Fits {
		return "", err
	}
	return verdict.Plugin + ": " + verdict.Reason, nil
}

// strategies are planned with in turn.
var strategies = []planner.Weights{{Balance: 1}, {Consolidate: 1}, {Balance: 1, Defragment: 2, Consolidate: 0.5}}

// The scheduler takes every move of a plan when its turn comes: with all earlier
// originals in place, and with all of them gone, asked of a simulation that has
// never seen the snapshot before.
func TestTheSchedulerTakesEveryMove(t *testing.T) {
	planning, judging := newSimulator(t), newSimulator(t)
	moves, constrained := 0, 0
	for seed := range uint64(4) {
		w := world.New(60, 20, seed)
		options := world.Options()
		options.Assessments = observe.NewAssessments()
		for cycle := range 4 {
			snapshot := observe.Build(w.Observation(), options)
			limits := budget.Limits{InFlight: 30, PerNode: 4, PerNamespace: 30, PerWorkload: 3}
			plan, err := planner.Make(t.Context(), snapshot, filters{planning.Session(snapshot)}, planner.Options{
				Weights: strategies[cycle%len(strategies)], Thresholds: planner.Thresholds{CPU: 0.6, Memory: 0.7},
				Shapes: []cluster.Resources{{MilliCPU: 8000, Memory: 16 << 30}}, MaxMoves: 30, Budget: budget.NewLedger(limits), Seed: seed,
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, goneEarly := range []bool{false, true} {
				constrained += judge(t, fmt.Sprintf("seed %d, cycle %d, originals gone: %t", seed, cycle, goneEarly), judging.Session(snapshot), snapshot, plan, goneEarly)
			}
			moves += len(plan.Moves)
			w.Change(0.05)
		}
	}
	if moves < 50 || constrained < 10 {
		t.Errorf("%d moves, %d of pods with affinity or spread: the clusters put nothing to the test", moves, constrained)
	}
	t.Logf("%d moves, %d of pods with affinity or spread, asked twice each", moves, constrained/2)
}

// judge asks about every move and returns how many pods had rules about others.
func judge(t *testing.T, when string, session *simulation.Session, snapshot *cluster.Snapshot, plan *planner.Plan, goneEarly bool) (constrained int) {
	t.Helper()
	pods := map[cluster.PodKey]*cluster.Pod{}
	for _, pod := range snapshot.Pods {
		pods[pod.Key()] = pod
	}
	gone := map[int]bool{}
	remove := func(i int) {
		if gone[i] {
			return
		}
		gone[i] = true
		if err := session.Remove(pods[plan.Moves[i].Pod].Object); err != nil {
			t.Fatal(err)
		}
	}
	for i, move := range plan.Moves {
		for _, earlier := range move.After {
			remove(earlier)
		}
		replacement := pods[move.Pod].Replacement()
		verdict, err := session.Fits(t.Context(), replacement, move.To)
		if err != nil {
			t.Fatal(err)
		}
		if !verdict.Fits {
			t.Errorf("%s, move %d: the scheduler refuses %s on %s: %s: %s", when, i, move.Pod, move.To, verdict.Plugin, verdict.Reason)
		}
		if err := session.Place(replacement, move.To); err != nil {
			t.Fatal(err)
		}
		if goneEarly {
			remove(i)
		}
		if spec := &replacement.Spec; len(spec.TopologySpreadConstraints) > 0 || spec.Affinity != nil && spec.Affinity.PodAntiAffinity != nil {
			constrained++
		}
	}
	return constrained
}
