package nodeview

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

const gpu = corev1.ResourceName("nvidia.com/gpu")

var noon = metav1.NewTime(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))

func list(cpu, memory string, gpus int64) corev1.ResourceList {
	l := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	if gpus > 0 {
		l[gpu] = *resource.NewQuantity(gpus, resource.DecimalSI)
	}
	return l
}

func node(name string, gpus int64, ready corev1.ConditionStatus, cordoned bool) corev1.Node {
	n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Spec.Unschedulable = cordoned
	n.Status.Allocatable = list("4", "8Gi", gpus)
	n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("110")
	n.Status.Allocatable["hugepages-2Mi"] = resource.MustParse("0")
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	return n
}

func measurement(name, cpu, memory string, at time.Time) metricsv1beta1.NodeMetrics {
	return metricsv1beta1.NodeMetrics{ObjectMeta: metav1.ObjectMeta{Name: name}, Timestamp: metav1.NewTime(at), Usage: list(cpu, memory, 0)}
}

// trainer has a container that has finished and one that runs.
func trainer(name, on string) *fixture.PodBuilder {
	return fixture.MakePod(name).Node(on).RestartPolicy(corev1.RestartPolicyNever).With(func(p *corev1.Pod) {
		p.Spec.Containers = []corev1.Container{
			{Name: "prepare", Resources: corev1.ResourceRequirements{Requests: list("1", "2Gi", 1)}},
			{Name: "train", Resources: corev1.ResourceRequirements{Requests: list("500m", "1Gi", 0)}},
		}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{
			{Name: "prepare", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
			{Name: "train", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
		}
	})
}

func TestOf(t *testing.T) {
	nodes := []corev1.Node{node("b", 0, corev1.ConditionTrue, true), node("a", 2, corev1.ConditionTrue, false), node("c", 0, corev1.ConditionUnknown, false)}
	pods := []corev1.Pod{
		*trainer("one", "a").Obj(),
		*trainer("over", "a").Phase(corev1.PodSucceeded).Obj(),
		*trainer("waits", "").Phase(corev1.PodPending).Obj(),
		*trainer("elsewhere", "gone").Obj(),
	}
	usage := []metricsv1beta1.NodeMetrics{
		measurement("a", "2", "3Gi", noon.Time), measurement("a", "1", "1Gi", noon.Add(-time.Minute)), measurement("gone", "1", "1Gi", noon.Time),
	}
	got := Of(nodes, pods, usage)
	cpu, memory := int64(2000), int64(3<<30)
	want := []Node{
		{
			Name: "a", Ready: true, Schedulable: true, Pods: 1, MeasuredAt: &noon,
			CPU:      Resource{Allocatable: 4000, Requested: 1500, Used: &cpu, Reclaimable: 999},
			Memory:   Resource{Allocatable: 8 << 30, Requested: 3 << 30, Used: &memory, Reclaimable: 2<<30 - 1<<20},
			Extended: map[corev1.ResourceName]Extended{gpu: {Allocatable: 2, Requested: 1, Reclaimable: 1}},
		},
		{Name: "b", Ready: true, CPU: Resource{Allocatable: 4000}, Memory: Resource{Allocatable: 8 << 30}, Extended: map[corev1.ResourceName]Extended{}},
		{Name: "c", CPU: Resource{Allocatable: 4000}, Memory: Resource{Allocatable: 8 << 30}, Extended: map[corev1.ResourceName]Extended{}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if source := Source(got); source != SourceMetricsAPI {
		t.Errorf("source %s", source)
	}
	if source := Source(Of(nodes, pods, nil)); source != SourceUnavailable {
		t.Errorf("source without measurements is %s", source)
	}
}

func TestFieldsAreThoseOfTheAPI(t *testing.T) {
	views := Of([]corev1.Node{node("a", 1, corev1.ConditionTrue, false)}, nil, nil)
	Judge(views, map[string]string{"a": "a migration is in flight"}, map[string]bool{"a": true})
	data, err := json.Marshal(views[0])
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"a","ready":true,"schedulable":true,"skipped":"a migration is in flight","overutilized":true,"pods":0,` +
		`"cpu":{"allocatable":4000,"requested":0,"used":null,"reclaimable":0},` +
		`"memory":{"allocatable":8589934592,"requested":0,"used":null,"reclaimable":0},` +
		`"extended":{"nvidia.com/gpu":{"allocatable":1,"requested":0,"reclaimable":0}},"measured_at":null}`
	if string(data) != want {
		t.Errorf("got  %s\nwant %s", data, want)
	}
}

func TestReclaimable(t *testing.T) {
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	finished := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	shrunk := func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = list("1m", "1Mi", 0) }
	for name, tt := range map[string]struct {
		pod                *fixture.PodBuilder
		cpu, memory, ofGPU int64
	}{
		"finished container":   {trainer("p", "a"), 999, 2<<30 - 1<<20, 1},
		"shrunk already":       {trainer("p", "a").With(shrunk), 0, 0, 0},
		"pod is being deleted": {trainer("p", "a").With(func(p *corev1.Pod) { p.DeletionTimestamp = &noon }), 0, 0, 0},
		"resize under way": {trainer("p", "a").With(shrunk).With(func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].Resources = &corev1.ResourceRequirements{Requests: list("1", "2Gi", 0)}
			p.Status.ContainerStatuses[0].AllocatedResources = list("1", "2Gi", 0)
		}), 999, 2<<30 - 1<<20, 0},
		"failed container": {trainer("p", "a").With(func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State.Terminated.ExitCode = 1 }), 0, 0, 0},
		"will run again":   {trainer("p", "a").RestartPolicy(corev1.RestartPolicyAlways), 0, 0, 0},
		"all finished":     {trainer("p", "a").With(func(p *corev1.Pod) { p.Status.ContainerStatuses[1].State = finished }), 0, 0, 0},
		"finished init container that requested most": {fixture.MakePod("p").Node("a").With(func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "download", Resources: corev1.ResourceRequirements{Requests: list("3", "4Gi", 0)}}}
			p.Spec.Containers = []corev1.Container{{Name: "serve", Resources: corev1.ResourceRequirements{Requests: list("1", "1Gi", 0)}}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "download", State: finished}}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "serve", State: running}}
		}), 2000, 3 << 30, 0},
		"pod-level requests": {trainer("p", "a").With(func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: list("2", "4Gi", 0)}
		}), 999, 2<<30 - 1<<20, 1},
	} {
		pod := tt.pod.Obj()
		got := reclaimable(pod, cluster.ResourcesOf(pods.Requests(pod)))
		if got.MilliCPU != tt.cpu || got.Memory != tt.memory || got.Scalar[gpu] != tt.ofGPU {
			t.Errorf("%s: %+v, want %d, %d, %d", name, got, tt.cpu, tt.memory, tt.ofGPU)
		}
	}
}
