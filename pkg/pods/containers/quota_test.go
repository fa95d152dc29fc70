package containers_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/core"
	evaluator "k8s.io/kubernetes/pkg/quota/v1/evaluator/core"
	"k8s.io/kubernetes/plugin/pkg/admission/limitranger"
	"k8s.io/utils/clock"

	. "github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// resources of a container: requests and limits of CPU and memory, "" for none.
func resources(cpu, memory, cpuLimit, memoryLimit string) func(*corev1.Container) {
	list := func(cpu, memory string) corev1.ResourceList {
		list := corev1.ResourceList{}
		if cpu != "" {
			list[corev1.ResourceCPU] = resource.MustParse(cpu)
		}
		if memory != "" {
			list[corev1.ResourceMemory] = resource.MustParse(memory)
		}
		return list
	}
	return func(c *corev1.Container) {
		c.Resources = corev1.ResourceRequirements{Requests: list(cpu, memory), Limits: list(cpuLimit, memoryLimit)}
	}
}

// helpers builds all pods that the engine would create for a pod.
func helpers(t *testing.T, pod *corev1.Pod) map[string]*corev1.Pod {
	t.Helper()
	o := options
	o.GateImage = "agent:1"
	v := containers.Judge(pod, containers.Policy{})
	replacement, err := containers.BuildReplacement(pod, v, o)
	if err != nil {
		t.Fatal(err)
	}
	next := pod.DeepCopy()
	next.Spec.NodeName, next.UID = "", ""
	rewritten, err := containers.Rewrite(next, v, o)
	if err != nil {
		t.Fatal(err)
	}
	requests := resourcehelper.PodRequests(replacement, resourcehelper.PodResourcesOptions{ExcludeOverhead: true})
	placeholder := containers.BuildPlaceholder(replacement, "placeholder", "agent:1", requests, nil)
	containers.HoldClaim(placeholder, o.ClaimName)
	return map[string]*corev1.Pod{
		"replacement": replacement, "rewritten pod": rewritten, "placeholder": placeholder,
	}
}

// demands are all resources for which a quota makes every container name an amount.
var demands = []corev1.ResourceName{
	corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
}

// quotaRefuses returns why a quota on resources would refuse a pod.
func quotaRefuses(t *testing.T, pod *corev1.Pod, on ...corev1.ResourceName) error {
	t.Helper()
	internal := &core.Pod{}
	if err := legacyscheme.Scheme.Convert(create(t, pod), internal, nil); err != nil {
		t.Fatal(err)
	}
	return evaluator.NewPodEvaluator(nil, clock.RealClock{}).Constraints(on, internal)
}

func usage(t *testing.T, pod *corev1.Pod) corev1.ResourceList {
	t.Helper()
	used, err := evaluator.PodUsageFunc(create(t, pod), clock.RealClock{})
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// A pod that a quota accepts can move: all that is created for it is accepted, too, and
// the replacement takes no more of the quota than the original.
func TestHelpersFitIntoQuotas(t *testing.T) {
	for name, test := range map[string]struct {
		pod *PodBuilder
		on  []corev1.ResourceName
	}{
		"Burstable, all limited": {MakePod("p").Container("db", Running(), resources("100m", "64Mi", "500m", "128Mi")), demands},
		"Guaranteed":             {MakePod("p").Container("db", Running(), resources("1", "1Gi", "1", "1Gi")), demands},
		"several containers": {MakePod("p").Sidecar("proxy", Running(), resources("10m", "40Mi", "100m", "64Mi")).
			Container("db", Running(), resources("100m", "64Mi", "500m", "128Mi")).Container("log", Running(), resources("10m", "40Mi", "2", "4Gi")), demands},
		"some have finished": {MakePod("p").RestartPolicy(never).Init("fetch", Exited(0), resources("2", "2Gi", "2", "2Gi")).
			Container("batch", Exited(0), resources("1", "1Gi", "1", "1Gi")).Container("db", Running(), resources("100m", "64Mi", "500m", "128Mi")), demands},
		"an init container runs again": {MakePod("p").Init("net", Exited(0), capabilities("NET_ADMIN"), resources("2", "64Mi", "2", "2Gi")).
			Container("db", Running(), resources("100m", "64Mi", "500m", "128Mi")), demands},
		"only requests":       {MakePod("p").Container("db", Running(), resources("100m", "64Mi", "", "")), demands[:2]},
		"only CPU":            {MakePod("p").Container("db", Running(), resources("100m", "", "", "")), demands[:1]},
		"memory limits":       {MakePod("p").Container("db", Running(), resources("", "64Mi", "", "128Mi")), []corev1.ResourceName{corev1.ResourceLimitsMemory}},
		"requests of nothing": {MakePod("p").Container("db", Running(), resources("0", "0", "", "")), demands[:2]},
	} {
		t.Run(name, func(t *testing.T) {
			pod := test.pod.Node("a").Volume("v", EmptyDir()).With(func(p *corev1.Pod) {
				for i := range p.Spec.Containers {
					Mount("v", "/v")(&p.Spec.Containers[i])
				}
			}).Obj()
			if err := quotaRefuses(t, pod, test.on...); err != nil {
				t.Fatalf("the quota refuses the original: %v", err)
			}
			all := helpers(t, pod)
			for kind, helper := range all {
				if err := quotaRefuses(t, helper, test.on...); err != nil {
					t.Errorf("the quota refuses the %s: %v", kind, err)
				}
			}
			original := usage(t, pod)
			for _, kind := range []string{"replacement", "rewritten pod", "placeholder"} {
				used := usage(t, all[kind])
				for _, resource := range demands {
					if amount, was := used[resource], original[resource]; amount.Cmp(was) > 0 {
						t.Errorf("the %s uses %s of %s, the original %s", kind, amount.String(), resource, was.String())
					}
				}
			}
			if before, after := pods.ComputeQOS(&pod.Spec), pods.ComputeQOS(&all["replacement"].Spec); before != after && name != "some have finished" {
				t.Errorf("quality of service %s, the original has %s", after, before)
			}
		})
	}
}

// The gate has what the container with the most memory has, or what its program needs. A
// pod with resources of its own has no room for more than its containers have.
func TestGateHasEnoughToRun(t *testing.T) {
	one := func(given func(*corev1.Container)) *PodBuilder { return MakePod("p").Container("c", Running(), given) }
	for name, test := range map[string]struct {
		pod  *PodBuilder
		want func(*corev1.Container)
	}{
		"little, Guaranteed": {one(resources("5m", "8Mi", "5m", "8Mi")), resources("10m", "32Mi", "10m", "32Mi")},
		"little, Burstable":  {one(resources("1m", "4Mi", "5m", "8Mi")), resources("1m", "4Mi", "10m", "32Mi")},
		"enough":             {one(resources("1m", "4Mi", "500m", "1Gi")), resources("1m", "4Mi", "500m", "1Gi")},
		"no limits":          {one(resources("1m", "4Mi", "", "")), resources("1m", "4Mi", "", "")},
		"more in the second": {one(resources("1m", "4Mi", "3", "1Gi")).Container("d", Running(), resources("2m", "5Mi", "2", "2Gi")), resources("2m", "5Mi", "2", "2Gi")},
		"more in the first":  {one(resources("1m", "4Mi", "1", "2Gi")).Container("d", Running(), resources("2m", "5Mi", "2", "1Gi")), resources("1m", "4Mi", "1", "2Gi")},
		"all in the second":  {one(resources("1m", "4Mi", "1", "2Gi")).Container("d", Running(), resources("2m", "", "", "")), resources("2m", "", "", "")},
		"little, and no more": {one(resources("5m", "8Mi", "5m", "8Mi")).With(func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: Amounts("5m", "8Mi"), Limits: Amounts("5m", "8Mi")}
		}), resources("5m", "8Mi", "5m", "8Mi")},
	} {
		var want corev1.Container
		test.want(&want)
		replacement := helpers(t, test.pod.Node("a").Obj())["replacement"]
		for _, c := range replacement.Spec.InitContainers {
			for _, resource := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				request, limit := c.Resources.Requests[resource], c.Resources.Limits[resource]
				if wanted := want.Resources.Requests[resource]; request.Cmp(wanted) != 0 {
					t.Errorf("%s: %s requests %s of %s, want %s", name, c.Name, request.String(), resource, wanted.String())
				}
				if wanted := want.Resources.Limits[resource]; limit.Cmp(wanted) != 0 {
					t.Errorf("%s: %s is limited to %s of %s, want %s", name, c.Name, limit.String(), resource, wanted.String())
				}
			}
		}
		create(t, replacement)
	}
}

// What a limit range accepts of a pod it accepts of the pods that take its place. It gives
// defaults to containers that name nothing.
func TestHelpersFitIntoLimitRanges(t *testing.T) {
	limits := &corev1.LimitRange{Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
		Type: corev1.LimitTypeContainer, Min: Amounts("10m", "16Mi"), Max: Amounts("2", "2Gi"), MaxLimitRequestRatio: Amounts("8", "8"),
		Default: Amounts("500m", "256Mi"), DefaultRequest: Amounts("100m", "128Mi"),
	}}}}
	pod := MakePod("p").Node("a").Container("db", Running(), resources("500m", "512Mi", "2", "2Gi")).Container("log", Running(), resources("", "", "", "")).Obj()
	accept := func(kind string, pod *corev1.Pod) *corev1.Pod {
		internal, stored := &core.Pod{}, &corev1.Pod{}
		if err := legacyscheme.Scheme.Convert(create(t, pod), internal, nil); err != nil {
			t.Fatal(err)
		}
		if err := limitranger.PodMutateLimitFunc(limits, internal); err != nil {
			t.Fatal(err)
		}
		if err := limitranger.PodValidateLimitFunc(limits, internal); err != nil {
			t.Errorf("the limit range refuses the %s: %v", kind, err)
		}
		if err := legacyscheme.Scheme.Convert(internal, stored, nil); err != nil {
			t.Fatal(err)
		}
		stored.UID, stored.Status = pod.UID, pod.Status
		return stored
	}
	admitted := accept("original", pod)
	if admitted.Spec.Containers[1].Resources.Limits.Cpu().String() != "500m" {
		t.Fatal("the limit range gave no defaults: this test shows nothing")
	}
	all := helpers(t, admitted)
	for kind, helper := range all {
		create(t, accept(kind, helper))
	}
}

// The scheduler counts for the placeholder what it counts for the replacement, whatever
// the containers are, and its limits are those of the pod.
func TestPlaceholderRequestsWhatThePodRequests(t *testing.T) {
	gpu := func(c *corev1.Container) {
		c.Resources.Requests = corev1.ResourceList{"vendor.example/gpu": resource.MustParse("2"), "hugepages-2Mi": resource.MustParse("4Mi"), corev1.ResourceMemory: resource.MustParse("1Gi")}
		c.Resources.Limits = c.Resources.Requests
	}
	for name, test := range map[string]struct {
		pod    *PodBuilder
		limits corev1.ResourceList
	}{
		"one":                   {MakePod("p").Container("a", Running(), resources("1", "1Gi", "2", "2Gi")), Amounts("2", "2Gi")},
		"several and a sidecar": {MakePod("p").Sidecar("s", Running(), resources("10m", "32Mi", "100m", "32Mi")).Container("a", Running(), resources("1", "1Gi", "2", "2Gi")).Container("b", Running(), resources("1", "1Gi", "1", "1Gi")), Amounts("3100m", "3104Mi")},
		"an init container that runs again": {MakePod("p").Init("i", Exited(0), capabilities("NET_ADMIN"), resources("3", "3Gi", "", "")).
			Container("a", Running(), resources("1", "1Gi", "2", "2Gi")).Container("b", Running(), resources("500m", "1Gi", "1", "1Gi")), Amounts("3500m", "3Gi")},
		"one has no limit of CPU": {MakePod("p").Container("a", Running(), resources("1", "1Gi", "2", "2Gi")).
			Container("b", Running(), resources("1", "1Gi", "", "1Gi")), Amounts("2", "3Gi")},
		"of the pod": {MakePod("p").Container("a", Running()).Container("b", Running()).With(func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: Amounts("1", "1Gi"), Limits: Amounts("2", "2Gi")}
		}), Amounts("2", "2Gi")},
		"devices": {MakePod("p").Container("a", Running(), gpu).Container("b", Running(), gpu), corev1.ResourceList{
			"vendor.example/gpu": resource.MustParse("4"), "hugepages-2Mi": resource.MustParse("8Mi"), corev1.ResourceMemory: resource.MustParse("2Gi")}},
		"no limits":         {MakePod("p").Container("a", Running(), resources("1", "1Gi", "", "")), nil},
		"nothing":           {MakePod("p").Container("a", Running()), nil},
		"limits for little": {MakePod("p").Container("a", Running(), resources("1m", "4Mi", "5m", "8Mi")), Amounts("10m", "32Mi")},
	} {
		t.Run(name, func(t *testing.T) {
			all := helpers(t, test.pod.Node("a").Obj())
			stored := create(t, all["placeholder"])
			count := resourcehelper.PodResourcesOptions{}
			equal := func(what string, got, want corev1.ResourceList) {
				for resource := range want {
					if amount, wanted := got[resource], want[resource]; amount.Cmp(wanted) != 0 {
						t.Errorf("%s of %s: %s, want %s", what, resource, amount.String(), wanted.String())
					}
				}
				if len(got) != len(want) {
					t.Errorf("%s %v, want %v", what, got, want)
				}
			}
			equal("requests", resourcehelper.PodRequests(stored, count), resourcehelper.PodRequests(all["replacement"], count))
			equal("limits", resourcehelper.PodLimits(stored, count), test.limits)
		})
	}
}
