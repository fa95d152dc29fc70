package rebalance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/observe"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// world is a small cluster whose pods use what they ask for, with nothing in
// between: what the loop decides shows in the migrations that it creates.
type world struct {
	client.Client
	observation *observe.Observation
}

func (w *world) Observe(ctx context.Context) (*observe.Observation, error) {
	migrations := &v1alpha1.PodMigrationList{}
	if err := w.List(ctx, migrations); err != nil {
		return nil, err
	}
	w.observation.Migrations = migrations.Items
	return w.observation, nil
}

// yes is a scheduler that takes every pod everywhere.
type yes struct{}

func (yes) Session(*cluster.Snapshot) planner.Feasibility                       { return yes{} }
func (yes) Fits(context.Context, *corev1.Pod, string) (refusal string, _ error) { return "", nil }
func (yes) Place(*corev1.Pod, string) error                                     { return nil }
func (yes) Remove(*corev1.Pod) error                                            { return nil }

func newWorld(t *testing.T, pods int) *world {
	t.Helper()
	observation := &observe.Observation{At: noon, Claims: func(string) containers.ClaimLookup { return nil }, Owner: fixture.OwnerOf}
	usage := map[string]int64{"overutilized": 0, "cool": 0, "cold": 0}
	amounts := func(milliCPU int64) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(milliCPU, resource.DecimalSI), corev1.ResourceMemory: resource.MustParse("1Gi")}
	}
	var objects []client.Object
	for i := range pods {
		name := fmt.Sprint("pod-", i)
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(noon.Add(-time.Hour))},
			Spec: corev1.PodSpec{NodeName: "overutilized", SchedulerName: v1alpha1.SchedulerName,
				Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: amounts(500)}}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning,
				ContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}},
		}
		usage["overutilized"] += 500
		observation.Pods, objects = append(observation.Pods, pod), append(objects, pod.DeepCopy())
		observation.PodMetrics = append(observation.PodMetrics, metricsv1beta1.PodMetrics{ObjectMeta: pod.ObjectMeta, Timestamp: metav1.NewTime(noon),
			Containers: []metricsv1beta1.ContainerMetrics{{Name: "c", Usage: amounts(500)}}})
	}
	for _, name := range []string{"overutilized", "cool", "cold"} {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
			Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("64Gi")},
			Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		}}
		observation.Nodes, objects = append(observation.Nodes, node), append(objects, node.DeepCopy())
		observation.NodeMetrics = append(observation.NodeMetrics, metricsv1beta1.NodeMetrics{ObjectMeta: node.ObjectMeta,
			Timestamp: metav1.NewTime(noon), Window: metav1.Duration{Duration: 15 * time.Second}, Usage: amounts(usage[name])})
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return &world{Client: fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&v1alpha1.PodMigration{}).Build(), observation: observation}
}

func defaultArgs(t *testing.T) *config.RebalanceArgs {
	t.Helper()
	configuration, err := load.File("../../../config/scheduler-configuration.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return configuration.Rebalance
}

func newLoop(t *testing.T, w *world, clock clock.WithTicker) *Loop {
	t.Helper()
	args := defaultArgs(t)
	args.AbnormalCycles = 1
	return newLoopWith(t, w, clock, args)
}

func newLoopWith(t *testing.T, w *world, clock clock.WithTicker, args *config.RebalanceArgs) *Loop {
	t.Helper()
	options, err := ObserveOptions(args)
	if err != nil {
		t.Fatal(err)
	}
	return &Loop{Observer: w, Simulator: yes{}, Live: w, Writer: w, Args: args, Options: options,
		StatusStore: &StatusStore{Live: w, Writer: w, Namespace: "system"},
		Clock:       clock, Metrics: NewMetrics(prometheus.NewRegistry())}
}

func migrations(t *testing.T, w *world) []v1alpha1.PodMigration {
	t.Helper()
	list := &v1alpha1.PodMigrationList{}
	if err := w.List(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func TestCycleCreatesMigrations(t *testing.T) {
	w := newWorld(t, 7)
	loop := newLoop(t, w, clocktesting.NewFakeClock(noon))
	if err := loop.cycle(t.Context()); err != nil {
		t.Fatal(err)
	}
	created := migrations(t, w)
	if len(created) != 2 {
		t.Fatalf("%d migrations, want the 2 that bring 3.5 of 4 cores below 70%%", len(created))
	}
	spec := created[0].Spec
	if !strings.Contains(spec.Reason, "node overutilized is overutilized") {
		t.Errorf("reason %q does not say why", spec.Reason)
	}
	spec.Reason = ""
	want := v1alpha1.PodMigrationSpec{PodName: "pod-0", PodUID: "pod-0", SourceNode: "overutilized", PlannedNode: spec.PlannedNode,
		TimeoutSeconds: 600, TTLSecondsAfterFinished: new(int32(86400)),
		Checkpoint: v1alpha1.CheckpointSpec{Mode: v1alpha1.CheckpointFrozen, Claim: v1alpha1.ClaimNever}}
	if diff := cmp.Diff(want, spec); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
}

// Pods move with what they keep, those that were started for it with their memory; with a
// storage class of the loop's they get a claim, else they need none.
func TestMigrationsCarryState(t *testing.T) {
	for class, mode := range map[string]v1alpha1.CheckpointMode{"": v1alpha1.CheckpointFrozen, v1alpha1.ProcessRuntimeClass: v1alpha1.CheckpointProcess} {
		pod := &corev1.Pod{}
		if class != "" {
			pod.Spec.RuntimeClassName = &class
		}
		for storage, want := range map[string]v1alpha1.CheckpointSpec{
			"":       {Mode: mode, Claim: v1alpha1.ClaimNever},
			"shared": {Mode: mode, Claim: v1alpha1.ClaimAlways, StorageClassName: new("shared"), AccessMode: corev1.ReadWriteMany},
		} {
			args := &config.RebalanceArgs{CheckpointStorageClassName: storage}
			if diff := cmp.Diff(want, newMigration(&planner.Move{}, pod, args).Spec.Checkpoint); diff != "" {
				t.Errorf("runtime class %q, storage class %q (-want +got):\n%s", class, storage, diff)
			}
		}
	}
}

func TestCycleWaitsForMigrationsInFlight(t *testing.T) {
	w := newWorld(t, 8)
	loop := newLoop(t, w, clocktesting.NewFakeClock(noon))
	for range 3 {
		if err := loop.cycle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if created := migrations(t, w); len(created) != 2 {
		t.Errorf("%d migrations after three cycles, want the 2 that one node may have in flight", len(created))
	}
}

func TestCycleDropsStaleMoves(t *testing.T) {
	tests := []struct {
		name   string
		change func(t *testing.T, w *world, pod *corev1.Pod)
	}{
		{"gone", func(t *testing.T, w *world, pod *corev1.Pod) { must(t, w.Delete(t.Context(), pod)) }},
		{"recreated under the same name", func(t *testing.T, w *world, pod *corev1.Pod) {
			must(t, w.Delete(t.Context(), pod))
			pod.UID, pod.ResourceVersion = "another", ""
			must(t, w.Create(t.Context(), pod))
		}},
		{"moved meanwhile", func(t *testing.T, w *world, pod *corev1.Pod) {
			pod.Spec.NodeName = "cold"
			must(t, w.Update(t.Context(), pod))
		}},
		{"finished meanwhile", func(t *testing.T, w *world, pod *corev1.Pod) {
			pod.Status.Phase = corev1.PodSucceeded
			must(t, w.Status().Update(t.Context(), pod))
		}},
		{"excluded meanwhile", func(t *testing.T, w *world, pod *corev1.Pod) {
			metav1.SetMetaDataAnnotation(&pod.ObjectMeta, "karpenter.sh/do-not-disrupt", "true")
			must(t, w.Update(t.Context(), pod))
		}},
		{"destination cordoned", func(t *testing.T, w *world, _ *corev1.Pod) {
			for _, name := range []string{"cool", "cold"} {
				node := &corev1.Node{}
				must(t, w.Get(t.Context(), client.ObjectKey{Name: name}, node))
				node.Spec.Unschedulable = true
				must(t, w.Update(t.Context(), node))
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 6)
			loop := newLoop(t, w, clocktesting.NewFakeClock(noon))
			status, err := loop.DryRun(t.Context())
			must(t, err)
			plan := status.Plan
			if len(plan.Moves) != 1 {
				t.Fatalf("%d moves, want 1", len(plan.Moves))
			}
			pod := &corev1.Pod{}
			must(t, w.Get(t.Context(), client.ObjectKey{Namespace: "ns", Name: plan.Moves[0].Pod.Name}, pod))
			tt.change(t, w, pod)
			must(t, loop.act(t.Context(), &plan.Moves[0]))
			if created := migrations(t, w); len(created) != 0 {
				t.Errorf("a migration was created for a stale move: %+v", created[0].Spec)
			}
		})
	}
}

// rejecting is an API server that lets no migration of one pod in.
type rejecting struct {
	client.Writer
	pod string
}

func (r rejecting) Create(ctx context.Context, object client.Object, options ...client.CreateOption) error {
	if m := object.(*v1alpha1.PodMigration); m.Spec.PodName == r.pod {
		return errors.New("exceeded quota")
	}
	return r.Writer.Create(ctx, object, options...)
}

// A namespace that takes no migration must not keep those of others from being
// created, in this cycle and in every later one.
func TestCycleContinuesAfterAMoveThatFails(t *testing.T) {
	w := newWorld(t, 7)
	loop := newLoop(t, w, clocktesting.NewFakeClock(noon))
	status, err := loop.DryRun(t.Context())
	must(t, err)
	plan := status.Plan
	if len(plan.Moves) != 2 {
		t.Fatalf("%d moves, want 2", len(plan.Moves))
	}
	loop.Writer = rejecting{Writer: w, pod: plan.Moves[0].Pod.Name}
	if err := loop.cycle(t.Context()); err == nil || !strings.Contains(err.Error(), "exceeded quota") {
		t.Errorf("error = %v, want the API server's", err)
	}
	if created := migrations(t, w); len(created) != 1 || created[0].Spec.PodName != plan.Moves[1].Pod.Name {
		t.Errorf("created %v, want the migration of %s", created, plan.Moves[1].Pod)
	}
}

// TestNothingMovesTwiceWithinItsCooldown lets migrations succeed while the node
// stays overutilized by every later measurement, over a restart of the loop.
func TestNothingMovesTwiceWithinItsCooldown(t *testing.T) {
	w := newWorld(t, 8)
	clock := clocktesting.NewFakeClock(noon)
	seen := map[string]int{}
	for range 20 {
		loop := newLoop(t, w, clock) // a new one each time: it must remember nothing
		loop.Args.CircuitBreaker.Migrations = 1000
		must(t, loop.cycle(t.Context()))
		for _, m := range migrations(t, w) {
			if m.Status.Phase.IsFinished() {
				continue
			}
			seen[m.Spec.PodName]++
			m.Status.Phase = v1alpha1.PhaseFailed
			m.Status.Times.Finished = &metav1.MicroTime{Time: clock.Now()}
			must(t, w.Status().Update(t.Context(), &m))
		}
		clock.Step(25 * time.Second)
		w.observation.At = clock.Now()
		for i := range w.observation.NodeMetrics {
			w.observation.NodeMetrics[i].Timestamp = metav1.NewTime(clock.Now())
		}
		for i := range w.observation.PodMetrics {
			w.observation.PodMetrics[i].Timestamp = metav1.NewTime(clock.Now())
		}
	}
	if len(seen) != 8 {
		t.Errorf("%d pods were tried, want all 8", len(seen))
	}
	for pod, times := range seen {
		if times != 1 {
			t.Errorf("pod %s was tried %d times within its cooldown", pod, times)
		}
	}
}

func TestStartRunsACycleEveryInterval(t *testing.T) {
	w := newWorld(t, 6)
	clock := clocktesting.NewFakeClock(noon)
	loop := newLoop(t, w, clock)
	counted := &counting{Observer: w, seen: make(chan struct{})}
	loop.Observer = counted
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- loop.Start(ctx) }()
	<-counted.seen
	clock.Step(loop.Args.Interval.Duration)
	<-counted.seen
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Start returned %v when it was stopped", err)
	}
}

type counting struct {
	Observer
	seen chan struct{}
}

func (c *counting) Observe(ctx context.Context) (*observe.Observation, error) {
	c.seen <- struct{}{}
	return c.Observer.Observe(ctx)
}

func TestObserveOptionsRefusesABadSelector(t *testing.T) {
	args := defaultArgs(t)
	args.NodeSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "pool", Operator: "Near"}}}
	if _, err := ObserveOptions(args); err == nil || !strings.Contains(err.Error(), "nodeSelector") {
		t.Errorf("error = %v, want one that names nodeSelector", err)
	}
	args.NodeSelector = nil
	if options, err := ObserveOptions(args); err != nil || !options.Nodes.Matches(labels.Set{}) {
		t.Errorf("without a selector: %v, %v, want all nodes", options.Nodes, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
