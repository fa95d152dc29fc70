package containers_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	. "github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

const (
	never     = corev1.RestartPolicyNever
	onFailure = corev1.RestartPolicyOnFailure
	always    = corev1.RestartPolicyAlways
)

func rule(action corev1.ContainerRestartRuleAction, operator corev1.ContainerRestartRuleOnExitCodesOperator, codes ...int32) corev1.ContainerRestartRule {
	return corev1.ContainerRestartRule{Action: action, ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: operator, Values: codes}}
}

// short writes a verdict as name:kind:state:keep|strip:reason.
func short(v containers.Verdicts) []string {
	var lines []string
	for _, c := range v.Containers {
		fate := "strip"
		if c.ShouldMigrate {
			fate = "keep"
		}
		lines = append(lines, strings.Join([]string{c.Name, string(c.Kind), string(c.State), fate, c.Reason}, ":"))
	}
	return lines
}

func TestJudgeContainers(t *testing.T) {
	const (
		restart    = corev1.ContainerRestartRuleActionRestart
		restartAll = corev1.ContainerRestartRuleActionRestartAllContainers
		in, notIn  = corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn
	)
	main := func(p *PodBuilder) *PodBuilder { return p.Container("main", Running()) }
	tests := []struct {
		name    string
		pod     *PodBuilder
		waiting v1alpha1.WaitingPolicy
		want    string // verdict on the container that is not main
	}{
		{"running", MakePod("p").Container("c", Running()), "", "c:Container:Running:keep:Running"},
		{"finished, Never", MakePod("p").RestartPolicy(never).Container("c", Exited(0)), "", "c:Container:Completed:strip:Completed"},
		{"finished, OnFailure", MakePod("p").RestartPolicy(onFailure).Container("c", Exited(0)), "", "c:Container:Completed:strip:Completed"},
		{"finished, Always", MakePod("p").RestartPolicy(always).Container("c", Exited(0)), "", "c:Container:Completed:keep:WillRestart"},
		{"finished, pod Always, container Never", MakePod("p").Container("c", Exited(0), Restart("Never")), "", "c:Container:Completed:strip:Completed"},
		{"finished, pod Always, container OnFailure", MakePod("p").Container("c", Exited(0), Restart("OnFailure")), "", "c:Container:Completed:strip:Completed"},
		{"finished, pod Never, container Always", MakePod("p").RestartPolicy(never).Container("c", Exited(0), Restart("Always")), "", "c:Container:Completed:keep:WillRestart"},
		{"finished, rule restarts code 0", MakePod("p").RestartPolicy(never).Container("c", Exited(0), Restart("Never", rule(restart, in, 0))), "", "c:Container:Completed:keep:WillRestart"},
		{"finished, rule is for other codes", MakePod("p").RestartPolicy(never).Container("c", Exited(0), Restart("Never", rule(restart, in, 42))), "", "c:Container:Completed:strip:Completed"},
		{"finished, rule not in other codes", MakePod("p").RestartPolicy(never).Container("c", Exited(0), Restart("Never", rule(restart, notIn, 42))), "", "c:Container:Completed:keep:WillRestart"},
		{"finished, rules without a policy do not count", MakePod("p").RestartPolicy(never).Container("c", Exited(0), func(c *corev1.Container) {
			c.RestartPolicyRules = []corev1.ContainerRestartRule{rule(restart, in, 0)}
		}), "", "c:Container:Completed:strip:Completed"},
		{"finished, another container may restart all", MakePod("p").RestartPolicy(never).Container("c", Exited(0)).
			Sidecar("side", Running(), func(c *corev1.Container) {
				c.RestartPolicyRules = []corev1.ContainerRestartRule{rule(restartAll, in, 7)}
			}), "", "c:Container:Completed:keep:MayRestart"},
		{"failed, Never", MakePod("p").RestartPolicy(never).Container("c", Exited(3)), "", "c:Container:Failed:keep:Failed"},
		{"failed, OnFailure", MakePod("p").RestartPolicy(onFailure).Container("c", Exited(3)), "", "c:Container:Failed:keep:Failed"},
		{"crash loop", MakePod("p").Container("c", WaitingAgain("CrashLoopBackOff", 1)), v1alpha1.WaitingStrip, "c:Container:Failed:keep:CrashLoopBackOff"},
		{"crash loop after success", MakePod("p").Container("c", WaitingAgain("CrashLoopBackOff", 0)), v1alpha1.WaitingStrip, "c:Container:Failed:keep:CrashLoopBackOff"},
		{"failed and its image is pulled again", MakePod("p").Container("c", WaitingAgain("ImagePullBackOff", 1)), v1alpha1.WaitingStrip, "c:Container:Failed:keep:Failed"},
		{"about to start again", MakePod("p").Container("c", WaitingAgain("ContainerCreating", 0)), v1alpha1.WaitingStrip, "c:Container:Waiting:keep:Restarting"},
		{"never started, default", MakePod("p").Container("c", Waiting("ImagePullBackOff")), "", "c:Container:Waiting:strip:NeverStarted"},
		{"never started, Strip", MakePod("p").Container("c", Waiting("ImagePullBackOff")), v1alpha1.WaitingStrip, "c:Container:Waiting:strip:NeverStarted"},
		{"never started, Keep", MakePod("p").Container("c", Waiting("ImagePullBackOff")), v1alpha1.WaitingKeep, "c:Container:Waiting:keep:NeverStarted"},
		{"no status", MakePod("p").Container("c", nil), "", "c:Container:Waiting:strip:NeverStarted"},
		{"init finished", MakePod("p").Init("c", Exited(0)), "", "c:Init:Completed:strip:InitCompleted"},
		{"init finished, rule restarts it", MakePod("p").Init("c", Exited(0), Restart("Never", rule(restart, in, 0))), "", "c:Init:Completed:keep:WillRestart"},
		{"init finished, a rule may restart all", MakePod("p").Init("c", Exited(0)).Sidecar("side", Running(), func(c *corev1.Container) {
			c.RestartPolicyRules = []corev1.ContainerRestartRule{rule(restartAll, in, 7)}
		}), "", "c:Init:Completed:keep:MayRestart"},
		{"init failed", MakePod("p").Init("c", WaitingAgain("CrashLoopBackOff", 2)), "", "c:Init:Failed:keep:CrashLoopBackOff"},
		{"sidecar running", MakePod("p").Sidecar("c", Running()), "", "c:Sidecar:Running:keep:Sidecar"},
		{"sidecar ended", MakePod("p").Sidecar("c", Exited(0)), "", "c:Sidecar:Completed:keep:Sidecar"},
		{"ephemeral", MakePod("p").Ephemeral("c", Running()), v1alpha1.WaitingKeep, "c:Ephemeral:Running:strip:Ephemeral"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := containers.Judge(main(test.pod).Obj(), containers.Policy{Waiting: test.waiting, Mode: notCarried.Mode})
			got := ""
			for i, line := range short(v) {
				if v.Containers[i].Message == "" {
					t.Errorf("%s has no message", line)
				}
				if strings.HasPrefix(line, "c:") {
					got = line
				}
			}
			if got != test.want {
				t.Errorf("verdict = %s, want %s", got, test.want)
			}
			if v.Refusal != "" {
				t.Errorf("refused: %s: %s", v.Refusal, v.Message)
			}
		})
	}
}

func TestJudgeWhileInitialising(t *testing.T) {
	pod := MakePod("p").Init("fetch", Exited(0)).Init("unpack", Running()).Init("check", Waiting("PodInitializing")).
		Container("main", Waiting("PodInitializing")).Obj()
	want := []string{
		"fetch:Init:Completed:strip:InitCompleted", "unpack:Init:Running:keep:Running",
		"check:Init:Waiting:keep:WaitingForInit", "main:Container:Waiting:keep:WaitingForInit",
	}
	v := containers.Judge(pod, notCarried)
	if diff := cmp.Diff(want, short(v)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !v.HasWaiting() {
		t.Error("HasWaiting is false")
	}
}

func TestInitContainersAndWhatTheyLeftBehind(t *testing.T) {
	ro := MountReadOnly("v", "/v")
	tests := []struct {
		name   string
		volume corev1.VolumeSource
		init   func(*corev1.Container)
		main   func(*corev1.Container)
		want   string
	}{
		{"emptyDir", EmptyDir(), Mount("v", "/v"), ro, "keep:InitResultNotCarried"},
		{"memory", Memory(), Mount("v", "/v"), ro, "keep:InitResultNotCarried"},
		{"no source is an emptyDir", corev1.VolumeSource{}, Mount("v", "/v"), ro, "keep:InitResultNotCarried"},
		{"generic ephemeral", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}, Mount("v", "/v"), ro, "keep:InitResultNotCarried"},
		{"init only reads", EmptyDir(), ro, ro, "strip:InitCompleted"},
		{"not shared", EmptyDir(), Mount("v", "/v"), func(*corev1.Container) {}, "strip:InitCompleted"},
		{"claim", Claim("data"), Mount("v", "/v"), ro, "strip:InitCompleted"},
		{"config map", ConfigMap("settings"), Mount("v", "/v"), ro, "strip:InitCompleted"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			pod := MakePod("p").Volume("v", test.volume).Init("c", Exited(0), test.init).Container("main", Running(), test.main).Obj()
			v := containers.Judge(pod, notCarried)
			if got := short(v)[0]; got != "c:Init:Completed:"+test.want {
				t.Errorf("verdict = %s, want %s", got, test.want)
			}
			if v.Refusal != "" {
				t.Errorf("refused: %s", v.Message)
			}
		})
	}
}

func TestKeptInitContainersNeedTheirSources(t *testing.T) {
	pod := MakePod("p").Volume("raw", EmptyDir()).Volume("ready", EmptyDir()).Volume("other", EmptyDir()).
		Init("fetch", Exited(0), Mount("raw", "/raw")).
		Init("lonely", Exited(0), Mount("other", "/other")).
		Init("unpack", Exited(0), Mount("raw", "/raw"), Mount("ready", "/ready")).
		Container("main", Running(), MountReadOnly("ready", "/ready")).Obj()
	want := []string{
		"fetch:Init:Completed:keep:InitResultNotCarried", "lonely:Init:Completed:strip:InitCompleted",
		"unpack:Init:Completed:keep:InitResultNotCarried", "main:Container:Running:keep:Running",
	}
	if diff := cmp.Diff(want, short(containers.Judge(pod, notCarried))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSidecarsKeepTheirOrder(t *testing.T) {
	pod := MakePod("p").Node("a").Sidecar("net", Running()).Init("fetch", Exited(0)).Sidecar("log", Running()).Container("main", Running()).Obj()
	r, err := containers.BuildReplacement(pod, containers.Judge(pod, notCarried), containers.ReplacementOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range r.Spec.InitContainers {
		names = append(names, c.Name)
	}
	if diff := cmp.Diff([]string{"net", "log"}, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
