package containers_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	. "github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// The node sees an empty directory where a sandbox keeps the content to itself.
func TestEmptyDirsOfASandboxAreNotCarried(t *testing.T) {
	pod := func(class string) *PodBuilder {
		return MakePod("p").Node("a").Volume("v", EmptyDir()).Container("main", Running(), Mount("v", "/v")).
			With(func(p *corev1.Pod) {
				if class != "" {
					p.Spec.RuntimeClassName = &class
				}
			})
	}
	for name, test := range map[string]struct {
		pod     *PodBuilder
		mode    v1alpha1.CheckpointMode
		handler string
		further []string
		want    string // a part of the message; empty when the pod can move
	}{
		"no class":                     {pod: pod("")},
		"runc":                         {pod: pod("plain"), handler: "runc"},
		"crun":                         {pod: pod("plain"), handler: "crun"},
		"NVIDIA":                       {pod: pod("nvidia"), handler: "nvidia"},
		"ours":                         {pod: pod(v1alpha1.ProcessRuntimeClass), handler: v1alpha1.ProcessRuntimeClass},
		"gVisor":                       {pod: pod("gvisor"), handler: "runsc", want: "inside its sandbox"},
		"gVisor of GKE":                {pod: pod("gvisor"), handler: "gvisor", want: "inside its sandbox"},
		"Kata":                         {pod: pod("kata"), handler: "kata", want: "inside its sandbox"},
		"Kata with a hypervisor":       {pod: pod("kata"), handler: "kata-qemu-nvidia-gpu", want: "inside its sandbox"},
		"a class by the name of runc":  {pod: pod("runc"), handler: "runsc", want: "inside its sandbox"},
		"not known":                    {pod: pod("fast"), handler: "wasmtime", want: `handler "wasmtime", which is not known`},
		"not known, the admin vouches": {pod: pod("fast"), handler: "runc-fast", further: []string{"other", "runc-fast"}},
		"no such class":                {pod: pod("gone"), want: "there is no such RuntimeClass"},
		"nothing is carried":           {pod: pod("gvisor"), handler: "runsc", mode: v1alpha1.CheckpointNone},
		"the content may be lost":      {pod: pod("gvisor").Annotation(v1alpha1.DiscardableVolumesAnnotation, "v"), handler: "runsc"},
	} {
		t.Run(name, func(t *testing.T) {
			p := test.pod.Obj()
			r := containers.RefuseSandbox(p, containers.Judge(p, containers.Policy{Mode: test.mode}), test.handler, test.further...)
			if test.want == "" {
				if r != nil {
					t.Errorf("refused: %+v", r)
				}
				return
			}
			if r == nil || r.Reason != containers.RefusalSandbox {
				t.Fatalf("refusal %+v", r)
			}
			for _, part := range []string{test.want, "volume v", *p.Spec.RuntimeClassName, v1alpha1.DiscardableVolumesAnnotation + "=v"} {
				if !strings.Contains(r.Message, part) {
					t.Errorf("message %q, want one with %q", r.Message, part)
				}
			}
		})
	}
}

func TestBeforeGate(t *testing.T) {
	gate := func(b *PodBuilder) *PodBuilder {
		return b.Init(v1alpha1.GateInstallContainer, nil).Init(v1alpha1.GateWarmContainerPrefix+"1", nil).Init(v1alpha1.GateContainer, nil)
	}
	for name, test := range map[string]struct {
		pod  *PodBuilder
		want string
	}{
		"as built":                      {gate(MakePod("p")).Sidecar("log", nil), ""},
		"a sidecar first":               {gate(MakePod("p").Sidecar("istio-proxy", nil)).Sidecar("log", nil), "istio-proxy"},
		"the first of two":              {gate(MakePod("p").Sidecar("one", nil).Sidecar("two", nil)), "one"},
		"an init container that ends":   {gate(MakePod("p").Init("injected", nil)), ""},
		"one that ends, then a sidecar": {gate(MakePod("p").Init("injected", nil).Sidecar("proxy", nil)), "proxy"},
		"between the gate's own":        {MakePod("p").Init(v1alpha1.GateInstallContainer, nil).Sidecar("proxy", nil).Init(v1alpha1.GateContainer, nil), "proxy"},
		"no gate":                       {MakePod("p").Sidecar("istio-proxy", nil), ""},
		"no init containers":            {MakePod("p"), ""},
	} {
		if got := containers.BeforeGate(test.pod.Obj()); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}
