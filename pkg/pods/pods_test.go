package pods_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	. "github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/pods"
)

func TestHoldsPlace(t *testing.T) {
	for _, test := range []struct {
		name            string
		pod             *PodBuilder
		holds, terminal bool
	}{
		{"running", MakePod("p").Node("a"), true, false},
		{"not bound", MakePod("p"), false, false},
		{"bound, not started", MakePod("p").Node("a").Phase(corev1.PodPending), true, false},
		{"unknown", MakePod("p").Node("a").Phase(corev1.PodUnknown), true, false},
		{"succeeded", MakePod("p").Node("a").Phase(corev1.PodSucceeded), false, true},
		{"failed", MakePod("p").Node("a").Phase(corev1.PodFailed), false, true},
	} {
		pod := test.pod.Obj()
		if got := pods.HoldsPlace(pod); got != test.holds {
			t.Errorf("%s: holds a place: %v, want %v", test.name, got, test.holds)
		}
		if got := pods.IsTerminal(pod); got != test.terminal {
			t.Errorf("%s: is terminal: %v, want %v", test.name, got, test.terminal)
		}
	}
}

func TestConditionIsACopy(t *testing.T) {
	pod := MakePod("p").With(func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Message: "as it was"}, {Type: corev1.PodReady}}
	}).Obj()
	if found := pods.Condition(pod, corev1.ContainersReady); found != nil {
		t.Errorf("found %v, which the pod does not have", found)
	}
	found := pods.Condition(pod, corev1.PodScheduled)
	if found == nil || found.Message != "as it was" {
		t.Fatalf("found %v", found)
	}
	found.Message = "changed"
	if pod.Status.Conditions[0].Message != "as it was" {
		t.Error("a change of the condition has changed the pod")
	}
}

// A resize in place that is under way: the node still gives more than the spec
// requests. The scheduler counts the larger of both, and so does Requests.
func TestRequestsAreThoseOfTheScheduler(t *testing.T) {
	one := func(cpu string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}
	resized := func(spec, allocated string) *corev1.Pod {
		return MakePod("p").Node("a").Container("main", Running()).With(func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = one(spec)
			p.Status.ContainerStatuses[0].AllocatedResources = one(allocated)
			p.Status.ContainerStatuses[0].Resources = &corev1.ResourceRequirements{Requests: one(allocated)}
		}).Obj()
	}
	for name, test := range map[string]struct {
		pod            *corev1.Pod
		now, afterward string
	}{
		"never resized": {MakePod("p").Container("main", Running()).With(func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = one("2") }).Obj(), "2", "2"},
		"shrinks":       {resized("1m", "2"), "2", "1m"},
		"grows":         {resized("2", "1"), "2", "2"},
		"has shrunk":    {resized("1m", "1m"), "1m", "1m"},
	} {
		now, afterward := pods.Requests(test.pod), pods.SpecRequests(test.pod)
		if got := now.Cpu().String(); got != test.now {
			t.Errorf("%s: requests %s, want %s", name, got, test.now)
		}
		if got := afterward.Cpu().String(); got != test.afterward {
			t.Errorf("%s: the spec requests %s, want %s", name, got, test.afterward)
		}
		info, err := framework.NewPodInfo(test.pod)
		if err != nil {
			t.Fatal(err)
		}
		if counted := info.CalculateResource(); counted.Resource.GetMilliCPU() != now.Cpu().MilliValue() {
			t.Errorf("%s: requests %s, the scheduler counts %dm", name, now.Cpu(), counted.Resource.GetMilliCPU())
		}
	}
}

// The class is the one that Kubernetes computes, for pods of all kinds.
func TestComputeQOS(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	amounts := []string{"", "0", "1", "2"}
	requirements := func() corev1.ResourceRequirements {
		r := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, "vendor/gpu"} {
			request, limit := amounts[random.IntN(4)], amounts[random.IntN(4)]
			if random.IntN(2) == 0 {
				limit = request
			}
			if limit != "" {
				r.Limits[name] = resource.MustParse(limit)
			}
			if request != "" && (limit == "" || request <= limit) {
				r.Requests[name] = resource.MustParse(request)
			}
		}
		return r
	}
	seen := map[corev1.PodQOSClass]int{}
	for range 20000 {
		pod := &corev1.Pod{}
		for range 1 + random.IntN(2) {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Resources: requirements()})
		}
		if random.IntN(4) == 0 {
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Resources: requirements()})
		}
		switch random.IntN(6) {
		case 0:
			r := requirements()
			pod.Spec.Resources = &r
		case 1:
			pod.Spec.Resources = &corev1.ResourceRequirements{}
		}
		got, want := pods.ComputeQOS(&pod.Spec), qos.ComputePodQOS(pod)
		if seen[got]++; got != want {
			t.Fatalf("computed %s, Kubernetes computes %s for %+v", got, want, pod.Spec)
		}
	}
	if len(seen) != 3 {
		t.Errorf("saw only the classes %v", seen)
	}
}

func TestQOSClassIsThatOfTheStatus(t *testing.T) {
	pod := MakePod("p").Container("main", Running()).Obj()
	if got := pods.QOSClass(pod); got != corev1.PodQOSBestEffort {
		t.Errorf("got %s from the spec", got)
	}
	pod.Status.QOSClass = corev1.PodQOSGuaranteed
	if got := pods.QOSClass(pod); got != corev1.PodQOSGuaranteed {
		t.Errorf("got %s, the status has Guaranteed", got)
	}
}

func TestTruncate(t *testing.T) {
	for _, test := range []struct {
		text  string
		limit int
		want  string
	}{
		{"", 0, ""},
		{"whole", 5, "whole"},
		{"longer", 5, "lo…"},
		{"longer", 3, "…"},
		{"longer", 2, ""},
		{"äöüäöü", 12, "äöüäöü"},
		{"äöüäöü", 11, "äöüä…"},
		{"äöüäöü", 10, "äöü…"},
		{"日本語", 8, "日…"},
	} {
		if got := pods.Truncate(test.text, test.limit); got != test.want {
			t.Errorf("%q to %d bytes: got %q, want %q", test.text, test.limit, got, test.want)
		}
	}
	long := strings.Repeat("aäあ", 100)
	for limit := range len(long) + 1 {
		got := pods.Truncate(long, limit)
		if len(got) > limit || !utf8.ValidString(got) || !strings.HasPrefix(long, strings.TrimSuffix(got, "…")) {
			t.Fatalf("to %d bytes: got %q", limit, got)
		}
	}
}
