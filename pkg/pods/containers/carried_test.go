package containers_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	. "github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// notCarried leaves the content of emptyDirs where it is, and does not give it up.
var notCarried = containers.Policy{Mode: v1alpha1.CheckpointApplication}

func huge() corev1.VolumeSource {
	return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumHugePages}}
}

// What is carried decides what may be left out, and what is refused.
func TestCarriedVolumes(t *testing.T) {
	writer := func(source corev1.VolumeSource) *PodBuilder {
		return MakePod("p").Node("a").RestartPolicy(never).Volume("v", source).
			Init("fetch", Exited(0), Mount("v", "/v")).Container("main", Running(), Mount("v", "/v"))
	}
	tests := []struct {
		name    string
		pod     *PodBuilder
		mode    v1alpha1.CheckpointMode
		carried []string
		refusal string
		init    bool // whether the finished init container runs again
	}{
		{"emptyDir", writer(EmptyDir()), "", []string{"v"}, "", false},
		{"emptyDir, Live", writer(EmptyDir()), v1alpha1.CheckpointLive, []string{"v"}, "", false},
		{"memory", writer(Memory()), v1alpha1.CheckpointFrozen, []string{"v"}, "", false},
		{"no source", writer(corev1.VolumeSource{}), "", []string{"v"}, "", false},
		{"may be lost", writer(EmptyDir()).Annotation(v1alpha1.DiscardableVolumesAnnotation, "v"), "", nil, "", true},
		{"None", writer(EmptyDir()), v1alpha1.CheckpointNone, nil, "", true},
		{"Application", writer(EmptyDir()), v1alpha1.CheckpointApplication, nil, containers.RefusalVolumeNotCarried, true},
		{"huge pages", writer(huge()), "", nil, containers.RefusalHugePages, true},
		{"huge pages, None", writer(huge()), v1alpha1.CheckpointNone, nil, "", true},
		{"generic ephemeral", writer(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}), "", nil, containers.RefusalVolumeNotCarried, true},
		{"of a container that stays behind", MakePod("p").Node("a").RestartPolicy(never).Volume("v", EmptyDir()).
			Init("fetch", Exited(0), Mount("v", "/v")).Container("main", Running()).Container("b", Exited(0), Mount("v", "/v")), "", nil, "", false},
		{"finished work", MakePod("p").Node("a").RestartPolicy(never).Volume("v", EmptyDir()).
			Init("fetch", Exited(0)).Container("main", Running(), MountReadOnly("v", "/v")).Container("b", Exited(0), Mount("v", "/v")), "", []string{"v"}, "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			pod := test.pod.Obj()
			v, refusal := containers.Assess(pod, containers.Policy{Mode: test.mode}, lookup, nil)
			got := ""
			if refusal != nil {
				got = refusal.Reason
			}
			if got != test.refusal || v.Keeps("fetch") != test.init {
				t.Errorf("refusal %q, init container kept: %t, want %q and %t", got, v.Keeps("fetch"), test.refusal, test.init)
			}
			if diff := cmp.Diff(test.carried, containers.CarriedVolumes(pod, v)); diff != "" {
				t.Errorf("carried (-want +got):\n%s", diff)
			}
		})
	}
}

// The gate comes before everything else, pulls each image once, and is gone
// when the pod moves again.
func TestGateOfAReplacement(t *testing.T) {
	guaranteed := resources("100m", "64Mi", "100m", "64Mi")
	pod := MakePod("p").Node("a").Volume("v", EmptyDir()).Sidecar("log", Running(), guaranteed).Container("main", Running(), Mount("v", "/v"), guaranteed).
		Container("other", Running(), guaranteed).With(func(p *corev1.Pod) {
		p.Spec.InitContainers[0].Image, p.Spec.Containers[0].Image, p.Spec.Containers[1].Image = "log:1", "main:1", "main:1"
		p.Status.QOSClass = corev1.PodQOSGuaranteed
	}).Obj()
	options := containers.ReplacementOptions{Name: "p-migrated-1", MigrationUID: "m", ClaimName: "claim", GateImage: "agent:1"}
	replacement := buildFor(t, pod, containers.Policy{}, options)
	want := []string{v1alpha1.GateInstallContainer, "migration-warm-1", "migration-warm-2", v1alpha1.GateContainer, "log"}
	if diff := cmp.Diff(want, initNames(replacement)); diff != "" {
		t.Errorf("init containers (-want +got):\n%s", diff)
	}
	for _, c := range replacement.Spec.InitContainers[:4] {
		if c.Resources.Limits.Cpu().IsZero() || !c.Resources.Limits.Cpu().Equal(*c.Resources.Requests.Cpu()) {
			t.Errorf("container %s takes the pod's class Guaranteed away: %+v", c.Name, c.Resources)
		}
	}

	replacement.Spec.NodeName = "b"
	options.GateImage = ""
	again := buildFor(t, replacement, containers.Policy{}, options)
	if diff := cmp.Diff([]string{"log"}, initNames(again)); diff != "" {
		t.Errorf("init containers of the next replacement (-want +got):\n%s", diff)
	}
	for _, volume := range again.Spec.Volumes {
		if volume.Name == v1alpha1.GateVolumeName {
			t.Error("the gate's volume stayed")
		}
	}
}

func buildFor(t *testing.T, pod *corev1.Pod, policy containers.Policy, options containers.ReplacementOptions) *corev1.Pod {
	t.Helper()
	replacement, err := containers.BuildReplacement(pod, containers.Judge(pod, policy), options)
	if err != nil {
		t.Fatal(err)
	}
	return replacement
}

func initNames(pod *corev1.Pod) (names []string) {
	for _, c := range pod.Spec.InitContainers {
		names = append(names, c.Name)
	}
	return names
}
