package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

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

// replans is how often the cluster changes and is planned for again.
const replans = 5

// bench is one cluster with all that plans need.
type bench struct {
	settings
	world     *world.World
	options   observe.Options
	simulator *simulation.Simulator
	result    *Result
}

func measure(s settings) (*Result, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	simulator, err := newSimulator(ctx, s.configuration)
	if err != nil {
		return nil, err
	}
	b := &bench{settings: s, world: world.New(s.one, s.podsPerNode, s.seed), simulator: simulator, options: world.Options()}
	b.options.Assessments = observe.NewAssessments()
	b.result = &Result{Nodes: s.one, Pods: len(b.world.Pods)}
	observation := b.world.Observation()
	if b.result.InputMiB, err = peak(); err != nil {
		return nil, err
	}

	cpu := processorTime()
	plan, snapshot, took, building, err := b.plan(ctx, observation)
	if err != nil {
		return nil, err
	}
	b.result.CPU = (processorTime() - cpu).Seconds()
	b.result.First, b.result.FirstSnapshot = took.Seconds(), building.Seconds()
	b.describe(plan)
	if err := b.countRefused(ctx, snapshot, plan); err != nil {
		return nil, err
	}
	for range replans {
		b.world.Change(0.01)
		observation := b.world.Observation()
		cpu := processorTime()
		plan, snapshot, took, _, err := b.plan(ctx, observation)
		if err != nil {
			return nil, err
		}
		b.result.ReplanCPU += (processorTime() - cpu).Seconds() / replans
		b.result.Replans = append(b.result.Replans, took.Seconds())
		b.result.Replan = max(b.result.Replan, took.Seconds())
		if err := b.countRefused(ctx, snapshot, plan); err != nil {
			return nil, err
		}
	}
	b.result.PeakMiB, err = peak()
	return b.result, err
}

// plan does what the loop does with a observation. The time includes the snapshot
// and the simulation session.
func (b *bench) plan(ctx context.Context, observation *observe.Observation) (plan *planner.Plan, snapshot *cluster.Snapshot, took, building time.Duration, err error) {
	started := time.Now()
	snapshot = observe.Build(observation, b.options)
	building = time.Since(started)
	session := &counting{Feasibility: simulation.Filters{Simulator: b.simulator}.Session(snapshot)}
	plan, err = planner.Make(ctx, snapshot, session, planner.Options{
		Thresholds: planner.Thresholds{CPU: 0.7, Memory: 0.8}, MaxMoves: b.maxMoves, Seed: b.seed,
		Budget: budget.NewLedger(budget.Limits{InFlight: b.maxMoves, PerNode: 2, PerNamespace: b.maxMoves, PerWorkload: 1}),
	})
	took = time.Since(started)
	b.result.Questions += session.questions
	return plan, snapshot, took, building, err
}

// counting counts the questions to the scheduler.
type counting struct {
	planner.Feasibility
	questions int
}

func (c *counting) Fits(ctx context.Context, pod *corev1.Pod, node string) (string, error) {
	c.questions++
	return c.Feasibility.Fits(ctx, pod, node)
}

func (b *bench) describe(plan *planner.Plan) {
	for i := range plan.Before.Nodes {
		if plan.Before.Nodes[i].Overutilized {
			b.result.Overutilized++
		}
		if plan.After.Nodes[i].Overutilized {
			b.result.OverutilizedAfter++
		}
	}
	b.result.Moves = len(plan.Moves)
	b.result.DeviationBefore, b.result.DeviationAfter = plan.Before.CPUDeviation, plan.After.CPUDeviation
}

// countRefused carries a plan out in a fresh simulation: each replacement is
// asked about with everything in its place, and each original goes at the end,
// or before a move that waits for it.
func (b *bench) countRefused(ctx context.Context, snapshot *cluster.Snapshot, plan *planner.Plan) error {
	session := simulation.Filters{Simulator: b.simulator}.Session(snapshot)
	pods := make(map[cluster.PodKey]*cluster.Pod, len(snapshot.Pods))
	for _, pod := range snapshot.Pods {
		pods[pod.Key()] = pod
	}
	gone := map[int]bool{}
	for _, move := range plan.Moves {
		for _, earlier := range move.After {
			if !gone[earlier] {
				gone[earlier] = true
				if err := session.Remove(pods[plan.Moves[earlier].Pod].Object); err != nil {
					return err
				}
			}
		}
		refusal, err := session.Fits(ctx, pods[move.Pod].Replacement(), move.To)
		if err != nil {
			return err
		}
		if refusal != "" {
			b.result.Refused++
			fmt.Fprintf(os.Stderr, "refused: %s on %s: %s\n", move.Pod, move.To, refusal)
		}
		if err := session.Place(pods[move.Pod].Replacement(), move.To); err != nil {
			return err
		}
	}
	return nil
}

func newSimulator(ctx context.Context, path string) (*simulation.Simulator, error) {
	configuration, err := load.File(path)
	if err != nil {
		return nil, err
	}
	client := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "apps"}})
	factory := informers.NewSharedInformerFactory(client, 0)
	simulator, err := simulation.New(ctx, configuration.Scheduler, client, factory, nil)
	if err != nil {
		return nil, err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	return simulator, nil
}

func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// peak is the highest resident memory of this process so far, in MiB.
func peak() (float64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmHWM in /proc/self/status")
}
