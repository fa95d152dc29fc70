package documents

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/ai-storage/orchestrator/internal/world"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/observe"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

// traces are the loads of a node in percent, measured every 30 s, the last one now.
var traces = []struct {
	name  string
	loads []int64
}{
	{"steady 30 %, with 90 % once in 5 min", []int64{30, 30, 30, 30, 90, 30, 30, 30, 30, 30}},
	{"90 % for the last 60 s", []int64{30, 30, 30, 30, 30, 30, 30, 30, 90, 90}},
	{"30 % for the last 60 s", []int64{90, 90, 90, 90, 90, 90, 90, 90, 30, 30}},
}

func signalsEffect(t *testing.T) table {
	b := table{head: []string{"signals"}}
	for _, trace := range traces {
		b.head = append(b.head, trace.name)
	}
	for _, try := range append([]trial{{"the defaults", ""}}, trials("signals: {percentile: 50}", "signals: {percentile: 100}",
		"signals: {window: 90s}", "signals: {percentile: 1, halfLife: 15s}", "signals: {percentile: 1, halfLife: 5m}")...) {
		row := []string{try.shown}
		for _, trace := range traces {
			node := measure(t, try.arguments, trace.loads)
			row = append(row, fmt.Sprintf("%d %%, smoothed %d %%", node.Measured.MilliCPU/10, node.Smoothed.MilliCPU/10))
		}
		b.rows = append(b.rows, row)
	}
	return b
}

// measure is a node of one core after so many measurements.
func measure(t *testing.T, arguments string, percent []int64) *cluster.Node {
	t.Helper()
	options, err := rebalance.ObserveOptions(configuration(t, arguments).Rebalance)
	if err != nil {
		t.Fatal(err)
	}
	w := world.New(1, 0, seed)
	w.Nodes[0].Status.Allocatable[corev1.ResourceCPU] = milli(1000)
	var snapshot *cluster.Snapshot
	for i, p := range percent {
		w.At = world.Noon.Add(time.Duration(i) * 30 * time.Second)
		observation := w.Observation()
		observation.NodeMetrics = []metricsv1beta1.NodeMetrics{{ObjectMeta: metav1.ObjectMeta{Name: w.Nodes[0].Name}, Timestamp: metav1.NewTime(w.At),
			Window: metav1.Duration{Duration: 20 * time.Second}, Usage: corev1.ResourceList{corev1.ResourceCPU: milli(10 * p)}}}
		options.MetricsHistory.Record(observation)
		snapshot = observe.Build(observation, options)
	}
	return snapshot.Nodes[0]
}

// always is a clock whose ticker is always ready.
type always struct{ *clocktesting.FakeClock }

type ready struct{ ticks chan time.Time }

func (always) NewTicker(time.Duration) clock.Ticker {
	ticks := make(chan time.Time)
	close(ticks)
	return ready{ticks}
}

func (r ready) C() <-chan time.Time { return r.ticks }
func (r ready) Stop()               {}

// yes lets every move through: the filters are asked elsewhere.
type yes struct{}

func (yes) Session(*cluster.Snapshot) planner.Feasibility                         { return yes{} }
func (yes) Fits(context.Context, *corev1.Pod, string) (refusal string, err error) { return "", nil }
func (yes) Place(*corev1.Pod, string) error                                       { return nil }
func (yes) Remove(*corev1.Pod) error                                              { return nil }

// film shows a world that advances by one interval in every cycle.
type film struct {
	world    *world.World
	interval time.Duration
	cycle    int
	change   func(cycle int, w *world.World)
	isOver   func() bool
	end      context.CancelFunc
}

func (f *film) Observe(ctx context.Context) (*observe.Observation, error) {
	f.cycle++
	if f.cycle > 20 || f.isOver() {
		f.cycle--
		f.end()
		return nil, context.Canceled
	}
	f.world.At = world.Noon.Add(time.Duration(f.cycle) * f.interval)
	f.change(f.cycle, f.world)
	return f.world.Observation(), nil
}

// firstMove runs the loop until it creates a migration, and returns how long
// after its first cycle that was; "never" when it did not within 20 cycles.
func firstMove(t *testing.T, arguments string, change func(cycle int, w *world.World)) string {
	t.Helper()
	read := configuration(t, arguments)
	w := newWorld()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	builder := ctrlfake.NewClientBuilder().WithScheme(scheme)
	for _, node := range w.Nodes {
		builder.WithObjects(node.DeepCopy())
	}
	for _, pod := range w.Pods {
		builder.WithObjects(pod.DeepCopy())
	}
	api := builder.Build()
	options, err := rebalance.ObserveOptions(read.Rebalance)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reel := &film{world: w, interval: read.Rebalance.Interval.Duration, change: change, isOver: func() bool { return begun(t, api) > 0 }, end: cancel}
	loop := &rebalance.Loop{
		Observer: reel, Simulator: yes{}, Live: api, Writer: api, Args: read.Rebalance, Options: options,
		Clock: always{clocktesting.NewFakeClock(w.At)}, Metrics: rebalance.NewMetrics(prometheus.NewRegistry()),
		StatusStore: &rebalance.StatusStore{Live: api, Writer: api, Namespace: "ai-storage-system"},
	}
	if err := loop.Start(quiet(ctx)); err != nil {
		t.Fatal(err)
	}
	if begun(t, api) == 0 {
		return "never"
	}
	return fmt.Sprintf("after %s (cycle %d)", short(time.Duration(reel.cycle-1)*reel.interval), reel.cycle)
}

func begun(t *testing.T, api client.Client) int {
	list := &v1alpha1.PodMigrationList{}
	if err := api.List(context.Background(), list); err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}

func abnormalCyclesEffect(t *testing.T) table {
	b := table{head: []string{"arguments", "first move, when nodes stay overutilized", "first move, when they are overutilized in the first cycle alone"}}
	stays := func(int, *world.World) {}
	passes := func(cycle int, w *world.World) {
		if cycle == 2 {
			for _, node := range w.Nodes[:overutilizedNodes] {
				heat(w, node, 0.25)
			}
		}
	}
	for _, try := range trials("abnormalCycles: 1", "abnormalCycles: 3", "abnormalCycles: 6", "{abnormalCycles: 3, interval: 15s}", "{abnormalCycles: 3, interval: 1m}") {
		b.rows = append(b.rows, []string{try.shown, firstMove(t, try.arguments, stays), firstMove(t, try.arguments, passes)})
	}
	return b
}

// ended is a finished migration of a pod by the loop.
func ended(pod string, at time.Time, phase v1alpha1.Phase) v1alpha1.PodMigration {
	finished := metav1.NewMicroTime(at)
	return v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: pod + at.Format("-150405"), Labels: map[string]string{v1alpha1.CreatedByLabel: v1alpha1.CreatedByRebalancer}},
		Spec:       v1alpha1.PodMigrationSpec{PodName: pod},
		Status:     v1alpha1.PodMigrationStatus{Phase: phase, Times: v1alpha1.StepTimes{Finished: &finished}},
	}
}

func cooldownEffect(t *testing.T) table {
	b := table{head: []string{"arguments", "1 migration", "2", "3", "4", "5"}}
	for _, try := range append([]trial{{"the defaults", ""}}, trials("cooldown: 30m", "{cooldown: 30m, maxCooldown: 1h}", "cooldown: 0s")...) {
		row := []string{try.shown}
		for count := 1; count <= 5; count++ {
			row = append(row, staysFor(t, try.arguments, count))
		}
		b.rows = append(b.rows, row)
	}
	return b
}

// staysFor is how long a workload cools down after so many migrations, which
// ended an hour apart.
func staysFor(t *testing.T, arguments string, count int) string {
	t.Helper()
	options, err := rebalance.ObserveOptions(configuration(t, arguments).Rebalance)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld()
	observation := w.Observation()
	pod := observation.Pods[0].DeepCopy()
	pod.OwnerReferences, pod.Spec.SchedulerName = nil, v1alpha1.SchedulerName
	observation.Pods = []*corev1.Pod{pod}
	for i := range count {
		observation.Migrations = append(observation.Migrations, ended(pod.Name, w.At.Add(-time.Duration(i)*time.Hour), v1alpha1.PhaseSucceeded))
	}
	for _, c := range observe.Cooldowns(observation, options) {
		return short(c.Until.Sub(w.At))
	}
	return "not at all"
}

func circuitBreakerEffect(t *testing.T) table {
	b := table{head: []string{"arguments", "last migrations of the loop", "breaker", "moves that may begin"}}
	for _, try := range []struct {
		trial
		good, failed int
		ago          time.Duration
	}{
		{trial{"the defaults", ""}, 6, 4, 0},
		{trial{"the defaults", ""}, 5, 5, 0},
		{trial{"the defaults", ""}, 0, 4, 0},
		{trial{"the defaults", ""}, 5, 5, 31 * time.Minute},
		{trial{"`circuitBreaker: {failurePercent: 20}`", "circuitBreaker: {failurePercent: 20}\n"}, 8, 2, 0},
		{trial{"`circuitBreaker: {migrations: 4}`", "circuitBreaker: {migrations: 4}\n"}, 2, 2, 0},
		{trial{"`circuitBreaker: {openFor: 2h}`", "circuitBreaker: {openFor: 2h}\n"}, 5, 5, 31 * time.Minute},
		{trial{"`circuitBreaker: {window: 5m}`, one failure in 3 min", "circuitBreaker: {window: 5m}\n"}, 0, 5, 0},
	} {
		w := newWorld()
		observation := w.Observation()
		for i := range try.good + try.failed {
			phase := v1alpha1.PhaseSucceeded
			if i < try.failed {
				phase = v1alpha1.PhaseFailed // the last ones
			}
			observation.Migrations = append(observation.Migrations, ended(fmt.Sprint("gone-", i), w.At.Add(-try.ago-time.Duration(3*i)*time.Minute), phase))
		}
		status := plan(t, observation, try.arguments)
		allowed := "all of the plan"
		if status.Held != "" {
			allowed = status.Held
		}
		last := fmt.Sprintf("%d good, then %d failed", try.good, try.failed)
		if try.ago > 0 {
			last += ", 31 min ago"
		}
		b.rows = append(b.rows, []string{try.shown, last, string(status.Breaker.State), allowed})
	}
	return b
}
