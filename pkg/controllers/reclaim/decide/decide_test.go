package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/reclaimed"
)

// running is the status that a kubelet gives a container on a node that resizes.
func running() *corev1.ContainerStatus {
	status := fixture.Running()
	status.Resources = &corev1.ResourceRequirements{}
	return status
}

func limited(cpu, memory string) func(*corev1.Container) {
	return func(c *corev1.Container) {
		c.Resources.Requests, c.Resources.Limits = fixture.Amounts(cpu, memory), fixture.Amounts(cpu, memory)
	}
}

// training is a pod of which the first of three containers has finished.
func training() *fixture.PodBuilder {
	return fixture.MakePod("train").Node("node-a").RestartPolicy(corev1.RestartPolicyNever).
		Container("batch", fixture.Exited(0), fixture.Requests("900m", "64Mi")).
		Container("serve", running(), fixture.Requests("500m", "64Mi")).
		Container("log", running(), fixture.Requests("200m", "64Mi"))
}

func infeasible(pod *corev1.Pod) {
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{
		Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: corev1.PodReasonInfeasible, Message: "static CPUs",
	})
}

func restartOnResize(c *corev1.Container) {
	c.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceCPU, RestartPolicy: corev1.RestartContainer}}
}

func TestDecide(t *testing.T) {
	restart := corev1.ContainerRestartRule{
		Action:    corev1.ContainerRestartRuleActionRestart,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{0}},
	}
	for _, test := range []struct {
		name   string
		pod    *fixture.PodBuilder
		shrunk []string
		want   string // CPU and memory requests of all containers afterwards
		why    string
	}{
		{"burstable: requests shrink, limits stay", training().With(func(pod *corev1.Pod) {
			pod.Spec.Containers[0].Resources.Limits = fixture.Amounts("2", "1Gi")
		}), []string{"batch"}, "701m 129Mi", ""},
		{"guaranteed: requests and limits shrink together", fixture.MakePod("g").Node("n").RestartPolicy(corev1.RestartPolicyNever).
			Container("a", fixture.Exited(0), limited("2", "1Gi")).Container("b", running(), limited("1", "1Gi")), []string{"a"}, "1001m 1025Mi", ""},
		{"best effort: nothing to do", fixture.MakePod("b").Node("n").RestartPolicy(corev1.RestartPolicyNever).
			Container("a", fixture.Exited(0)).Container("b", running()), nil, "0 0", ""},
		{"only what is set shrinks", fixture.MakePod("b").Node("n").RestartPolicy(corev1.RestartPolicyNever).
			Container("a", fixture.Exited(0), func(c *corev1.Container) {
				c.Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
			}).Container("b", running()), []string{"a"}, "0 1Mi", ""},
		{"less than almost nothing stays", fixture.MakePod("b").Node("n").RestartPolicy(corev1.RestartPolicyNever).
			Container("a", fixture.Exited(0), fixture.Requests("1m", "1000")).Container("b", running()), nil, "1m 1000", ""},
		{"a device stays", fixture.MakePod("b").Node("n").RestartPolicy(corev1.RestartPolicyNever).
			Container("a", fixture.Exited(0), limited("1", "1Gi"), func(c *corev1.Container) {
				c.Resources.Requests["example.com/gpu"], c.Resources.Limits["example.com/gpu"] = resource.MustParse("1"), resource.MustParse("1")
			}).Container("b", running()), []string{"a"}, "1m 1Mi", ""},
		{"failed containers are tried again", fixture.MakePod("f").Node("n").RestartPolicy(corev1.RestartPolicyOnFailure).
			Container("a", fixture.Exited(1), fixture.Requests("1", "1Gi")).Container("b", running()), nil, "1 1Gi", ""},
		{"policy Always starts again", training().RestartPolicy(corev1.RestartPolicyAlways), nil, "1600m 192Mi", ""},
		{"a rule starts it again", fixture.MakePod("f").Node("n").RestartPolicy(corev1.RestartPolicyNever).
			Container("a", fixture.Exited(0), fixture.Requests("1", "1Gi"), fixture.Restart(corev1.ContainerRestartPolicyNever, restart)).
			Container("b", running()), nil, "1 1Gi", ""},
		{"a resize that asks for a restart", fixture.MakePod("f").Node("n").RestartPolicy(corev1.RestartPolicyOnFailure).
			Container("a", fixture.Exited(0), fixture.Requests("1", "1Gi"), restartOnResize).Container("b", running()), nil, "1 1Gi", ""},
		{"init containers cannot be resized", fixture.MakePod("i").Node("n").RestartPolicy(corev1.RestartPolicyNever).
			Init("i", fixture.Exited(0), fixture.Requests("4", "1Gi")).Container("a", running(), fixture.Requests("1", "1Gi")), nil, "1 1Gi", ""},
		{"static pod", training().Annotation(corev1.MirrorPodAnnotationKey, "x"), nil, "1600m 192Mi", "static"},
		{"Windows", training().With(func(pod *corev1.Pod) { pod.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }), nil, "1600m 192Mi", "Windows"},
		{"node without support", training().With(func(pod *corev1.Pod) { pod.Status.ContainerStatuses[1].Resources = nil }), nil, "1600m 192Mi", "node"},
		{"being deleted", training().With(func(pod *corev1.Pod) { now := metav1.NewTime(time.Unix(0, 0)); pod.DeletionTimestamp = &now }), nil, "1600m 192Mi", "deleted"},
		{"all of its containers have finished", fixture.MakePod("o").Node("n").RestartPolicy(corev1.RestartPolicyNever).
			Container("a", fixture.Exited(0), fixture.Requests("1", "1Gi")), nil, "1 1Gi", ""},
		{"over", training().Phase(corev1.PodSucceeded), nil, "1600m 192Mi", "does not run"},
		{"given up before", training().Annotation(v1alpha1.ReclaimedAnnotation, `{"skipped":"refused"}`), nil, "1600m 192Mi", "refused"},
		{"guaranteed by the pod's own limits", training().With(func(pod *corev1.Pod) {
			pod.Spec.Resources = &corev1.ResourceRequirements{Requests: fixture.Amounts("4", "4Gi"), Limits: fixture.Amounts("4", "4Gi")}
		}), nil, "1600m 192Mi", "shared"},
		{"the kubelet reports a figure of the pod: a running container gives up one milli", training().With(func(pod *corev1.Pod) {
			pod.Status.Resources = &corev1.ResourceRequirements{Requests: fixture.Amounts("1600m", "192Mi")}
		}), []string{"batch"}, "700m 129Mi", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := test.pod.Obj()
			d, err := Decide(pod, Facts{MayShrink: true})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(d.Shrunk, test.shrunk) || (d.Resized != nil) != (len(test.shrunk) > 0) {
				t.Errorf("shrunk %v (resized %t), want %v", d.Shrunk, d.Resized != nil, test.shrunk)
			}
			if test.why == "" != (d.Why == "") || !strings.Contains(d.Why, test.why) {
				t.Errorf("why %q, want %q", d.Why, test.why)
			}
			after := pod
			if d.Resized != nil {
				after = d.Resized
			}
			wantRequests(t, after, test.want)
		})
	}
}

func wantRequests(t *testing.T, pod *corev1.Pod, want string) {
	t.Helper()
	var cpu, memory resource.Quantity
	for _, c := range pod.Spec.Containers {
		cpu.Add(*c.Resources.Requests.Cpu())
		memory.Add(*c.Resources.Requests.Memory())
	}
	wantCPU, wantMemory, _ := strings.Cut(want, " ")
	if cpu.Cmp(resource.MustParse(wantCPU)) != 0 || memory.Cmp(resource.MustParse(wantMemory)) != 0 {
		t.Errorf("the containers request %s and %s, want %s", cpu.String(), memory.String(), want)
	}
}

// apply does what a decision says, as far as until.
func apply(t *testing.T, pod *corev1.Pod, d Decision, until int) *corev1.Pod {
	t.Helper()
	pod = pod.DeepCopy()
	write := func(r reclaimed.Record) {
		if err := r.Write(pod); err != nil {
			t.Fatal(err)
		}
	}
	if until > 0 {
		write(d.Remember)
	}
	if until > 1 && d.Resized != nil {
		pod.Spec = *d.Resized.Spec.DeepCopy()
	}
	if until > 2 {
		write(d.Keep)
	}
	return pod
}

const all = 3

func decide(t *testing.T, pod *corev1.Pod, allowed bool) Decision {
	t.Helper()
	d, err := Decide(pod, Facts{MayShrink: allowed})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAContainerThatStartsAgainGetsItsRequestsBack(t *testing.T) {
	pod := training().Obj()
	reclaimed := apply(t, pod, decide(t, pod, true), all)
	if again := decide(t, reclaimed, true); again.Resized != nil || len(again.Shrunk) > 0 {
		t.Errorf("a second look changes something: %+v", again)
	}
	for name, status := range map[string]*corev1.ContainerStatus{
		"running": running(), "waiting": fixture.WaitingAgain("ContainerCreating", 0), "crashing": fixture.WaitingAgain("CrashLoopBackOff", 1),
		"unknown": fixture.Waiting("ContainerStatusUnknown"), "failed": fixture.Exited(137),
	} {
		t.Run(name, func(t *testing.T) {
			restarted := reclaimed.DeepCopy()
			status.Name = "batch"
			restarted.Status.ContainerStatuses[0] = *status
			// Also where reclaiming is not allowed any more.
			d := decide(t, restarted, false)
			if !slices.Equal(d.Restored, []string{"batch"}) {
				t.Fatalf("restored %v, want batch", d.Restored)
			}
			back := apply(t, restarted, d, all)
			wantRequests(t, back, "1600m 192Mi")
			if back.Annotations[v1alpha1.ReclaimedAnnotation] != "" {
				t.Errorf("the record is still there: %s", back.Annotations[v1alpha1.ReclaimedAnnotation])
			}
		})
	}
}

// One of two finished containers starts again: it gets its requests back, and the
// other one gives nothing back, nor the running one of which a thousandth was taken.
func TestTheOthersStayReclaimed(t *testing.T) {
	pod := fixture.MakePod("train").Node("node-a").RestartPolicy(corev1.RestartPolicyNever).
		Container("one", fixture.Exited(0), fixture.Requests("900m", "64Mi")).
		Container("two", fixture.Exited(0), fixture.Requests("700m", "64Mi")).
		Container("serve", running(), fixture.Requests("500m", "64Mi")).
		With(func(pod *corev1.Pod) {
			pod.Status.Resources = &corev1.ResourceRequirements{Requests: fixture.Amounts("2100m", "192Mi")}
		}).Obj()
	shrunk := apply(t, pod, decide(t, pod, true), all)
	wantRequests(t, shrunk, "501m 66Mi")
	again := func(pod *corev1.Pod, container int) *corev1.Pod {
		pod = pod.DeepCopy()
		status := running()
		status.Name = pod.Status.ContainerStatuses[container].Name
		pod.Status.ContainerStatuses[container] = *status
		return pod
	}
	restarted := again(shrunk, 0)
	d := decide(t, restarted, true)
	if !slices.Equal(d.Restored, []string{"one"}) {
		t.Errorf("restored %v, want one alone", d.Restored)
	}
	half := apply(t, restarted, d, all)
	wantRequests(t, half, "1400m 129Mi")
	// With the last of them, the running one gets back what was taken from it.
	both := again(half, 1)
	d = decide(t, both, true)
	if !slices.Equal(d.Restored, []string{"two", "serve"}) {
		t.Errorf("restored %v, want two and serve", d.Restored)
	}
	wantRequests(t, apply(t, both, d, all), "2100m 192Mi")
}

func TestWhatCannotBeResizedIsRolledBackAndSkipped(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*corev1.Pod)
		want   string
		why    string
	}{
		{"the kubelet cannot", infeasible, "1600m 192Mi", "static CPUs"},
		{"another client resizes the container too", func(pod *corev1.Pod) {
			pod.Spec.Containers[0].Resources.Requests = fixture.Amounts("2", "1Gi")
		}, "2700m 1152Mi", "another client"},
		{"another client raises what was shrunk", func(pod *corev1.Pod) {
			pod.Spec.Containers[0].Resources.Requests = fixture.Amounts("25m", "1Mi")
		}, "725m 129Mi", "another client"},
		{"another client restores what was shrunk", func(pod *corev1.Pod) {
			pod.Spec.Containers[0].Resources.Requests = fixture.Amounts("900m", "64Mi")
		}, "1600m 192Mi", "another client"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := training().Obj()
			pod = apply(t, pod, decide(t, pod, true), all)
			test.change(pod)
			d := decide(t, pod, true)
			pod = apply(t, pod, d, all)
			wantRequests(t, pod, test.want)
			if !strings.Contains(d.Keep.Skipped, test.why) {
				t.Errorf("skipped because %q, want %q", d.Keep.Skipped, test.why)
			}
			if d = decide(t, pod, true); d.Resized != nil {
				t.Error("it is tried again")
			}
		})
	}
}

// A resizer that always sets its own amounts meets us once, and once more when a
// crash has kept us from writing down that the container was shrunk.
func TestTwoResizersDoNotAlternate(t *testing.T) {
	for amount, limits := range map[string]corev1.ResourceList{"25m": fixture.Amounts("25m", "1Mi"), "the original": fixture.Amounts("900m", "64Mi")} {
		for crash := range 4 {
			pod := training().Obj()
			resizes := 0
			for range 10 {
				d := decide(t, pod, true)
				if d.Resized != nil {
					resizes++
				}
				until := all
				if resizes == 1 && d.Resized != nil {
					until = crash
				}
				pod = apply(t, pod, d, until)
				pod.Spec.Containers[0].Resources.Requests = limits.DeepCopy()
			}
			if most := 2; resizes > most {
				t.Errorf("%s, crash after %d writes: %d resizes, want %d at most", amount, crash, resizes, most)
			}
			if record, err := reclaimed.Of(pod); err != nil || record.Skipped == "" || len(record.Containers) > 0 {
				t.Errorf("%s, crash after %d writes: record %+v, error %v, want one that skips the pod", amount, crash, record, err)
			}
		}
	}
}

// The status still tells that the container has finished.
func TestAContainerThatStartsAgainUnseen(t *testing.T) {
	facts := Facts{MayShrink: true, StartedAgain: map[string]bool{"batch": true}}
	for name, reclaimedBefore := range map[string]bool{"shrunk": true, "not yet shrunk": false} {
		t.Run(name, func(t *testing.T) {
			pod := training().Obj()
			if reclaimedBefore {
				pod = apply(t, pod, decide(t, pod, true), all)
			}
			for range 2 { // The second look is at what the first has made.
				d, err := Decide(pod, facts)
				if err != nil {
					t.Fatal(err)
				}
				pod = apply(t, pod, d, all)
				wantRequests(t, pod, "1600m 192Mi")
			}
			// Also without a memory of what we saw.
			if d := decide(t, pod, true); d.Resized != nil || d.Why == "" {
				t.Errorf("it is shrunk again (%t), why %q", d.Resized != nil, d.Why)
			}
		})
	}
}

func TestABrokenRecordIsAnError(t *testing.T) {
	pod := training().Annotation(v1alpha1.ReclaimedAnnotation, "{").Obj()
	if _, err := Decide(pod, Facts{}); err == nil || !strings.Contains(err.Error(), v1alpha1.ReclaimedAnnotation) {
		t.Errorf("error %v, want one that names the annotation", err)
	}
}

func TestPodLevelRequestsFollow(t *testing.T) {
	pod := training().With(func(pod *corev1.Pod) {
		pod.Spec.Resources = &corev1.ResourceRequirements{Requests: fixture.Amounts("2", "1Gi"), Limits: fixture.Amounts("4", "2Gi")}
	}).Obj()
	after := apply(t, pod, decide(t, pod, true), all)
	if got := after.Spec.Resources; got.Requests.Cpu().String() != "1101m" || got.Requests.Memory().String() != "961Mi" || got.Limits.Cpu().String() != "4" {
		t.Errorf("pod-level resources %v, want requests 1101m and 961Mi, limits as before", got)
	}
	after.Status.ContainerStatuses[0] = *running()
	after.Status.ContainerStatuses[0].Name = "batch"
	if back := apply(t, after, decide(t, after, true), all); back.Spec.Resources.Requests.Cpu().String() != "2" || back.Annotations[v1alpha1.ReclaimedAnnotation] != "" {
		t.Errorf("pod-level resources %v, want those of before, and no record: %v", back.Spec.Resources, back.Annotations)
	}
}
