package decide

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corev1conversion "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/internal/race"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/reclaimed"
)

// Whatever finishes and starts again, and wherever we crash: the API server's
// own validation accepts every resize, the class never changes, the pod never
// asks for more than at first, and when all of it works again it is as it was.
func TestProperties(t *testing.T) {
	shrunkOnce, restoredOnce, tookMilliOnce := false, false, false
	for seed := range race.Examples(400) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			original := randomPod(random)
			pod := original.DeepCopy()
			for range 30 {
				changeStatus(random, pod)
				allowed := random.IntN(4) > 0
				for range 3 {
					d := decide(t, pod, allowed)
					shrunkOnce, restoredOnce = shrunkOnce || len(d.Shrunk) > 0, restoredOnce || len(d.Restored) > 0
					for _, change := range d.Keep.Containers {
						tookMilliOnce = tookMilliOnce || change.TookMilli
					}
					checkResize(t, pod, d)
					pod = apply(t, pod, d, random.IntN(4))
					checkNeverMore(t, original, pod)
				}
			}
			for i := range pod.Status.ContainerStatuses {
				pod.Status.ContainerStatuses[i] = named(running(), pod.Status.ContainerStatuses[i].Name)
			}
			for range 2 {
				pod = apply(t, pod, decide(t, pod, true), all)
			}
			if !equality.Semantic.DeepEqual(pod.Spec, original.Spec) || pod.Annotations[v1alpha1.ReclaimedAnnotation] != "" {
				t.Fatalf("not as it was: %s\nrecord %s", cmp.Diff(original.Spec, pod.Spec), pod.Annotations[v1alpha1.ReclaimedAnnotation])
			}
		})
	}
	if !shrunkOnce || !restoredOnce || !tookMilliOnce {
		t.Errorf("the pods did not try everything: shrunk %t, restored %t, took one milli %t", shrunkOnce, restoredOnce, tookMilliOnce)
	}
}

func randomPod(random *rand.Rand) *corev1.Pod {
	builder := fixture.MakePod("p").Node("n").RestartPolicy(corev1.RestartPolicyOnFailure)
	style := random.IntN(4) // 0 Guaranteed, 1 BestEffort, else Burstable
	for i := range 1 + random.IntN(4) {
		builder.Container(fmt.Sprint("c", i), running(), func(c *corev1.Container) {
			requests := fixture.Amounts(fmt.Sprintf("%dm", random.IntN(3000)), fmt.Sprintf("%dKi", random.IntN(1<<21)))
			switch {
			case style == 0:
				requests[corev1.ResourceCPU] = resource.MustParse(fmt.Sprintf("%dm", 1+random.IntN(3000)))
				requests[corev1.ResourceMemory] = resource.MustParse(fmt.Sprintf("%dKi", 1+random.IntN(1<<21)))
				c.Resources.Requests, c.Resources.Limits = requests, requests.DeepCopy()
			case style > 1:
				for name := range requests {
					if random.IntN(3) == 0 {
						delete(requests, name)
					}
				}
				c.Resources.Requests = requests
				if random.IntN(2) == 0 {
					c.Resources.Limits = fixture.Amounts("4", "8Gi")
				}
			}
		})
	}
	pod := builder.Obj()
	legacyscheme.Scheme.Default(pod)
	if style == 3 {
		pod.Spec.Resources = &corev1.ResourceRequirements{
			Requests: resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}), Limits: fixture.Amounts("20", "64Gi"),
		}
		for name, amount := range pod.Spec.Resources.Requests {
			amount.Add(*resource.NewQuantity(int64(random.IntN(2)), amount.Format)) // 1 is a CPU, or a byte.
			pod.Spec.Resources.Requests[name] = amount
		}
		legacyscheme.Scheme.Default(pod)
	}
	pod.Status.QOSClass = qos.ComputePodQOS(pod)
	if random.IntN(2) == 0 {
		pod.Status.Resources = &corev1.ResourceRequirements{}
	}
	return pod
}

func named(status *corev1.ContainerStatus, name string) corev1.ContainerStatus {
	status.Name = name
	return *status
}

// changeStatus lets one container finish, fail or start again. One at least runs.
func changeStatus(random *rand.Rand, pod *corev1.Pod) {
	statuses := pod.Status.ContainerStatuses
	i := random.IntN(len(statuses))
	states := []*corev1.ContainerStatus{running(), fixture.Exited(0), fixture.Exited(0), fixture.Exited(1), fixture.WaitingAgain("CrashLoopBackOff", 1)}
	before := statuses[i]
	statuses[i] = named(states[random.IntN(len(states))], statuses[i].Name)
	for _, status := range statuses {
		if status.State.Running != nil {
			return
		}
	}
	statuses[i] = before
}

// checkResize asks the API server's own validation.
func checkResize(t *testing.T, pod *corev1.Pod, d Decision) {
	t.Helper()
	if d.Resized == nil {
		return
	}
	if class := qos.ComputePodQOS(d.Resized); class != pod.Status.QOSClass {
		t.Fatalf("the class becomes %s, was %s", class, pod.Status.QOSClass)
	}
	options := validation.PodValidationOptions{PodLevelResourcesEnabled: true, InPlacePodLevelResourcesVerticalScalingEnabled: true, ResourceIsPod: true}
	before, after := internal(t, pod), internal(t, d.Resized)
	if errs := validation.ValidatePodResize(after, before, options); len(errs) > 0 {
		t.Fatalf("the API server would refuse the resize %s: %v", cmp.Diff(pod.Spec, d.Resized.Spec), errs.ToAggregate())
	}
}

func internal(t *testing.T, pod *corev1.Pod) *core.Pod {
	t.Helper()
	pod = pod.DeepCopy()
	pod.ResourceVersion = "1"
	out := &core.Pod{}
	if err := corev1conversion.Convert_v1_Pod_To_core_Pod(pod, out, nil); err != nil {
		t.Fatal(err)
	}
	return out
}

func checkNeverMore(t *testing.T, original, pod *corev1.Pod) {
	t.Helper()
	before := resourcehelper.PodRequests(original, resourcehelper.PodResourcesOptions{})
	for name, amount := range resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}) {
		if most := before[name]; amount.Cmp(most) > 0 {
			t.Fatalf("the pod requests %s %s, at first it was %s", amount.String(), name, most.String())
		}
	}
	back, err := reclaimed.Original(pod)
	if err != nil {
		t.Fatal(err)
	}
	if !equality.Semantic.DeepEqual(back.Spec, original.Spec) {
		t.Fatalf("the record does not describe the original: %s", cmp.Diff(original.Spec, back.Spec))
	}
}
