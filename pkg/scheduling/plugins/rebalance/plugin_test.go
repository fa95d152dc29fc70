package rebalance

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

var now = time.Unix(1_000_000, 0)

// answers is a metrics API.
type answers struct {
	items []metricsv1beta1.NodeMetrics
	err   error
}

func (a *answers) List(context.Context, metav1.ListOptions) (*metricsv1beta1.NodeMetricsList, error) {
	return &metricsv1beta1.NodeMetricsList{Items: a.items}, a.err
}

func used(node, cpu, memory string, at time.Time) metricsv1beta1.NodeMetrics {
	return metricsv1beta1.NodeMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: node},
		Timestamp:  metav1.NewTime(at),
		Window:     metav1.Duration{Duration: 20 * time.Second},
		Usage:      corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)},
	}
}

func newPlugin(t *testing.T, items ...metricsv1beta1.NodeMetrics) *Plugin {
	t.Helper()
	p := &Plugin{
		objective:    planner.Objective{Thresholds: planner.Thresholds{CPU: 0.7, Memory: 0.8}},
		measurements: newMeasurements(clocktesting.NewFakeClock(now), time.Minute),
	}
	if err := p.measurements.poll(context.Background(), &answers{items: items}); err != nil {
		t.Fatal(err)
	}
	return p
}

// nodeInfo is a node of 10 CPU and 10Gi.
func nodeInfo(name string, pods ...*corev1.Pod) fwk.NodeInfo {
	info := framework.NewNodeInfo(pods...)
	info.SetNode(st.MakeNode().Name(name).Capacity(map[corev1.ResourceName]string{"cpu": "10", "memory": "10Gi"}).Obj())
	return info
}

func asking(name, cpu string) *st.PodWrapper {
	return st.MakePod().Namespace("default").Name(name).UID(name).Req(map[corev1.ResourceName]string{"cpu": cpu})
}

func startedAt(pod *st.PodWrapper, at time.Time) *corev1.Pod {
	object := pod.Obj()
	start := metav1.NewTime(at)
	object.Status.StartTime = &start
	return object
}

// shrinking is a pod that requests little, of which its node still has to take what
// it was given before.
func shrinking(name, spec, given string, at time.Time) *corev1.Pod {
	pod := startedAt(asking(name, spec), at)
	before := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(given)}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: pod.Spec.Containers[0].Name, AllocatedResources: before, Resources: &corev1.ResourceRequirements{Requests: before},
	}}
	return pod
}

// score runs the plugin as the framework does.
func score(t *testing.T, p *Plugin, pod *corev1.Pod, nodes ...fwk.NodeInfo) map[string]int64 {
	t.Helper()
	state := framework.NewCycleState()
	if status := p.PreScore(context.Background(), state, pod, nodes); !status.IsSuccess() {
		t.Fatal(status)
	}
	var list fwk.NodeScoreList
	for _, node := range nodes {
		cost, status := p.Score(context.Background(), state, pod, node)
		if !status.IsSuccess() {
			t.Fatal(status)
		}
		list = append(list, fwk.NodeScore{Name: node.Node().Name, Score: cost})
	}
	if status := p.ScoreExtensions().NormalizeScore(context.Background(), state, pod, list); !status.IsSuccess() {
		t.Fatal(status)
	}
	scores := map[string]int64{}
	for _, s := range list {
		scores[s.Name] = s.Score
	}
	return scores
}

func TestScores(t *testing.T) {
	old := now.Add(-time.Hour)
	planned := func(node string) *corev1.Pod {
		return asking("p", "1").Label(v1alpha1.TargetNodeLabel, v1alpha1.LabelValue(node)).Obj()
	}
	longName := "node-with-a-name-that-is-longer-than-a-label-value-may-be.cluster.example.com"
	for _, tc := range []struct {
		name     string
		measured []metricsv1beta1.NodeMetrics
		pod      *corev1.Pod
		nodes    []fwk.NodeInfo
		want     map[string]int64
	}{
		{
			name:     "measured use counts, not requests",
			measured: []metricsv1beta1.NodeMetrics{used("asks", "1", "1Gi", now), used("works", "6", "1Gi", now)},
			pod:      asking("p", "1").Obj(),
			nodes:    []fwk.NodeInfo{nodeInfo("asks", startedAt(asking("a", "8"), old)), nodeInfo("works")},
			want:     map[string]int64{"asks": 100, "works": 0},
		},
		{
			name:  "requests where nothing is measured",
			pod:   asking("p", "1").Obj(),
			nodes: []fwk.NodeInfo{nodeInfo("full", startedAt(asking("a", "8"), old)), nodeInfo("empty")},
			want:  map[string]int64{"full": 0, "empty": 100},
		},
		{
			name:     "an old measurement does not count",
			measured: []metricsv1beta1.NodeMetrics{used("a", "9", "1Gi", now.Add(-time.Minute))},
			pod:      asking("p", "1").Obj(),
			nodes:    []fwk.NodeInfo{nodeInfo("a"), nodeInfo("b", startedAt(asking("x", "5"), old))},
			want:     map[string]int64{"a": 100, "b": 0},
		},
		{
			name:     "a burst does not all go to the node that was idle",
			measured: []metricsv1beta1.NodeMetrics{used("a", "1", "1Gi", now), used("b", "2", "1Gi", now)},
			pod:      asking("p", "1").Obj(),
			nodes:    []fwk.NodeInfo{nodeInfo("a", asking("assumed", "4").Obj(), startedAt(asking("young", "1"), now)), nodeInfo("b")},
			want:     map[string]int64{"a": 0, "b": 100},
		},
		{
			name:     "a young pod counts for what its node has given it",
			measured: []metricsv1beta1.NodeMetrics{used("a", "1", "1Gi", now), used("b", "2", "1Gi", now)},
			pod:      asking("p", "1").Obj(),
			nodes:    []fwk.NodeInfo{nodeInfo("a", shrinking("x", "10m", "4", now)), nodeInfo("b", startedAt(asking("y", "4"), old))},
			want:     map[string]int64{"a": 0, "b": 100},
		},
		{
			name:     "the pod itself counts",
			measured: []metricsv1beta1.NodeMetrics{used("a", "0", "1Gi", now), used("b", "0", "1Gi", now)},
			pod:      asking("p", "8").Obj(),
			nodes: []fwk.NodeInfo{nodeInfo("a"), nodeInfo("b", startedAt(
				st.MakePod().Namespace("default").Name("x").UID("x").Req(map[corev1.ResourceName]string{"cpu": "1", "memory": "1Gi"}), old))},
			want: map[string]int64{"a": 100, "b": 100},
		},
		{
			name:     "CPU that no memory is left for makes a node a little worse",
			measured: []metricsv1beta1.NodeMetrics{used("a", "0", "0", now), used("b", "0", "0", now)},
			pod:      asking("p", "1").Obj(),
			nodes: []fwk.NodeInfo{nodeInfo("a"), nodeInfo("b", startedAt(
				st.MakePod().Namespace("default").Name("x").UID("x").Req(map[corev1.ResourceName]string{"memory": "4Gi"}), old))},
			want: map[string]int64{"a": 100, "b": 60},
		},
		{
			name:     "nearly alike nodes get nearly alike scores",
			measured: []metricsv1beta1.NodeMetrics{used("a", "1000m", "1Gi", now), used("b", "1010m", "1Gi", now)},
			pod:      asking("p", "0").Obj(),
			nodes:    []fwk.NodeInfo{nodeInfo("a"), nodeInfo("b")},
			want:     map[string]int64{"a": 100, "b": 100},
		},
		{
			name:     "the planned node comes first, though another is cheaper",
			measured: []metricsv1beta1.NodeMetrics{used("a", "1", "1Gi", now), used("b", "5", "1Gi", now), used("c", "9", "1Gi", now)},
			pod:      planned("b"),
			nodes:    []fwk.NodeInfo{nodeInfo("a"), nodeInfo("b"), nodeInfo("c")},
			want:     map[string]int64{"a": 50, "b": 100, "c": 0},
		},
		{
			name:     "the planned node was filtered out",
			measured: []metricsv1beta1.NodeMetrics{used("a", "1", "1Gi", now), used("c", "9", "1Gi", now)},
			pod:      planned("b"),
			nodes:    []fwk.NodeInfo{nodeInfo("a"), nodeInfo("c")},
			want:     map[string]int64{"a": 100, "c": 0},
		},
		{
			name:     "a planned node whose name was cut for the label",
			measured: []metricsv1beta1.NodeMetrics{used(longName, "9", "1Gi", now), used("a", "1", "1Gi", now)},
			pod:      planned(longName),
			nodes:    []fwk.NodeInfo{nodeInfo(longName), nodeInfo("a")},
			want:     map[string]int64{longName: 100, "a": 50},
		},
		{
			name: "no nodes", pod: asking("p", "1").Obj(), want: map[string]int64{},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, score(t, newPlugin(t, tc.measured...), tc.pod, tc.nodes...)); diff != "" {
				t.Errorf("scores (-want +got):\n%s", diff)
			}
		})
	}
}

// The scheduler and the planner must agree on what a node costs.
func TestScoreIsThePlannersCost(t *testing.T) {
	p := newPlugin(t, used("a", "6500m", "4Gi", now))
	state := framework.NewCycleState()
	pod := asking("p", "1500m").Obj()
	if status := p.PreScore(context.Background(), state, pod, nil); !status.IsSuccess() {
		t.Fatal(status)
	}
	got, status := p.Score(context.Background(), state, pod, nodeInfo("a"))
	if !status.IsSuccess() {
		t.Fatal(status)
	}
	const gi = 1 << 30
	requested := cluster.Resources{MilliCPU: 1_500}
	want := p.objective.NodeCost(planner.NodeState{
		Allocatable: cluster.Resources{MilliCPU: 10_000, Memory: 10 * gi}, Used: cluster.Resources{MilliCPU: 8_000, Memory: 4 * gi},
		Requested: requested, Evictable: requested,
	})
	if diff := float64(got) - want*costUnit; diff > 1 || diff < -1 {
		t.Errorf("cost %d, want %v", got, want*costUnit)
	}
}

func TestErrorsKeepWhatWasMeasured(t *testing.T) {
	p := newPlugin(t, used("a", "1", "1Gi", now))
	if err := p.measurements.poll(context.Background(), &answers{err: errors.New("not served")}); err == nil {
		t.Fatal("no error")
	}
	if _, ok := p.measurements.fresh("a"); !ok {
		t.Error("a failed request threw away a fresh measurement")
	}
	if _, ok := p.measurements.fresh("b"); ok {
		t.Error("a measurement was invented")
	}
}

func TestRunPollsUntilTheEnd(t *testing.T) {
	clock := clocktesting.NewFakeClock(now)
	m := newMeasurements(clock, time.Minute)
	lister := make(chan []metricsv1beta1.NodeMetrics)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.run(ctx, listerFunc(func() []metricsv1beta1.NodeMetrics { return <-lister }))
	}()
	lister <- []metricsv1beta1.NodeMetrics{used("a", "1", "1Gi", now)}
	// The ticker is made before the first request, so it is there to be stepped.
	clock.Step(pollInterval)
	lister <- []metricsv1beta1.NodeMetrics{used("b", "1", "1Gi", now)}
	cancel()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("continues after the end")
	}
	if _, ok := m.fresh("b"); !ok {
		t.Error("the second answer did not arrive")
	}
	if _, ok := m.fresh("a"); ok {
		t.Error("a node that is no longer reported is still measured")
	}
}

type listerFunc func() []metricsv1beta1.NodeMetrics

func (f listerFunc) List(context.Context, metav1.ListOptions) (*metricsv1beta1.NodeMetricsList, error) {
	return &metricsv1beta1.NodeMetricsList{Items: f()}, nil
}

func TestSignature(t *testing.T) {
	p := newPlugin(t)
	sign := func(pod *corev1.Pod) []fwk.SignFragment {
		fragments, status := p.SignPod(context.Background(), pod)
		if !status.IsSuccess() {
			t.Fatal(status)
		}
		return fragments
	}
	base := sign(asking("a", "1").Obj())
	if !cmp.Equal(base, sign(asking("b", "1").Label("x", "y").Obj())) {
		t.Error("pods alike do not share a result")
	}
	if cmp.Equal(base, sign(asking("a", "2").Obj())) {
		t.Error("requests are not in the signature")
	}
	if cmp.Equal(base, sign(asking("a", "1").Label(v1alpha1.TargetNodeLabel, "n").Obj())) {
		t.Error("the planned node is not in the signature")
	}
}

// In mode Deviation the thresholds are points above a mean that a score does not know:
// no load is above a threshold. A threshold of 10 % would make all nodes overutilized.
func TestThresholdsOfTheArguments(t *testing.T) {
	for mode, want := range map[string]cluster.Utilization{
		config.ThresholdsAbsolute:  {CPU: 0.1, Memory: 0.2},
		config.ThresholdsDeviation: {CPU: 1, Memory: 1},
	} {
		if got := thresholdsOf(config.UtilizationThresholds{Mode: mode, CPU: 10, Memory: 20}); got != want {
			t.Errorf("mode %s: %v, want %v", mode, got, want)
		}
	}
}

func TestNewChecksItsArguments(t *testing.T) {
	for name, args := range map[string]runtime.Object{
		"wrong type": &config.CheckpointVolumeArgs{},
		"none":       nil,
		"bad value":  &config.RebalanceArgs{},
	} {
		if _, err := New(context.Background(), args, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
