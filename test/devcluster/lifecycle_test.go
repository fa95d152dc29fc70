//go:build e2e

package devcluster

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"

	"github.com/ai-storage/orchestrator/test/devcluster/process"
	"github.com/ai-storage/orchestrator/test/devcluster/simnode"
)

// A simulated cluster with the programs of `make build tools`: what it plays,
// what it measures, and that nothing is left of it after a crash.
func TestSimulatedCluster(t *testing.T) {
	options := Options{
		StateDir: filepath.Join(t.TempDir(), "state"), BinDir: "../../bin", ManifestsDir: "../../manifests",
		ConfigFile: "../../config/scheduler-configuration.yaml", Nodes: NodeSpec{Simulated, 2},
		Components: []string{Scheduler}, Progress: t.Output(),
	}
	t.Cleanup(func() {
		if err := Down(context.Background(), options.StateDir, os.Stdout); err != nil {
			t.Error(err)
		}
		assertNothingRuns(t, options.StateDir)
	})
	cluster, err := Up(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Up(t.Context(), options); !errors.Is(err, ErrRunning) {
		t.Fatalf("second up: %v, want %v", err, ErrRunning)
	}
	config, err := cluster.AdminConfig()
	if err != nil {
		t.Fatal(err)
	}
	pod := createLoadedPod(t, kubernetes.NewForConfigOrDie(config))
	// 0.4 of a CPU by the worker and the node's own 0.02.
	awaitNodeUse(t, metricsclient.NewForConfigOrDie(config), pod.Spec.NodeName, 400, 460)
	assertAudited(t, cluster.AuditLogPath(), pod.Name)

	killAll(t, options.StateDir)
	if _, err := Open(options.StateDir); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("open after a crash: %v, want %v", err, ErrNotRunning)
	}
	options.Components = nil
	if _, err := Up(t.Context(), options); err != nil {
		t.Fatalf("up after a crash: %v", err)
	}
}

// createLoadedPod returns a pod that the scheduler placed and of which one
// container has finished on schedule, while the other runs on.
func createLoadedPod(t *testing.T, client kubernetes.Interface) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "loaded", Annotations: map[string]string{
			simnode.CPUUsagePrefix + "worker":    "400m",
			simnode.MemoryUsagePrefix + "worker": "1Gi",
			simnode.CPUUsagePrefix + "loader":    "2",
			simnode.FinishAfterPrefix + "loader": "3",
		}},
		Spec: corev1.PodSpec{
			SchedulerName: "ai-storage-scheduler",
			RestartPolicy: corev1.RestartPolicyNever,
			Containers:    []corev1.Container{{Name: "loader", Image: "none"}, {Name: "worker", Image: "none"}},
		},
	}
	pods := client.CoreV1().Pods(metav1.NamespaceDefault)
	if _, err := pods.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "the loader finishes", func() (done bool, seen any) {
		found, err := pods.Get(t.Context(), pod.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		pod = found
		statuses := pod.Status.ContainerStatuses
		return len(statuses) == 2 && statuses[0].State.Terminated != nil, pod.Status
	})
	loader, worker := pod.Status.ContainerStatuses[0].State.Terminated, pod.Status.ContainerStatuses[1].State
	if worker.Running == nil || pod.Status.Phase != corev1.PodRunning {
		t.Errorf("the worker has ended too: %+v", pod.Status)
	}
	if took := loader.FinishedAt.Sub(loader.StartedAt.Time); loader.ExitCode != 0 || took < 2*time.Second || took > 8*time.Second {
		t.Errorf("the loader ended after %s with %d, want about 3s and 0", took, loader.ExitCode)
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status != corev1.ConditionFalse {
			t.Error("a pod with a finished container is Ready, which a kubelet would not say")
		}
	}
	return pod
}

func awaitNodeUse(t *testing.T, client metricsclient.Interface, node string, low, high int64) {
	t.Helper()
	await(t, "the use of the node is served", func() (done bool, seen any) {
		metrics, err := client.MetricsV1beta1().NodeMetricses().Get(t.Context(), node, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		cpu, memory := metrics.Usage.Cpu().MilliValue(), metrics.Usage.Memory()
		return cpu >= low && cpu <= high && memory.Cmp(resource.MustParse("1Gi")) > 0, metrics.Usage
	})
	pods, err := client.MetricsV1beta1().PodMetricses(metav1.NamespaceDefault).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods.Items {
		for _, container := range pod.Containers {
			if container.Name == "loader" && !container.Usage.Cpu().IsZero() {
				t.Errorf("the finished container uses %v", container.Usage)
			}
		}
	}
}

// assertAudited proves from the audit log that the pod came to its node by a
// binding alone.
func assertAudited(t *testing.T, path, pod string) {
	t.Helper()
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	audited := map[string]bool{}
	for line := range strings.Lines(string(log)) {
		var event struct {
			Verb          string
			ObjectRef     struct{ Resource, Subresource, Name string }
			RequestObject corev1.Pod
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if event.Verb != "create" || event.ObjectRef.Resource != "pods" || event.ObjectRef.Name != pod {
			continue
		}
		audited[event.ObjectRef.Subresource] = true
		if event.ObjectRef.Subresource == "" && event.RequestObject.Spec.NodeName != "" {
			t.Errorf("pod %s was created on node %s", pod, event.RequestObject.Spec.NodeName)
		}
	}
	if !audited[""] || !audited["binding"] {
		t.Errorf("the audit log has of pod %s only %v", pod, audited)
	}
}

func killAll(t *testing.T, stateDir string) {
	t.Helper()
	records, err := process.List(stateDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range records {
		if err := record.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the processes end", func() (done bool, seen any) {
		for _, record := range records {
			if record.Alive() {
				return false, record
			}
		}
		return true, nil
	})
}

func assertNothingRuns(t *testing.T, stateDir string) {
	t.Helper()
	records, err := process.List(stateDir)
	if err != nil || len(records) > 0 {
		t.Errorf("left: %v, %v", records, err)
	}
	strays, err := process.Strays(stateDir)
	if err != nil || len(strays) > 0 {
		t.Errorf("strays: %v, %v", strays, err)
	}
}

func await(t *testing.T, what string, check func() (done bool, seen any)) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for {
		done, seen := check()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s; last seen: %+v", what, seen)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
