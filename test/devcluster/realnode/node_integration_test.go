package realnode_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/test/devcluster/controlplane"
	"github.com/ai-storage/orchestrator/test/devcluster/process"
	"github.com/ai-storage/orchestrator/test/devcluster/realnode"
)

// TestRealNodes starts two nodes once and looks at them from all sides. The
// order matters: later steps use the pods of earlier ones.
func TestRealNodes(t *testing.T) {
	f := newFixture(t)
	f.createClaim(t)
	mount := []corev1.VolumeMount{{Name: "shared", MountPath: "/data"}}
	main := container("main", "500m", "--cpu=400m", "--memory=64Mi", "--http=:8080", "--write=/data/main")
	main.VolumeMounts = mount
	other := container("main", "100m", "--cpu=50m", "--http=:8080", "--write=/data/other")
	other.VolumeMounts = mount
	first := f.runPod(t, "first", nodeNames[0], container("short", "900m", "--for=3s"), main, container("side", "200m"))
	second := f.runPod(t, "second", nodeNames[1], other)

	t.Run("size", f.testSize)
	t.Run("a container finishes and leaves its log", f.testFinish)
	t.Run("exec and network across nodes", func(t *testing.T) { f.testNetwork(t, first, second) })
	t.Run("one volume on both nodes", f.testVolume)
	t.Run("measured use", f.testUse)
	t.Run("resize in place", f.testResize)
	t.Run("delete", f.testDelete)
	t.Run("crash", f.testCrash)
}

func (f *fixture) createClaim(t *testing.T) {
	t.Helper()
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "shared"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	claims := f.client.CoreV1().PersistentVolumeClaims(namespace)
	if _, err := claims.Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		claim, err := claims.Get(t.Context(), "shared", metav1.GetOptions{})
		if err == nil && claim.Status.Phase != corev1.ClaimBound {
			err = fmt.Errorf("the claim is %s", claim.Status.Phase)
		}
		return err
	})
	// The provisioner's directory is not below the test's.
	directory := f.volumeDirectory(t)
	t.Cleanup(func() {
		if err := os.RemoveAll(directory); err != nil {
			t.Error(err)
		}
	})
}

func (f *fixture) testSize(t *testing.T) {
	for _, name := range nodeNames {
		node, err := f.client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		cpu, memory := node.Status.Allocatable.Cpu(), node.Status.Allocatable.Memory()
		if cpu.Cmp(resource.MustParse("2")) > 0 || memory.Cmp(resource.MustParse("4Gi")) > 0 {
			t.Errorf("node %s offers %s CPU and %s of memory", name, cpu, memory)
		}
	}
}

func (f *fixture) testFinish(t *testing.T) {
	eventually(t, func() error {
		pod, err := f.client.CoreV1().Pods(namespace).Get(t.Context(), "first", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, status := range pod.Status.ContainerStatuses {
			finished := status.State.Terminated
			if (status.Name == "short") != (finished != nil) || finished != nil && finished.ExitCode != 0 {
				return fmt.Errorf("container %s is %+v", status.Name, status.State)
			}
		}
		return nil
	})
	if log := f.logs(t, "first", "short"); !strings.Contains(log, "finished after 3") {
		t.Errorf("the log says %q", log)
	}
}

func (f *fixture) testNetwork(t *testing.T, first, second *corev1.Pod) {
	for _, way := range []struct{ from, to *corev1.Pod }{{first, second}, {second, first}} {
		eventually(t, func() error {
			answer, err := f.kubectl(t, "exec", way.from.Name, "--container=main", "--",
				"/workload", "get", "http://"+way.to.Status.PodIP+":8080/")
			if err == nil && !strings.HasPrefix(answer, way.to.Name+" ") {
				err = fmt.Errorf("%s answers %q", way.to.Name, answer)
			}
			return err
		})
	}
}

func (f *fixture) testVolume(t *testing.T) {
	directory := f.volumeDirectory(t)
	eventually(t, func() error {
		for _, file := range []string{"main", "other"} {
			if _, err := os.Stat(filepath.Join(directory, file)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (f *fixture) volumeDirectory(t *testing.T) string {
	t.Helper()
	volumes, err := f.client.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(volumes.Items) != 1 {
		t.Fatalf("%d volumes, error %v", len(volumes.Items), err)
	}
	return volumes.Items[0].Spec.HostPath.Path
}

// testUse compares what the kubelets measured over some seconds: a node's use
// is its own and not the machine's.
func (f *fixture) testUse(t *testing.T) {
	rates := map[string]float64{}
	for _, name := range nodeNames {
		var before measurement
		eventually(t, func() error {
			now := f.nodeCPU(t, name)
			if before.millis == 0 {
				before = now
			}
			if now.millis-before.millis < 8000 {
				return fmt.Errorf("node %s is not measured again", name)
			}
			rates[name] = 1000 * (now.seconds - before.seconds) / float64(now.millis-before.millis)
			return nil
		})
	}
	t.Logf("CPU use of %v: %.3f, %.3f", nodeNames, rates[nodeNames[0]], rates[nodeNames[1]])
	if busy := rates[nodeNames[0]]; busy < 0.2 || busy > 1.2 {
		t.Errorf("node %s uses %.3f CPU, want a little more than the 0.4 of its pod", nodeNames[0], busy)
	}
	if rates[nodeNames[0]] < 1.3*rates[nodeNames[1]] {
		t.Errorf("the busy node and the idle one measure alike: %.3f and %.3f", rates[nodeNames[0]], rates[nodeNames[1]])
	}
}

type measurement struct {
	seconds float64
	millis  int64
}

func (f *fixture) nodeCPU(t *testing.T, node string) measurement {
	t.Helper()
	content, err := f.client.CoreV1().RESTClient().Get().Resource("nodes").Name(node).
		SubResource("proxy").Suffix("metrics/resource").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const metric = "\nnode_cpu_usage_seconds_total "
	_, after, found := strings.Cut(string(content), metric)
	var m measurement
	if _, err := fmt.Sscan(after, &m.seconds, &m.millis); !found || err != nil {
		// A node that has just started has not measured itself yet.
		return measurement{}
	}
	return m
}

func (f *fixture) testResize(t *testing.T) {
	pods := f.client.CoreV1().Pods(namespace)
	patch := `{"spec":{"containers":[{"name":"short","resources":{"requests":{"cpu":"1m","memory":"1Mi"}}},
		{"name":"main","resources":{"requests":{"cpu":"300m"}}}]}}`
	if _, err := pods.Patch(t.Context(), "first", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "resize"); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"short": "1m", "main": "300m", "side": "200m"}
	eventually(t, func() error {
		pod, err := pods.Get(t.Context(), "first", metav1.GetOptions{})
		if err != nil {
			return err
		}
		got := map[string]string{}
		for _, status := range pod.Status.ContainerStatuses {
			got[status.Name] = status.AllocatedResources.Cpu().String()
			if status.RestartCount > 0 {
				t.Fatalf("container %s was restarted", status.Name)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("allocated CPU (-want +got):\n%s", diff)
		}
		return nil
	})
}

func (f *fixture) testDelete(t *testing.T) {
	pods := f.client.CoreV1().Pods(namespace)
	asked := time.Now()
	if err := pods.Delete(t.Context(), "second", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := pods.Get(t.Context(), "second", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("the pod is still there, error %w", err)
	})
	if took := time.Since(asked); took > 5*time.Second {
		t.Errorf("a graceful delete took %s", took)
	}
}

// testCrash kills the programs of a node whose pod is frozen, and starts the
// node again: nothing of the old one may live on.
func (f *fixture) testCrash(t *testing.T) {
	old := f.freeze(t, "first")
	for _, name := range []string{"kubelet-", "containerd-", "namespaces-"} {
		if err := process.Kill(f.stateDir, name+nodeNames[0]); err != nil {
			t.Fatal(err)
		}
	}
	found, err := realnode.Find(f.stateDir)
	if diff := cmp.Diff(nodeNames, found); diff != "" || err != nil {
		t.Errorf("nodes found (-want +got), error %v:\n%s", err, diff)
	}
	if !runs(old) {
		t.Fatal("the container's process should outlive its node's programs")
	}
	f.startNode(t, 0)
	if err := controlplane.AwaitNodes(t.Context(), f.client, len(nodeNames)); err != nil {
		t.Fatal(err)
	}
	if runs(old) {
		t.Errorf("process %d of the old node runs on", old)
	}
	f.runPod(t, "after", nodeNames[0], container("main", "100m"))
}

// runs is false for a process that has ended, reaped or not.
func runs(pid int) bool {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && !strings.Contains(string(content), "State:\tZ")
}

// freeze freezes a pod's cgroup and returns a process in it.
func (f *fixture) freeze(t *testing.T, podName string) int {
	t.Helper()
	pod, err := f.client.CoreV1().Pods(namespace).Get(t.Context(), podName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	hierarchy, file, frozen := "/sys/fs/cgroup/freezer", "freezer.state", "FROZEN"
	if _, err := os.Stat(hierarchy); err != nil {
		hierarchy, file, frozen = "/sys/fs/cgroup", "cgroup.freeze", "1"
	}
	cgroups, err := filepath.Glob(filepath.Join(hierarchy, "ai-storage-*", "kubepods", "burstable", "pod"+string(pod.UID)))
	if err != nil || len(cgroups) != 1 {
		t.Fatalf("cgroups of the pod: %v, error %v", cgroups, err)
	}
	if err := os.WriteFile(filepath.Join(cgroups[0], file), []byte(frozen), 0o644); err != nil {
		t.Fatal(err)
	}
	lists, err := filepath.Glob(filepath.Join(cgroups[0], "*", "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		content, err := os.ReadFile(list)
		var pid int
		if _, scanErr := fmt.Sscan(string(content), &pid); err == nil && scanErr == nil {
			return pid
		}
	}
	t.Fatal("no process in the pod's cgroup")
	return 0
}
