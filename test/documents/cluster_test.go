package documents

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	clocktesting "k8s.io/utils/clock/testing"
	ctrlfake "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/yaml"

	"github.com/ai-storage/orchestrator/internal/world"
	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/scheduling/observe"
	"github.com/ai-storage/orchestrator/pkg/scheduling/simulation"
)

// The cluster of the effects: a fifth of the nodes uses overutilizedLoad of its CPU, the
// others about a quarter, of what podsPerNode pods on each request.
const (
	nodeCount         = 20
	podsPerNode       = 24
	overutilizedNodes = 4
	overutilizedLoad  = 0.90
	seed              = 7
)

func newWorld() *world.World {
	w := world.New(nodeCount, podsPerNode, seed)
	for _, node := range w.Nodes[:overutilizedNodes] {
		heat(w, node, overutilizedLoad)
	}
	for _, node := range w.Nodes[overutilizedNodes:] {
		heat(w, node, 0.25)
	}
	return w
}

// night is the same cluster with few pods and little load.
func night() *world.World {
	w := world.New(nodeCount, 10, seed)
	for _, node := range w.Nodes {
		heat(w, node, 0.12)
	}
	return w
}

// heat makes the pods of a node use a share of its CPU, each by its requests.
func heat(w *world.World, node *corev1.Node, share float64) {
	asked := int64(0)
	for _, pod := range w.Pods {
		if pod.Spec.NodeName == node.Name {
			asked += cpuRequest(pod)
		}
	}
	for _, pod := range w.Pods {
		if pod.Spec.NodeName == node.Name {
			cpu := share * float64(node.Status.Allocatable.Cpu().MilliValue()) * float64(cpuRequest(pod)) / float64(asked)
			w.Usage[pod.UID] = [2]int64{int64(cpu), w.Usage[pod.UID][1]}
		}
	}
}

func cpuRequest(pod *corev1.Pod) int64 {
	return pod.Spec.Containers[0].Resources.Requests.Cpu().MilliValue()
}

// observer shows one observation.
type observer struct{ observation *observe.Observation }

func (o observer) Observe(context.Context) (*observe.Observation, error) { return o.observation, nil }

// wide is a budget that does not get in the way of what is shown.
const wide = "budget: {maxInFlight: 50, maxInFlightPerNode: 50, maxInFlightPerNamespace: 50, maxInFlightPerWorkload: 50, maxMovesPerCycle: 50}\n"

// configuration is that of a user who sets these arguments of Rebalance alone.
func configuration(t *testing.T, arguments string) *load.Configuration {
	t.Helper()
	var args map[string]any
	if err := yaml.Unmarshal([]byte(arguments), &args); err != nil {
		t.Fatalf("arguments %q: %v", arguments, err)
	}
	read, err := load.Bytes(configurationOf(t, "Rebalance", args))
	if err != nil {
		t.Fatalf("arguments %q: %v", arguments, err)
	}
	return read
}

func configurationOf(t *testing.T, plugin string, args map[string]any) []byte {
	t.Helper()
	data, err := yaml.Marshal(map[string]any{
		"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
		"profiles": []any{map[string]any{
			"schedulerName": "ai-storage-scheduler",
			"plugins":       map[string]any{"multiPoint": map[string]any{"enabled": []any{map[string]any{"name": "CheckpointVolume"}, map[string]any{"name": "Rebalance"}}}},
			"pluginConfig":  []any{map[string]any{"name": plugin, "args": args}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// plan is what the loop would do in its first cycle, with the arguments, where
// the scheduler's own filters are asked.
func plan(t *testing.T, observation *observe.Observation, arguments string) *rebalance.Status {
	t.Helper()
	read := configuration(t, arguments)
	client := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "apps"}})
	factory := informers.NewSharedInformerFactory(client, 0)
	simulator, err := simulation.New(t.Context(), read.Scheduler, client, factory, nil)
	if err != nil {
		t.Fatal(err)
	}
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	options, err := rebalance.ObserveOptions(read.Rebalance)
	if err != nil {
		t.Fatal(err)
	}
	loop := &rebalance.Loop{
		Observer: observer{observation}, Simulator: simulation.Filters{Simulator: simulator}, Args: read.Rebalance, Options: options,
		Clock: clocktesting.NewFakeClock(observation.At), StatusStore: &rebalance.StatusStore{Live: ctrlfake.NewClientBuilder().Build(), Namespace: "ai-storage-system"},
	}
	status, err := loop.DryRun(quiet(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// quiet keeps the loop from logging.
func quiet(ctx context.Context) context.Context { return klog.NewContext(ctx, logr.Discard()) }

// outcome is what a row of a table shows of a plan.
type outcome struct{ moves, overutilizedBefore, overutilizedAfter, emptyBefore, emptyAfter int }

func outcomeOf(w *world.World, status *rebalance.Status) outcome {
	o := outcome{moves: status.Moves}
	at := map[string]string{}
	for _, move := range status.Plan.Moves {
		at[move.Pod.Name] = move.To
	}
	before, after := map[string]bool{}, map[string]bool{}
	for _, pod := range w.Pods {
		if pod.OwnerReferences[0].Kind == "DaemonSet" {
			continue
		}
		before[pod.Spec.NodeName] = true
		to := pod.Spec.NodeName
		if moved, ok := at[pod.Name]; ok {
			to = moved
		}
		after[to] = true
	}
	o.emptyBefore, o.emptyAfter = len(w.Nodes)-len(before), len(w.Nodes)-len(after)
	for i := range status.Plan.Before.Nodes {
		if status.Plan.Before.Nodes[i].Overutilized {
			o.overutilizedBefore++
		}
		if status.Plan.After.Nodes[i].Overutilized {
			o.overutilizedAfter++
		}
	}
	return o
}

func arrow(before, after any) string { return fmt.Sprintf("%v → %v", before, after) }

func points(share float64) string { return fmt.Sprintf("%.1f", 100*share) }

func age(w *world.World, pod *corev1.Pod, minutes int) {
	pod.CreationTimestamp = metav1.NewTime(w.At.Add(-time.Duration(minutes) * time.Minute))
}

// makeStale leaves a node with a measurement of three minutes ago.
func makeStale(observation *observe.Observation, node string) {
	for i := range observation.NodeMetrics {
		if observation.NodeMetrics[i].Name == node {
			observation.NodeMetrics[i].Timestamp = metav1.NewTime(observation.At.Add(-3 * time.Minute))
		}
	}
}

// movable counts the pods that the loop may move.
func movable(t *testing.T, observation *observe.Observation, arguments string) int {
	t.Helper()
	options, err := rebalance.ObserveOptions(configuration(t, arguments).Rebalance)
	if err != nil {
		t.Fatal(err)
	}
	options.MinimumSamples = 1
	options.MetricsHistory.Record(observation)
	snapshot := observe.Build(observation, options)
	alone := map[string]bool{}
	for _, node := range snapshot.Nodes {
		alone[node.Name] = node.Skipped != ""
	}
	count := 0
	for _, pod := range snapshot.Pods {
		if pod.Immovable == "" && !alone[pod.NodeName] {
			count++
		}
	}
	return count
}

func milli(cpu int64) resource.Quantity { return *resource.NewMilliQuantity(cpu, resource.DecimalSI) }
