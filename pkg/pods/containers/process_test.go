package containers_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	. "github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

func TestRefuseProcesses(t *testing.T) {
	class := v1alpha1.ProcessRuntimeClass
	good := func() *PodBuilder {
		return MakePod("p").Node("a").RestartPolicy(never).Container("main", Running()).Container("done", Exited(0)).
			With(func(p *corev1.Pod) { p.Spec.RuntimeClassName = &class })
	}
	main := func(change func(*corev1.Container)) *PodBuilder {
		return good().With(func(p *corev1.Pod) { change(&p.Spec.Containers[0]) })
	}
	spec := func(change func(*corev1.PodSpec)) *PodBuilder {
		return good().With(func(p *corev1.Pod) { change(&p.Spec) })
	}
	limit := func(name corev1.ResourceName) func(*corev1.Container) {
		return func(c *corev1.Container) { c.Resources.Limits = corev1.ResourceList{name: resource.MustParse("1")} }
	}
	command := &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}
	for _, test := range []struct {
		name string
		pod  *PodBuilder
		want string
	}{
		{"movable", good(), ""},
		{"another runtime class", spec(func(s *corev1.PodSpec) { s.RuntimeClassName = nil }), containers.RefusalRuntimeClass},
		{"host network", spec(func(s *corev1.PodSpec) { s.HostNetwork = true }), containers.RefusalHostNamespace},
		{"host PIDs", spec(func(s *corev1.PodSpec) { s.HostPID = true }), containers.RefusalHostNamespace},
		{"host IPC", spec(func(s *corev1.PodSpec) { s.HostIPC = true }), containers.RefusalHostNamespace},
		{"shared process namespace", spec(func(s *corev1.PodSpec) { s.ShareProcessNamespace = new(true) }), containers.RefusalSharedProcesses},
		{"user namespace", spec(func(s *corev1.PodSpec) { s.HostUsers = new(false) }), containers.RefusalUserNamespace},
		{"ephemeral container", good().With(func(p *corev1.Pod) {
			p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "debug", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		}), containers.RefusalEphemeral},
		{"ephemeral container that has ended", good().With(func(p *corev1.Pod) {
			p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "debug", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}}
		}), ""},
		{"resource claim", spec(func(s *corev1.PodSpec) { s.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}} }), containers.RefusalDevice},
		{"GPU", main(limit("nvidia.com/gpu")), containers.RefusalDevice},
		{"memory limit", main(limit(corev1.ResourceMemory)), ""},
		{"huge pages", main(limit("hugepages-2Mi")), containers.RefusalProcessHugePages},
		{"block device", main(func(c *corev1.Container) { c.VolumeDevices = []corev1.VolumeDevice{{Name: "disk"}} }), containers.RefusalDevice},
		{"privileged", main(func(c *corev1.Container) { c.SecurityContext = &corev1.SecurityContext{Privileged: new(true)} }), containers.RefusalPrivileged},
		{"terminal", main(func(c *corev1.Container) { c.TTY = true }), containers.RefusalInteractive},
		{"open input", main(func(c *corev1.Container) { c.Stdin = true }), containers.RefusalInteractive},
		{"postStart", main(func(c *corev1.Container) { c.Lifecycle = &corev1.Lifecycle{PostStart: command} }), containers.RefusalPostStart},
		{"preStop", main(func(c *corev1.Container) { c.Lifecycle = &corev1.Lifecycle{PreStop: command} }), ""},
		{"exec probe", main(func(c *corev1.Container) {
			c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: command.Exec}}
		}), ""},
		{"a finished container does not count", good().With(func(p *corev1.Pod) { p.Spec.Containers[1].TTY = true }), ""},
		{"crashed container", good().Container("failed", Exited(1)), containers.RefusalNotRunning},
		{"sidecar", good().Sidecar("s", Running()), ""},
		{"sidecar with a startup probe", good().Sidecar("s", Running()).With(func(p *corev1.Pod) {
			p.Spec.InitContainers[0].StartupProbe = &corev1.Probe{}
		}), containers.RefusalSidecarProbe},
		{"finished init container", good().Init("i", Exited(0)), ""},
		{"init container that would run again", good().Volume("c", ConfigMap("m")).Volume("v", EmptyDir()).Annotation(v1alpha1.DiscardableVolumesAnnotation, "v").
			Init("i", Exited(0), Mount("v", "/v")).With(func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "v", MountPath: "/v"})
		}), containers.RefusalInitAgain},
	} {
		pod := test.pod.Obj()
		verdicts := containers.Judge(pod, containers.Policy{Mode: v1alpha1.CheckpointProcess, MayStop: true})
		got := ""
		if r := containers.RefuseProcesses(pod, verdicts); r != nil {
			got = r.Reason
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
		if moving := containers.MovingProcesses(verdicts); test.want == "" && (!slices.Contains(moving, "main") || slices.Contains(moving, "done")) {
			t.Errorf("%s: the processes of %v move", test.name, moving)
		}
	}
}

// The same pod always gets the same reason, also where it gives several.
func TestRefuseProcessesNamesTheFirstReason(t *testing.T) {
	class := v1alpha1.ProcessRuntimeClass
	onHost := MakePod("p").Node("a").Container("main", Running()).With(func(p *corev1.Pod) {
		p.Spec.RuntimeClassName, p.Spec.HostNetwork, p.Spec.HostPID, p.Spec.HostIPC = &class, true, true, true
	}).Obj()
	withDevices := MakePod("p").Node("a").Container("main", Running()).With(func(p *corev1.Pod) {
		one := resource.MustParse("1")
		p.Spec.RuntimeClassName = &class
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"vendor/b": one, "vendor/a": one, "vendor/c": one}
	}).Obj()
	for pod, want := range map[*corev1.Pod]string{onHost: "uses hostNetwork:", withDevices: "(vendor/a)"} {
		for range 50 {
			verdicts := containers.Judge(pod, containers.Policy{Mode: v1alpha1.CheckpointProcess, MayStop: true})
			if r := containers.RefuseProcesses(pod, verdicts); r == nil || !strings.Contains(r.Message, want) {
				t.Fatalf("got %v, want %q", r, want)
			}
		}
	}
}
