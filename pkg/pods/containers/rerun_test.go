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

// may gives a container what a change of its security context says.
func may(change func(*corev1.SecurityContext)) func(*corev1.Container) {
	return func(c *corev1.Container) {
		c.SecurityContext = &corev1.SecurityContext{}
		change(c.SecurityContext)
	}
}

func capabilities(added ...corev1.Capability) func(*corev1.Container) {
	return may(func(s *corev1.SecurityContext) {
		s.Capabilities = &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: added}
	})
}

// What an init container has done to the network of its pod or to its node, the
// replacement does not have; what it has done to volumes goes along.
func TestInitContainersThatActOnMoreThanVolumesRunAgain(t *testing.T) {
	unmasked := corev1.UnmaskedProcMount
	pod := func(changes ...func(*corev1.Container)) *PodBuilder {
		return MakePod("p").Node("a").Volume("v", EmptyDir()).
			Init("c", Exited(0), append([]func(*corev1.Container){Mount("v", "/v")}, changes...)...).
			Container("main", Running(), MountReadOnly("v", "/v"))
	}
	tests := []struct {
		name string
		pod  *PodBuilder
		want string // a part of the message; empty when the container stays behind
	}{
		{"fills a volume", pod(), ""},
		{"default capabilities", pod(capabilities("CHOWN", "CAP_NET_BIND_SERVICE", "setuid")), ""},
		{"not privileged", pod(may(func(s *corev1.SecurityContext) { s.Privileged = new(false) })), ""},
		{"privileged", pod(may(func(s *corev1.SecurityContext) { s.Privileged = new(true) })), "privileged"},
		{"NET_ADMIN", pod(capabilities("CHOWN", "NET_ADMIN")), "changes the network of the pod: it has capability NET_ADMIN"},
		{"CAP_NET_RAW", pod(capabilities("CAP_NET_RAW")), "network"},
		{"in lower case", pod(capabilities("net_admin")), "network"},
		{"ALL", pod(capabilities("ALL")), "network"},
		{"SYS_ADMIN", pod(capabilities("SYS_ADMIN")), "changes its node: it has capability SYS_ADMIN"},
		{"SYS_MODULE", pod(capabilities("SYS_MODULE")), "SYS_MODULE"},
		{"SYS_ADMIN before NET_ADMIN", pod(capabilities("SYS_ADMIN", "NET_ADMIN")), "NET_ADMIN"},
		{"procMount", pod(may(func(s *corev1.SecurityContext) { s.ProcMount = &unmasked })), "procMount"},
		{"host network", pod().With(func(p *corev1.Pod) { p.Spec.HostNetwork = true }), "hostNetwork"},
		{"host processes", pod().With(func(p *corev1.Pod) { p.Spec.HostPID = true }), "hostPID"},
		{"host IPC", pod().With(func(p *corev1.Pod) { p.Spec.HostIPC = true }), "hostIPC"},
		{"process of the host", pod(may(func(s *corev1.SecurityContext) {
			s.WindowsOptions = &corev1.WindowsSecurityContextOptions{HostProcess: new(true)}
		})), "process of the host"},
		{"process of the host, by its pod", pod().With(func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{HostProcess: new(true)}}
		}), "process of the host"},
		{"no process of the host, unlike its pod", pod(may(func(s *corev1.SecurityContext) {
			s.WindowsOptions = &corev1.WindowsSecurityContextOptions{HostProcess: new(false)}
		})).With(func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{HostProcess: new(true)}}
		}), ""},
		{"writes to its node", pod(Mount("host", "/host")).Volume("host", HostPath("/proc/sys")), "/proc/sys through volume host"},
		{"reads from its node", pod(MountReadOnly("host", "/host")).Volume("host", HostPath("/lib/modules")), ""},
		{"writes to its node what may be lost", pod(Mount("host", "/host")).Volume("host", HostPath("/cache")).
			Annotation(v1alpha1.DiscardableVolumesAnnotation, "host"), ""},
		{"the author wants it again", pod().Annotation(v1alpha1.RerunInitContainersAnnotation, "c"), v1alpha1.RerunInitContainersAnnotation},
		{"the author does not want it again", pod(capabilities("NET_ADMIN")).Annotation(v1alpha1.SkipInitContainersAnnotation, " c ,"), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := containers.Judge(test.pod.Obj(), containers.Policy{})
			if v.Refusal != "" {
				t.Fatalf("refused: %s", v.Message)
			}
			want := "c:Init:Completed:strip:InitCompleted"
			if test.want != "" {
				want = "c:Init:Completed:keep:InitRunsAgain"
			}
			if got := short(v)[0]; got != want {
				t.Errorf("verdict = %s, want %s", got, want)
			}
			if message := v.Containers[0].Message; !strings.Contains(message, test.want) || strings.Contains(message, "runs again") != (test.want != "") {
				t.Errorf("message %q, want one with %q", message, test.want)
			}
		})
	}
}

// Its result is in a volume that stays behind: without it the pod could not work,
// whatever its author says.
func TestAnInitContainerWhoseResultIsLostRunsAgainWhateverTheAuthorSays(t *testing.T) {
	pod := MakePod("p").Node("a").Volume("v", EmptyDir()).Annotation(v1alpha1.SkipInitContainersAnnotation, "c").
		Init("c", Exited(0), Mount("v", "/v")).Container("main", Running(), MountReadOnly("v", "/v")).Obj()
	if got := short(containers.Judge(pod, notCarried))[0]; got != "c:Init:Completed:keep:InitResultNotCarried" {
		t.Errorf("verdict = %s", got)
	}
}

func TestListsOfInitContainersNameInitContainers(t *testing.T) {
	const again, skip = v1alpha1.RerunInitContainersAnnotation, v1alpha1.SkipInitContainersAnnotation
	pod := func(key, names string) *PodBuilder {
		return MakePod("p").Node("a").Annotation(key, names).
			Init("net", Exited(0)).Sidecar("proxy", Running()).Container("main", Running())
	}
	for name, test := range map[string]struct {
		pod  *PodBuilder
		want []string // parts of the message; none when the pod can move
	}{
		"right":                    {pod(again, "net"), nil},
		"right, with blanks":       {pod(skip, " net , "), nil},
		"a wrong name":             {pod(again, "net, nett"), []string{again, `"nett"`, "its init containers: net"}},
		"a container":              {pod(skip, "main"), []string{skip, `"main"`}},
		"a sidecar":                {pod(again, "proxy"), []string{again, "proxy", "sidecar"}},
		"both":                     {pod(again, "net").Annotation(skip, "net"), []string{again, skip, "net"}},
		"left out before":          {pod(skip, "old").Annotation(containers.LeftOutAnnotation, "old/Init,run/Container"), nil},
		"a container left out":     {pod(skip, "run").Annotation(containers.LeftOutAnnotation, "old/Init,run/Container"), []string{`"run"`, "net, old"}},
		"a pod without any of its": {MakePod("p").Node("a").Annotation(skip, "net").Container("main", Running()), []string{"its init containers: none"}},
		"our own gate": {MakePod("p").Node("a").Annotation(skip, v1alpha1.GateContainer).
			Init(v1alpha1.GateContainer, Exited(0)).Container("main", Running()), []string{v1alpha1.GateContainer}},
	} {
		t.Run(name, func(t *testing.T) {
			v := containers.Judge(test.pod.Obj(), containers.Policy{})
			if len(test.want) == 0 {
				if v.Refusal != "" {
					t.Errorf("refused: %s", v.Message)
				}
				return
			}
			if v.Refusal != containers.RefusalInitContainers {
				t.Fatalf("refusal %q: %s", v.Refusal, v.Message)
			}
			for _, part := range test.want {
				if !strings.Contains(v.Message, part) {
					t.Errorf("message %q, want one with %q", v.Message, part)
				}
			}
		})
	}
}

// A pod that has moved can move again: its lists name what it still has.
func TestListsOfAReplacementNameItsOwnInitContainers(t *testing.T) {
	pod := MakePod("p").Node("a").Init("fetch", Exited(0)).Init("net", Exited(0)).Init("tune", Exited(0), capabilities("SYS_ADMIN")).
		Annotation(v1alpha1.RerunInitContainersAnnotation, "net").Annotation(v1alpha1.SkipInitContainersAnnotation, "fetch, tune").
		Container("main", Running()).Obj()
	r := buildFor(t, pod, containers.Policy{}, options)
	if diff := cmp.Diff([]string{"net"}, initNames(r)); diff != "" {
		t.Errorf("init containers (-want +got):\n%s", diff)
	}
	if got := r.Annotations[v1alpha1.RerunInitContainersAnnotation]; got != "net" {
		t.Errorf("run again: %q", got)
	}
	if got, has := r.Annotations[v1alpha1.SkipInitContainersAnnotation]; has {
		t.Errorf("do not run again: %q", got)
	}
	r.Spec.NodeName = "b"
	r.Status = MakePod("x").Init("net", Exited(0)).Container("main", Running()).Obj().Status
	if v := containers.Judge(r, containers.Policy{}); v.Refusal != "" {
		t.Errorf("refused: %s", v.Message)
	}
}

// It writes to the next node what it has written to this one, so the path is there.
func TestAPathThatOnlyInitContainersWriteToMoves(t *testing.T) {
	pod := MakePod("p").Node("a").Volume("host", HostPath("/proc/sys")).Init("sysctl", Exited(0), Mount("host", "/host"))
	if v := containers.Judge(pod.Container("main", Running()).Obj(), containers.Policy{}); v.Refusal != "" || !v.Keeps("sysctl") {
		t.Errorf("refusal %q, kept %t", v.Message, v.Keeps("sysctl"))
	}
	v := containers.Judge(pod.Container("reader", Running(), MountReadOnly("host", "/host")).Obj(), containers.Policy{})
	if v.Refusal != containers.RefusalHostPath || !strings.Contains(v.Message, "reader") {
		t.Errorf("refusal %q: %s", v.Refusal, v.Message)
	}
}

// An injector adds its init container to each pod that an owner creates, and does not do
// so again to a pod that lacks it.
func TestRewriteKeepsWhatAnInjectorHasAdded(t *testing.T) {
	injected := func(b *PodBuilder) *PodBuilder {
		return b.Init("linkerd-init", Exited(0), capabilities("NET_ADMIN", "NET_RAW"))
	}
	pod := func() *PodBuilder {
		return MakePod("web").Node("node-a").Controller("ReplicaSet", "web").Init("fetch", Exited(0))
	}
	for name, test := range map[string]struct {
		original, next *PodBuilder
	}{
		"the original has it, too":       {injected(pod()), injected(pod())},
		"the original has it, unarmed":   {pod().Init("linkerd-init", Exited(0)), injected(pod())},
		"an earlier migration lacked it": {pod().Annotation(containers.LeftOutAnnotation, "linkerd-init/Init"), injected(pod())},
	} {
		t.Run(name, func(t *testing.T) {
			verdicts := containers.Judge(test.original.Container("main", Running()).Obj(), containers.Policy{})
			next := test.next.Container("main", nil).Node("").Obj()
			before := verdicts.Containers[1]
			got, err := containers.Rewrite(next, verdicts, containers.ReplacementOptions{Name: "r", MigrationUID: "m", ClaimName: "claim", SourceNode: "node-a"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"linkerd-init"}, initNames(got)); diff != "" {
				t.Errorf("init containers (-want +got):\n%s", diff)
			}
			if want := "fetch/Init"; got.Annotations[containers.LeftOutAnnotation] != want {
				t.Errorf("left out %q, want %q", got.Annotations[containers.LeftOutAnnotation], want)
			}
			if diff := cmp.Diff(before, verdicts.Containers[1]); diff != "" {
				t.Errorf("the verdicts that were given are changed:\n%s", diff)
			}
		})
	}
	verdicts := containers.Judge(injected(pod()).Annotation(v1alpha1.SkipInitContainersAnnotation, "linkerd-init").Container("main", Running()).Obj(), containers.Policy{})
	next := injected(pod()).Annotation(v1alpha1.SkipInitContainersAnnotation, "linkerd-init").Container("main", nil).Node("").Obj()
	got, err := containers.Rewrite(next, verdicts, containers.ReplacementOptions{Name: "r", MigrationUID: "m"})
	if err != nil || len(got.Spec.InitContainers) > 0 {
		t.Errorf("init containers %v, %v, want none, as the author says", got.Spec.InitContainers, err)
	}
}
