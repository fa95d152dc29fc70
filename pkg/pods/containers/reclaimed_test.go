package containers_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// What was taken from a pod in place does not follow it.
func TestAReplacementRequestsWhatThePodRequestedAtFirst(t *testing.T) {
	pod := fixture.MakePod("train").Node("node-a").RestartPolicy(corev1.RestartPolicyNever).
		Annotation(v1alpha1.ReclaimedAnnotation, `{"containers":{
			"batch":{"original":{"requests":{"cpu":"900m"}},"resized":{"requests":{"cpu":"1m"}}},
			"serve":{"original":{"requests":{"cpu":"500m"}},"resized":{"requests":{"cpu":"499m"}},"tookMilli":true}}}`).
		Container("batch", fixture.Exited(1), fixture.Requests("1m", "64Mi")).
		Container("serve", fixture.Running(), fixture.Requests("499m", "64Mi")).
		Obj()
	replacement, err := containers.BuildReplacement(pod, containers.Judge(pod, containers.Policy{}), containers.ReplacementOptions{Name: "r"})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"900m", "500m"} {
		if got := replacement.Spec.Containers[i].Resources.Requests.Cpu(); got.String() != want {
			t.Errorf("container %s asks for %s, want %s", replacement.Spec.Containers[i].Name, got, want)
		}
	}
	if record, left := replacement.Annotations[v1alpha1.ReclaimedAnnotation]; left {
		t.Errorf("the replacement has the record %s", record)
	}
	pod.Annotations[v1alpha1.ReclaimedAnnotation] = "{"
	if _, err := containers.BuildReplacement(pod, containers.Judge(pod, containers.Policy{}), containers.ReplacementOptions{}); err == nil {
		t.Error("a record that cannot be read is not noticed")
	}
}
