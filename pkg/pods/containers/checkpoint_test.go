package containers_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	. "github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// mountsOf are the claims that a container sees, as claim:path/sub-path.
func mountsOf(pod *corev1.Pod, c *corev1.Container) []string {
	var seen []string
	for _, m := range c.VolumeMounts {
		for _, v := range pod.Spec.Volumes {
			if v.Name == m.Name && v.PersistentVolumeClaim != nil {
				seen = append(seen, v.PersistentVolumeClaim.ClaimName+":"+m.MountPath+"/"+m.SubPath)
			}
		}
	}
	return seen
}

func claimsOf(pod *corev1.Pod) (claims []string) {
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			claims = append(claims, v.Name+":"+v.PersistentVolumeClaim.ClaimName)
		}
	}
	return claims
}

// What a replacement mounts of the checkpoint claims: whether the controller makes it of the
// original, which may have been moved before, or the webhook of the owner's next pod.
func TestCheckpointClaims(t *testing.T) {
	moved := func(subPath string) *corev1.Pod {
		pod := original()
		pod.Annotations = map[string]string{v1alpha1.CheckpointClaimAnnotation: "old"}
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: v1alpha1.CheckpointVolumeName, VolumeSource: Claim("old")})
		for i := range pod.Spec.Containers {
			pod.Spec.Containers[i].VolumeMounts = append(pod.Spec.Containers[i].VolumeMounts, corev1.VolumeMount{
				Name: v1alpha1.CheckpointVolumeName, MountPath: v1alpha1.CheckpointMountPath, SubPath: subPath,
			})
		}
		return pod
	}
	const atPath = ":/migration-checkpoint/"
	for name, test := range map[string]struct {
		original                 *corev1.Pod
		claim, previous          string
		claims, serve, rewritten []string
		gate                     string
		annotation               string
	}{
		"none":                                 {original(), "", "", nil, nil, nil, "", ""},
		"a new one":                            {original(), "new", "", []string{"migration-checkpoint:new"}, []string{"new" + atPath + "application"}, []string{"new" + atPath + "application"}, "new" + atPath + ".ai-storage", "new"},
		"the one of before":                    {moved("application"), "old", "", []string{"migration-checkpoint:old"}, []string{"old" + atPath + "application"}, []string{"old" + atPath + "application"}, "old" + atPath + ".ai-storage", "old"},
		"the one of before, as it was mounted": {moved(""), "old", "", []string{"migration-checkpoint:old"}, []string{"old" + atPath}, []string{"old" + atPath + "application"}, "old" + atPath + ".ai-storage", "old"},
		"that may be lost, none":               {moved("application"), "", "", nil, nil, nil, "", ""},
		"that may be lost, a new one":          {moved("application"), "new", "", []string{"migration-checkpoint:new"}, []string{"new" + atPath + "application"}, []string{"new" + atPath + "application"}, "new" + atPath + ".ai-storage", "new"},
		"kept":                                 {moved("application"), "", "old", []string{"migration-checkpoint:old"}, []string{"old" + atPath + "application"}, []string{"old" + atPath + "application"}, "", "old"},
		"kept, and a new one": {moved("application"), "new", "old", []string{"migration-checkpoint:old", "migration-copy:new"},
			[]string{"old" + atPath + "application"}, []string{"old" + atPath + "application"}, "new" + atPath + ".ai-storage", "old"},
	} {
		verdicts, options := containers.Judge(test.original, containers.Policy{}), rewriteOptions()
		options.ClaimName, options.PreviousClaim, options.GateImage = test.claim, test.previous, "agent:1"
		built, err := containers.BuildReplacement(test.original, verdicts, options)
		if err != nil {
			t.Fatal(err)
		}
		rewritten, err := containers.Rewrite(next(), verdicts, options)
		if err != nil {
			t.Fatal(err)
		}
		for how, pod := range map[string]*corev1.Pod{"built": built, "rewritten": rewritten} {
			want := test.serve
			if how == "rewritten" {
				want = test.rewritten
			}
			for i := range pod.Spec.Containers {
				if diff := cmp.Diff(want, mountsOf(pod, &pod.Spec.Containers[i])); diff != "" {
					t.Errorf("%s, %s: container %s (-want +got):\n%s", name, how, pod.Spec.Containers[i].Name, diff)
				}
			}
			for i := range pod.Spec.InitContainers {
				c := &pod.Spec.InitContainers[i]
				if !v1alpha1.IsGateContainer(c.Name) {
					continue
				}
				got := mountsOf(pod, c)
				if isGate := c.Name == v1alpha1.GateContainer && test.gate != ""; isGate != (len(got) == 1) || isGate && got[0] != test.gate {
					t.Errorf("%s, %s: container %s mounts %v, want %q in the gate", name, how, c.Name, got, test.gate)
				}
			}
			if diff := cmp.Diff(test.claims, claimsOf(pod)); diff != "" {
				t.Errorf("%s, %s: claims (-want +got):\n%s", name, how, diff)
			}
			if got := pod.Annotations[v1alpha1.CheckpointClaimAnnotation]; got != test.annotation {
				t.Errorf("%s, %s: annotation %q, want %q", name, how, got, test.annotation)
			}
		}
	}
}

// The claim of a migration whose pod kept another one goes with its gate at the next move.
func TestTheClaimOfTheGateGoesAtTheNextMove(t *testing.T) {
	pod := MakePod("web").Node("a").Annotation(v1alpha1.CheckpointClaimAnnotation, "old").Volume(v1alpha1.CheckpointVolumeName, Claim("old")).
		Container("c", Running(), Mount(v1alpha1.CheckpointVolumeName, v1alpha1.CheckpointMountPath)).Obj()
	first := build(t, pod, containers.ReplacementOptions{Name: "web-1", MigrationUID: "m1", ClaimName: "new", PreviousClaim: "old", GateImage: "agent:1"})
	first.Spec.NodeName, first.Status = "b", pod.Status
	second := build(t, first, containers.ReplacementOptions{Name: "web-2", MigrationUID: "m2", ClaimName: "newer", PreviousClaim: "old", GateImage: "agent:1"})
	if diff := cmp.Diff([]string{"migration-checkpoint:old", "migration-copy:newer"}, claimsOf(second)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
