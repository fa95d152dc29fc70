package containers_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	. "github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// What runs the image of the node agent names its Secrets beside those of the pod; what
// does not run it does not.
func TestPullSecrets(t *testing.T) {
	pod := original()
	pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "own"}, {Name: "both"}}
	verdicts := containers.Judge(pod, containers.Policy{})
	for image, want := range map[string][]corev1.LocalObjectReference{
		"":        {{Name: "own"}, {Name: "both"}},
		"agent:1": {{Name: "own"}, {Name: "both"}, {Name: "ours"}},
	} {
		options := rewriteOptions()
		options.GateImage, options.PullSecrets = image, []string{"both", "ours"}
		built, err := containers.BuildReplacement(pod, verdicts, options)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, built.Spec.ImagePullSecrets); diff != "" {
			t.Errorf("replacement with gate image %q (-want +got):\n%s", image, diff)
		}
	}
	if len(pod.Spec.ImagePullSecrets) != 2 {
		t.Errorf("the original has %v now", pod.Spec.ImagePullSecrets)
	}
}

// Devices that a template makes are held too; those of a named claim are the original's.
func TestAPlaceholderHoldsDevices(t *testing.T) {
	pod := original()
	name := "gpu"
	pod.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "made", ResourceClaimTemplateName: &name}, {Name: "named", ResourceClaimName: &name}}
	placeholder := containers.BuildPlaceholder(pod, "h", "pause", nil, nil)
	if diff := cmp.Diff(pod.Spec.ResourceClaims[:1], placeholder.Spec.ResourceClaims); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(pod.Spec.ResourceClaims) != 2 {
		t.Errorf("the original has %v now", pod.Spec.ResourceClaims)
	}
}

// A replacement of a pod that keeps nothing has no claim, so that it can move again beside
// its original, whatever the class.
func TestAPodThatKeepsNothingMovesAgain(t *testing.T) {
	pod := MakePod("web").Node("a").Container("c", Running()).Obj()
	for move, node := range []string{"b", "a", "b"} {
		verdicts, refusal := containers.Assess(pod, containers.Policy{}, func(string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) { return nil, nil }, nil)
		if refusal != nil {
			t.Fatalf("move %d: %+v", move, refusal)
		}
		next, err := containers.BuildReplacement(pod, verdicts, containers.ReplacementOptions{Name: "web-migrated", MigrationUID: "m"})
		if err != nil || len(next.Spec.Volumes) != 0 || len(next.Spec.Containers[0].VolumeMounts) != 0 {
			t.Fatalf("move %d: error %v, volumes %v", move, err, next.Spec.Volumes)
		}
		next.Spec.NodeName, next.Status = node, pod.Status
		pod = next
	}
}
