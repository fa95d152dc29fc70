package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// Every sample is one that the API server takes, without a field that it does
// not know, or a configuration that both programs start with.
func TestSamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repository, "config", "samples", "*"))
	if err != nil || len(files) < 5 {
		t.Fatalf("%d samples, %v", len(files), err)
	}
	strict := client.WithFieldValidation(k8s, "Strict")
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if filepath.Ext(file) != ".yaml" || !strings.HasPrefix(string(content), "# ") {
				t.Error("a sample is YAML that begins by telling what it is for")
			}
			if strings.HasPrefix(filepath.Base(file), "scheduler-configuration") {
				if _, err := load.File(file); err != nil {
					t.Error(err)
				}
				return
			}
			objects := readManifests(t, filepath.Join("..", "config", "samples", filepath.Base(file)))
			if len(objects) == 0 {
				t.Error("no object in it")
			}
			for _, object := range objects {
				if err := strict.Create(t.Context(), object, client.DryRunAll); err != nil {
					t.Errorf("%s %s: %v", object.GetKind(), object.GetName(), err)
				}
			}
		})
	}
}

// What the loop asks of a pod where it carries no state, as with the default
// configuration, the pods of the sample fulfil; without its annotation they would not.
func TestTheLoopMovesTheSample(t *testing.T) {
	deployment := &appsv1.Deployment{}
	for _, object := range readManifests(t, filepath.Join("..", "config", "samples", "deployment.yaml")) {
		if object.GetKind() == "Deployment" {
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, deployment); err != nil {
				t.Fatal(err)
			}
		}
	}
	template := deployment.Spec.Template
	if template.Spec.SchedulerName != v1alpha1.SchedulerName {
		t.Errorf("schedulerName is %q", template.Spec.SchedulerName)
	}
	pod := fixture.MakePod("server-1").Node("node-a").Controller("ReplicaSet", "server").Obj()
	pod.Annotations, pod.Spec.Containers, pod.Spec.Volumes = template.Annotations, template.Spec.Containers, template.Spec.Volumes
	running := fixture.Running()
	running.Name = template.Spec.Containers[0].Name
	pod.Status.Phase, pod.Status.ContainerStatuses = corev1.PodRunning, []corev1.ContainerStatus{*running}
	policy := containers.Policy{Waiting: v1alpha1.WaitingStrip, Mode: v1alpha1.CheckpointApplication}
	if _, refusal := containers.Assess(pod, policy, nil, nil); refusal != nil {
		t.Errorf("refused: %s: %s", refusal.Reason, refusal.Message)
	}
	pod.Annotations = nil
	if _, refusal := containers.Assess(pod, policy, nil, nil); refusal == nil || refusal.Reason != containers.RefusalVolumeNotCarried {
		t.Errorf("without its annotation: %+v", refusal)
	}
}
