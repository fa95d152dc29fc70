//go:build e2e

package install

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster/image"
	"github.com/ai-storage/orchestrator/test/product"
)

const wantedLabel = "handler"

// The node agents make the runtime handler on nodes that know nothing of it, a pod
// moves there and back with the memory of its process, and when the handler is not
// wanted any more its nodes are as they were.
func TestRuntimeHandlerComesAndGoes(t *testing.T) {
	c := upWithoutHandler(t)
	nodes := c.Nodes().Names()
	s := supervise(t, c, nodes)
	before := map[string]map[string]string{}
	for _, node := range nodes {
		before[node] = filesOf(t, c, node)
		t.Logf("%s at first: %v", node, keys(before[node]))
	}
	namespace := c.Namespace(t, "handler-")
	bystander := start(t, c, namespace, "bystander", nodes[1], product.Container("work", 10))
	pid := mainProcess(t, bystander)

	setArguments(t, c, "--install-runtime", "--install-runtime-nodes="+wantedLabel+"=yes", "--containerd-restart=Signal")
	c.Kubectl(t, "label", "node", nodes[0], wantedLabel+"=yes")
	c.awaitNode(t, nodes[1], "false", "the container runtime has no handler")
	wantFiles(t, c, nodes[1], before[nodes[1]])

	t.Run("a configuration that imports nothing stays as it is", func(t *testing.T) { refuseWithoutImports(t, c, nodes[1]) })
	t.Run("a containerd that does not come back gets its configuration back", func(t *testing.T) { rollBack(t, c, s, nodes[1]) })
	wantFiles(t, c, nodes[1], before[nodes[1]])

	c.Kubectl(t, "label", "node", nodes[1], wantedLabel+"=yes")
	replaceAgents(t, c)
	for _, node := range nodes {
		c.awaitNode(t, node, "true", "kernel")
		t.Logf("%s: restarts of containerd %d, files added %v", node, s.count(node), added(before[node], filesOf(t, c, node)))
	}
	collector := startCollector(t, c, namespace, nodes[0])
	moveThereAndBack(t, c, namespace, nodes, collector)
	replaceAgents(t, c) // which find nothing to change

	removeHandler(t, c, nodes, namespace, before)
	// To install and to remove; and on one node the way back.
	s.awaitCounts(t, nodes, 2, 3)
	if now := mainProcess(t, c.AwaitRunning(t, namespace, "bystander", "")); now != pid {
		t.Errorf("the process of a pod beside was %d and is %d", pid, now)
	}
}

// removeHandler does so, but not under a pod that runs by it.
func removeHandler(t *testing.T, c handlerCluster, nodes []string, namespace string, before map[string]map[string]string) {
	setArguments(t, c, "--containerd-restart=Signal")
	on := c.AwaitRunning(t, namespace, "writer", "").Spec.NodeName
	c.awaitNode(t, on, "false", "could not be stopped without")
	if now := filesOf(t, c, on); len(added(now, before[on])) > 0 || len(added(before[on], now)) < 2 {
		t.Errorf("the handler is gone under a pod that runs by it: there is %v", keys(now))
	}
	c.Kubectl(t, "delete", "pod", "-n", namespace, "-l", product.Workload+"=writer", "--wait")
	replaceAgents(t, c)
	for _, node := range nodes {
		c.awaitNode(t, node, "false", "no handler")
		wantFiles(t, c, node, before[node])
	}
}

func wantFiles(t *testing.T, c handlerCluster, node string, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, filesOf(t, c, node)); diff != "" {
		t.Errorf("files of %s (-before +now):\n%.2000s", node, diff)
	}
}

// added are the paths that came.
func added(before, now map[string]string) (paths []string) {
	for path := range now {
		if _, was := before[path]; !was {
			paths = append(paths, path)
		}
	}
	return paths
}

func keys(files map[string]string) []string { return added(nil, files) }

func refuseWithoutImports(t *testing.T, c handlerCluster, node string) {
	path := filepath.Join(c.NodeDir(node), "containerd.toml")
	original, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	setImports := func(content []byte) {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	defer setImports(original)
	var without []string
	for line := range strings.Lines(string(original)) {
		if !strings.HasPrefix(line, "imports") {
			without = append(without, line)
		}
	}
	setImports([]byte(strings.Join(without, "")))
	files := filesOf(t, c, node)
	c.Kubectl(t, "label", "node", node, wantedLabel+"=yes")
	replaceAgents(t, c)
	c.awaitNode(t, node, "false", "imports no directory of drop-ins")
	wantFiles(t, c, node, files)
	c.Kubectl(t, "label", "node", node, wantedLabel+"-")
	replaceAgents(t, c)
	c.awaitNode(t, node, "false", "the container runtime has no handler")
}

func rollBack(t *testing.T, c handlerCluster, s *supervisor, node string) {
	s.hold(node, true)
	defer s.hold(node, false)
	c.Kubectl(t, "label", "node", node, wantedLabel+"=yes")
	replaceAgents(t, c)
	c.awaitNode(t, node, "false", "so what was there before is in its place again")
	s.awaitCounts(t, []string{node}, 1)
	s.hold(node, false)
	c.Kubectl(t, "label", "node", node, wantedLabel+"-")
	replaceAgents(t, c)
	c.awaitNode(t, node, "false", "the container runtime has no handler")
}

func start(t *testing.T, c handlerCluster, namespace, name, node string, containers ...corev1.Container) *corev1.Pod {
	t.Helper()
	template := product.Template(name, containers...)
	template.Spec.RestartPolicy, template.Spec.NodeName = corev1.RestartPolicyNever, node
	c.Create(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: template.Labels, Annotations: template.Annotations}, Spec: template.Spec,
	})
	return c.AwaitRunning(t, namespace, name, "")
}

// mainProcess is the lowest number of a process of the workload program in a pod.
func mainProcess(t *testing.T, pod *corev1.Pod) int {
	t.Helper()
	least := 0
	processes, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range processes {
		cgroups, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(cgroups), string(pod.UID)) {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil && strings.HasPrefix(string(line), "/workload\x00run") && (least == 0 || pid < least) {
			least = pid
		}
	}
	if least == 0 {
		t.Fatalf("pod %s has no process", pod.Name)
	}
	return least
}

func startCollector(t *testing.T, c handlerCluster, namespace, node string) string {
	container := product.Container("collect", 50)
	container.Args = []string{"collect", "--http=:8080"}
	return "http://" + start(t, c, namespace, "collector", node, container).Status.PodIP + ":8080"
}

var restoredProcesses = regexp.MustCompile(`Restored:\s+Processes\n`)

// moveThereAndBack moves a writer, which numbers its records in memory and would
// tell the collector of another beginning, with kubectl.
func moveThereAndBack(t *testing.T, c handlerCluster, namespace string, nodes []string, collector string) {
	template := withState("writer")
	writer := &template.Spec.Containers[0]
	writer.Image, writer.Args = image.WorkloadReference, []string{"record", "--file=/data/records", "--collector=" + collector, "--writer=writer", "--every=2ms"}
	template.Spec.RestartPolicy, template.Spec.RuntimeClassName = corev1.RestartPolicyNever, new(v1alpha1.ProcessRuntimeClass)
	c.Create(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "writer", Labels: template.Labels, Annotations: template.Annotations}, Spec: template.Spec,
	})
	pod := c.AwaitRunning(t, namespace, "writer", "")
	for range 2 {
		last := awaitRecords(t, collector, 0)
		arguments := []string{
			"pod", pod.Name, "--namespace=" + namespace, "--kubeconfig=" + c.AdminKubeconfig(), "--checkpoint-mode=Process", "--wait", "--wait-timeout=4m",
		}
		output, err := exec.CommandContext(t.Context(), filepath.Join(root, "bin", "kubectl-migrate"), arguments...).CombinedOutput()
		t.Logf("kubectl migrate pod %s --checkpoint-mode=Process --wait\n%s", pod.Name, output)
		if err != nil || !restoredProcesses.Match(output) {
			t.Fatalf("the move failed: %v", err)
		}
		pod = c.AwaitRunning(t, namespace, "writer", pod.Spec.NodeName)
		awaitRecords(t, collector, last)
	}
	l := ledgerOf(t, collector)
	t.Logf("collector: %+v", l)
	if l.Lost+l.Skipped != 0 || l.Resumed != 1 || l.Duplicated > 2 {
		t.Error("want one beginning, and no record lost or skipped")
	}
}

// ledger is what the collector knows of the writer.
type ledger struct{ Last, Lost, Duplicated, Skipped, Resumed int64 }

func ledgerOf(t *testing.T, collector string) ledger {
	t.Helper()
	var all map[string]ledger
	product.Eventually(t, time.Minute, "the collector answers", func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, collector+"/report", nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		return json.NewDecoder(response.Body).Decode(&all)
	})
	return all["writer"]
}

// awaitRecords waits for some records more than there were.
func awaitRecords(t *testing.T, collector string, than int64) int64 {
	t.Helper()
	for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(200 * time.Millisecond) {
		if last := ledgerOf(t, collector).Last; last > than+20 {
			return last
		}
	}
	t.Fatalf("no record after %d", than)
	return 0
}
