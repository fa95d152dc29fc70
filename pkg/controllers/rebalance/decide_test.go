package rebalance

import (
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/observe"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

// measureAt lets the metrics API answer once more, with the same figures.
func (w *world) measureAt(at time.Time) {
	w.observation.At = at
	for i := range w.observation.NodeMetrics {
		w.observation.NodeMetrics[i].Timestamp = metav1.NewTime(at)
	}
	for i := range w.observation.PodMetrics {
		w.observation.PodMetrics[i].Timestamp = metav1.NewTime(at)
	}
}

// Three cycles see the node overutilized before pods leave it; cycles that see nothing new
// do not count, and a new loop starts from nothing.
func TestANodeMustBeOverutilizedForSeveralCycles(t *testing.T) {
	w := newWorld(t, 7)
	clock := clocktesting.NewFakeClock(noon)
	loop := newLoopWith(t, w, clock, defaultArgs(t))
	cycle := func(fresh bool) int {
		if clock.Step(30 * time.Second); fresh {
			w.measureAt(clock.Now())
		}
		w.observation.At = clock.Now()
		must(t, loop.cycle(t.Context()))
		return len(migrations(t, w))
	}
	for i, fresh := range []bool{true, false, true, false, false} {
		if created := cycle(fresh); created != 0 {
			t.Fatalf("%d migrations in cycle %d", created, i)
		}
	}
	loop = newLoopWith(t, w, clock, defaultArgs(t))
	for range 2 {
		if created := cycle(true); created != 0 {
			t.Fatalf("%d migrations by a new loop before its third cycle", created)
		}
	}
	if got := loop.Status().Abnormal; len(got) != 1 || got[0] != (AbnormalNode{"overutilized", 2}) {
		t.Errorf("abnormal: %+v", got)
	}
	if created := cycle(true); created != 2 {
		t.Errorf("%d migrations in the third cycle, want 2", created)
	}
}

func loaded(name string, cpu int64, at time.Time, change ...func(*cluster.Node)) *cluster.Node {
	usage := &cluster.Usage{MilliCPU: cpu, At: at}
	n := &cluster.Node{Name: name, Allocatable: cluster.Resources{MilliCPU: 1000, Memory: 1000}, Measured: usage, Smoothed: usage}
	for _, c := range change {
		c(n)
	}
	return n
}

func TestAbnormality(t *testing.T) {
	left := func(n *cluster.Node) { n.Skipped = "a migration from or to the node is in flight" }
	stabilizing := func(n *cluster.Node) { n.Skipped, n.Stabilizing = "measured once", true }
	peaking := func(n *cluster.Node) { n.Smoothed = &cluster.Usage{MilliCPU: 100, At: n.Smoothed.At} }
	for name, tt := range map[string]struct {
		cycles [][]func(*cluster.Node)
		loads  []int64
		want   int
	}{
		"overutilized all the time":     {make([][]func(*cluster.Node), 3), []int64{800, 900, 800}, 3},
		"lower in between":              {make([][]func(*cluster.Node), 3), []int64{800, 700, 800}, 1},
		"lower at last":                 {make([][]func(*cluster.Node), 3), []int64{800, 800, 700}, 0},
		"skipped in between":            {[][]func(*cluster.Node){nil, {left}, nil}, []int64{800, 800, 800}, 1},
		"stabilizing counts":            {[][]func(*cluster.Node){{stabilizing}, {stabilizing}, nil}, []int64{800, 800, 800}, 3},
		"only the peaks are still high": {[][]func(*cluster.Node){nil, nil, {peaking}}, []int64{800, 800, 800}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			a, args := &overutilizationTracker{}, defaultArgs(t)
			for i, load := range tt.loads {
				at := noon.Add(time.Duration(i) * time.Minute)
				a.record(cluster.NewSnapshot(at, []*cluster.Node{loaded("n", load, at, tt.cycles[i]...)}, nil), args)
			}
			if got := a.nodes["n"].cycles; got != tt.want {
				t.Errorf("overutilized for %d cycles, want %d", got, tt.want)
			}
			if a.sources(3)["n"] != (tt.want >= 3) {
				t.Errorf("sources: %v", a.sources(3))
			}
		})
	}
}

// Figures of another source are another matter: the count starts anew.
func TestTheTrackerForgetsWithTheSource(t *testing.T) {
	a, args := &overutilizationTracker{}, defaultArgs(t)
	for i, source := range []string{cluster.SourceMeasured, cluster.SourceMeasured, cluster.SourceRequests} {
		at := noon.Add(time.Duration(i) * time.Minute)
		snapshot := cluster.NewSnapshot(at, []*cluster.Node{loaded("n", 900, at)}, nil)
		snapshot.Source = source
		a.record(snapshot, args)
	}
	if got := a.nodes["n"].cycles; got != 1 {
		t.Errorf("overutilized for %d cycles, want 1", got)
	}
}

func TestDeviationCountsFromTheMeanOfThePool(t *testing.T) {
	args := defaultArgs(t)
	args.Thresholds = config.UtilizationThresholds{Mode: config.ThresholdsDeviation, CPU: 10, Memory: 10}
	inPool := func(pool int) func(*cluster.Node) { return func(n *cluster.Node) { n.Pool = pool } }
	a := &overutilizationTracker{}
	a.record(cluster.NewSnapshot(noon, []*cluster.Node{
		// Mean 300: overutilized is above 400.
		loaded("a", 410, noon, inPool(0)), loaded("b", 190, noon, inPool(0)),
		loaded("alone", 990, noon, inPool(0), func(n *cluster.Node) { n.Skipped = "the node is in another node pool" }),
		// Mean 800: overutilized is above 900.
		loaded("c", 890, noon, inPool(1)), loaded("d", 710, noon, inPool(1)),
	}, nil), args)
	if diff := cmp.Diff(map[string]bool{"a": true}, a.sources(1)); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}

func TestPoolsKeepTheirPods(t *testing.T) {
	w := newWorld(t, 7)
	for i, pool := range []string{"gpu", "cpu", "gpu"} { // overutilized, cool, cold
		w.observation.Nodes[i].Labels = map[string]string{"pool": pool}
	}
	args := defaultArgs(t)
	args.AbnormalCycles = 1
	args.NodePools = []metav1.LabelSelector{{MatchLabels: map[string]string{"pool": "cpu"}}, {MatchLabels: map[string]string{"pool": "gpu"}}}
	loop := newLoopWith(t, w, clocktesting.NewFakeClock(noon), args)
	must(t, loop.cycle(t.Context()))
	created := migrations(t, w)
	if len(created) != 2 {
		t.Errorf("%d migrations, want 2", len(created))
	}
	for _, m := range created {
		if m.Spec.PlannedNode != "cold" {
			t.Errorf("pod %s goes to node %s of the other pool", m.Spec.PodName, m.Spec.PlannedNode)
		}
	}
	status := loop.Status()
	if len(status.Plan.Before.Nodes) != 3 || len(status.Plan.After.Nodes) != 3 || len(status.Skipped) != 0 {
		t.Errorf("nodes before %v, after %v, skipped %v", status.Plan.Before.Nodes, status.Plan.After.Nodes, status.Skipped)
	}
	if status.After.Objective >= status.Before.Objective || status.After.CPUDeviation >= status.Before.CPUDeviation {
		t.Errorf("predicted %+v, then %+v", status.Before, status.After)
	}

	args.NodePools = args.NodePools[:1]
	status, err := newLoopWith(t, w, clocktesting.NewFakeClock(noon), args).DryRun(t.Context())
	must(t, err)
	if len(status.Skipped) != 2 || status.Skipped[0].Reason != "the node is in no node pool" {
		t.Errorf("skipped: %v", status.Skipped)
	}
}

func TestMovesThatWait(t *testing.T) {
	plan := &planner.Plan{Moves: []planner.Move{{Pod: cluster.PodKey{Name: "first"}}, {Pod: cluster.PodKey{Name: "second"}, After: []int{0}}}}
	other := &planner.Plan{Moves: []planner.Move{{Pod: cluster.PodKey{Name: "third"}}, {Pod: cluster.PodKey{Name: "fourth"}, After: []int{0}}}}
	whole := join(join(nil, plan, nil), other, nil)
	if after := whole.Moves[3].After; len(after) != 1 || after[0] != 2 {
		t.Errorf("the fourth move waits for %v, want the third", after)
	}
	status := &Status{Plan: whole, allowed: 3}
	if now := status.startable(); len(now) != 2 || now[0].Pod.Name != "first" || now[1].Pod.Name != "third" {
		t.Errorf("moves that may begin: %v", now)
	}
}

func TestPlanningOptions(t *testing.T) {
	args := defaultArgs(t)
	args.Strategies = []config.Strategy{{Name: config.StrategyBalance, Weight: 6}, {Name: config.StrategyConsolidate, Weight: 3}, {Name: config.StrategyDefragment, Weight: 1}}
	args.Shapes = []corev1.ResourceList{{"example.com/gpu": resource.MustParse("8")}}
	args.MinimumGain = 2
	waiting := &corev1.Pod{Spec: corev1.PodSpec{SchedulerName: "ai-storage-scheduler", Containers: []corev1.Container{{
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3")}}}}}}
	waiting.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable}}
	options := planningOptions(args, &observe.Observation{Pods: []*corev1.Pod{waiting}})
	if diff := cmp.Diff(planner.Weights{Balance: 0.6, Consolidate: 0.3, Defragment: 0.1}, options.Weights); diff != "" {
		t.Errorf("weights (-want +got):\n%s", diff)
	}
	want := []cluster.Resources{{MilliCPU: 3000}, {Scalar: map[corev1.ResourceName]int64{"example.com/gpu": 8}}}
	if diff := cmp.Diff(want, options.Shapes); diff != "" {
		t.Errorf("shapes, those of waiting pods first (-want +got):\n%s", diff)
	}
	if options.MinimumGain != 2 || options.Deviation != nil {
		t.Errorf("options: %+v", options)
	}
	args.Thresholds.Mode = config.ThresholdsDeviation
	if options := planningOptions(args, &observe.Observation{}); options.Deviation == nil || options.Deviation.CPU != 0.7 {
		t.Errorf("deviation: %+v", options.Deviation)
	}
}

func TestAMoveMustGainEnough(t *testing.T) {
	w := newWorld(t, 6)
	args := defaultArgs(t)
	for minimum, want := range map[float64]int{1: 1, 12: 1, 15: 0} {
		args.MinimumGain = minimum
		status, err := newLoopWith(t, w, clocktesting.NewFakeClock(noon), args).DryRun(t.Context())
		must(t, err)
		if status.Moves != want {
			t.Errorf("%d moves that gain %v times their cost, want %d", status.Moves, minimum, want)
		}
	}
}

// Without anything that measures, the same loop goes by requests, and says so.
func TestRequestsStandIn(t *testing.T) {
	w := newWorld(t, 7)
	w.observation.NodeMetrics, w.observation.PodMetrics, w.observation.Source = nil, nil, cluster.SourceRequests
	loop := newLoopWith(t, w, clocktesting.NewFakeClock(noon), defaultArgs(t))
	for i := range 3 {
		if created := migrations(t, w); len(created) != 0 {
			t.Errorf("%d migrations after %d cycles", len(created), i)
		}
		w.observation.At = noon.Add(time.Duration(i) * 30 * time.Second)
		must(t, loop.cycle(t.Context()))
	}
	if created := migrations(t, w); len(created) != 2 {
		t.Errorf("%d migrations, want 2", len(created))
	}
	var out strings.Builder
	must(t, WriteStatus(&out, loop.Status()))
	if loop.Status().Source != "Requests" || loop.Status().Plan.Source != "Requests" || !strings.Contains(out.String(), "source: Requests") {
		t.Errorf("the source is not reported:\n%s", out.String())
	}
}

// What is kept of the past must reach back further than the longest cooldown.
// The circuit breaker reads the ends of migrations as long as its window and the
// pause after it last: until then they are kept, however short the cooldowns are.
func TestHistoryOutlivesTheCircuitBreaker(t *testing.T) {
	for _, tt := range []struct{ window, openFor, want time.Duration }{
		{time.Hour, time.Hour, 24 * time.Hour},
		{72 * time.Hour, 0, 72 * time.Hour},
		{72 * time.Hour, 24 * time.Hour, 96 * time.Hour},
	} {
		args := defaultArgs(t)
		args.Cooldown.Duration, args.MaxCooldown.Duration = time.Minute, time.Minute
		args.CircuitBreaker.Window.Duration, args.CircuitBreaker.OpenFor.Duration = tt.window, tt.openFor
		if kept := time.Duration(*historySeconds(args)) * time.Second; kept != tt.want {
			t.Errorf("window %s, open for %s: a migration is kept for %s, want %s", tt.window, tt.openFor, kept, tt.want)
		}
	}
}

func TestHistoryOutlivesCooldowns(t *testing.T) {
	for _, tt := range []struct{ cooldown, longest time.Duration }{{10 * time.Minute, 2 * time.Hour}, {0, 168 * time.Hour}, {time.Nanosecond, 168 * time.Hour}, {168 * time.Hour, 168 * time.Hour}, {0, 0}} {
		args := defaultArgs(t)
		args.Cooldown.Duration, args.MaxCooldown.Duration = tt.cooldown, tt.longest
		kept := time.Duration(*historySeconds(args)) * time.Second
		if kept < 24*time.Hour || kept < tt.longest+observe.ResetWindow(tt.longest) {
			t.Errorf("cooldown %s to %s: a migration is kept for %s", tt.cooldown, tt.longest, kept)
		}
	}
}

// A dry run between two cycles changes nothing that the loop goes by: neither what
// it has measured, nor how often it has found a node overutilized, nor its status.
func TestADryRunRecordsNothing(t *testing.T) {
	w := newWorld(t, 7)
	clock := clocktesting.NewFakeClock(noon)
	loop := newLoopWith(t, w, clock, defaultArgs(t))
	must(t, loop.cycle(t.Context()))
	signals, tracked, status := loop.Options.MetricsHistory.Clone(), maps.Clone(loop.overutilized.nodes), loop.Status()
	for range 3 {
		clock.Step(30 * time.Second)
		w.measureAt(clock.Now())
		dry, err := loop.DryRun(t.Context())
		must(t, err)
		if !dry.DryRun || dry.Moves == 0 {
			t.Errorf("the dry run (%t) plans %d moves", dry.DryRun, dry.Moves)
		}
	}
	if !reflect.DeepEqual(signals, loop.Options.MetricsHistory) {
		t.Error("a dry run has recorded measurements")
	}
	if !reflect.DeepEqual(tracked, loop.overutilized.nodes) {
		t.Errorf("a dry run has counted: %v, before %v", loop.overutilized.nodes, tracked)
	}
	if loop.Status() != status {
		t.Error("a dry run has changed the status of the loop")
	}
	if created := len(migrations(t, w)); created != 0 {
		t.Errorf("a dry run has created %d migrations", created)
	}
}
