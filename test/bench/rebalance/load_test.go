package main

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ai-storage/orchestrator/test/devcluster/simnode"
)

func TestSample(t *testing.T) {
	l := &loader{step: time.Minute}
	if got := l.sample(begin); got != 0 {
		t.Errorf("before the tool runs: sample %d", got)
	}
	l.begin.Store(begin.UnixNano())
	for seconds, want := range map[int]int{0: 0, 59: 0, 60: 1, 601: 10} {
		if got := l.sample(after(seconds)); got != want {
			t.Errorf("after %d s: sample %d, want %d", seconds, got, want)
		}
	}
}

func TestUse(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p", Annotations: map[string]string{"other": "stays"}}}
	l := &loader{client: fake.NewClientset(pod), step: time.Minute}
	l.begin.Store(time.Now().Add(-90 * time.Second).UnixNano())
	r := &replica{request: amounts{memoryMiB: 1000}, milliCPU: []float64{1000, 2500.4}}
	if err := l.use(t.Context(), "p", r); err != nil {
		t.Fatal(err)
	}
	got, err := l.client.CoreV1().Pods(namespace).Get(t.Context(), "p", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		simnode.CPUUsagePrefix + containerName: "2500m", simnode.MemoryUsagePrefix + containerName: "600Mi", "other": "stays",
	} {
		if got.Annotations[key] != want {
			t.Errorf("annotation %s is %q, want %q", key, got.Annotations[key], want)
		}
	}
	if err := l.use(t.Context(), "gone", r); err != nil {
		t.Errorf("a pod that is gone: %v", err)
	}
}

func TestTemplateAsksForWhatTheScenarioSays(t *testing.T) {
	f := &fixture{scheduler: "s"}
	template := f.template(&replica{slot: slot{"w", 0}, request: amounts{1500, 2048, 460}})
	resources := template.Spec.Containers[0].Resources
	gpu := resources.Requests[gpuResource]
	if resources.Requests.Cpu().MilliValue() != 1500 || resources.Requests.Memory().Value() != 2<<30 || gpu.Value() != 460 {
		t.Errorf("requests %v", resources.Requests)
	}
	if len(resources.Limits) != 1 || template.Spec.SchedulerName != "s" || template.Labels[workloadLabel] != "w" {
		t.Errorf("template %+v", template)
	}
	if plain := f.template(&replica{request: amounts{1500, 2048, 0}}); len(plain.Spec.Containers[0].Resources.Limits) != 0 {
		t.Errorf("a pod without GPU has limits %v", plain.Spec.Containers[0].Resources.Limits)
	}
}

func TestNodesGetTheirSizes(t *testing.T) {
	old := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{
		Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourcePods: resource.MustParse("110")},
	}}
	client := fake.NewClientset(old)
	f := &fixture{client: client, scenario: &scenario{nodes: []*node{{name: "n", shape: shape{size: amounts{96000, 393216, 8000}}}}}}
	if err := f.sizeNodes(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := client.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[corev1.ResourceName]int64{
		corev1.ResourceCPU: 96, corev1.ResourceMemory: 384 << 30, gpuResource: 8000, corev1.ResourcePods: 110,
	} {
		if quantity := got.Status.Allocatable[name]; quantity.Value() != want {
			t.Errorf("%s is %v, want %d", name, quantity.String(), want)
		}
	}
}
