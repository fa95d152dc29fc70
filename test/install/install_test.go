//go:build e2e

package install

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster"
	"github.com/ai-storage/orchestrator/test/devcluster/image"
	"github.com/ai-storage/orchestrator/test/product"
	"github.com/ai-storage/orchestrator/test/rights"
)

const (
	root          = "../.."
	configuration = "testdata/scheduler-configuration.yaml"
	chart         = root + "/manifests/chart/ai-storage-orchestrator"
)

// Both ways of installing, one after the other on the same cluster: what one
// leaves behind, the other meets.
func TestInstall(t *testing.T) {
	c := up(t)
	for _, way := range []struct {
		name               string
		install, uninstall func(t *testing.T, c *product.Cluster)
	}{
		{"kustomize", applyOverlay, deleteOverlay},
		{"helm", installChart, uninstallChart},
	} {
		t.Run(way.name, func(t *testing.T) {
			// While one is removed its rights go before its programs do.
			audited, err := os.Stat(c.AuditLogPath())
			if err != nil {
				t.Fatal(err)
			}
			from := audited.Size()
			way.install(t, c)
			awaitRollout(t, c)
			if !t.Run("a bare pod moves with its state", func(t *testing.T) { moveBarePod(t, c) }) ||
				!t.Run("a pod of a Deployment moves through the webhook", func(t *testing.T) { moveDeploymentPod(t, c) }) ||
				!t.Run("an overutilized node is relieved", func(t *testing.T) { relieveOverutilizedNode(t, c) }) {
				t.Log(c.Kubectl(t, "top", "nodes"))
				t.Log(c.Kubectl(t, "logs", "-n", "ai-storage-system", "-l", "app.kubernetes.io/name=ai-storage-rebalancer", "--tail=40"))
			}
			checkRights(t, c, from)
			t.Logf("\n%s", c.Kubectl(t, "get", "pods", "-A", "-o", "wide"))
			way.uninstall(t, c)
		})
	}
	t.Run("the only scheduler", func(t *testing.T) { replaceScheduler(t, c) })
}

// replaceScheduler installs ours for all pods, which waits until the cluster's own has stopped.
func replaceScheduler(t *testing.T, c *product.Cluster) {
	c.Kubectl(t, "apply", "--server-side", "-f", filepath.Join(root, "manifests", "namespace.yaml"))
	helm(t, c, "install", "ai-storage", chart, "--set=onlyScheduler=true")
	awaitRollout(t, c)
	namespace := c.Namespace(t, "install-")
	place := func(name, scheduler string) {
		template := product.Template(name, product.Container("work", 10))
		template.Spec.SchedulerName = ""
		c.Create(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: template.Labels}, Spec: template.Spec})
		c.AwaitRunning(t, namespace, name, "")
		events := c.Kubectl(t, "events", "-n", namespace, "--for=pod/"+name, "-o=jsonpath={range .items[?(@.reason==\"Scheduled\")]}{.reportingComponent} on {.reportingInstance}{end}")
		t.Logf("pod %s of default-scheduler: %s", name, events)
		if !strings.Contains(events, scheduler) {
			t.Errorf("pod %s was not placed by %s", name, scheduler)
		}
	}
	place("before", "default-scheduler on default-scheduler-")
	if err := c.StopComponent(t.Context(), devcluster.DefaultScheduler); err != nil {
		t.Fatal(err)
	}
	place("after", "default-scheduler on default-scheduler-ai-storage-scheduler-")
	uninstallChart(t, c)
}

// up starts a cluster with nothing of ours but images on its nodes.
func up(t *testing.T) *product.Cluster {
	t.Helper()
	binDir := filepath.Join(root, "bin")
	archives, err := image.BuildIndexes([]string{binDir}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return product.Start(t, devcluster.Options{
		BinDir: binDir, ConfigFile: configuration,
		Nodes:    devcluster.NodeSpec{Kind: devcluster.Real, Count: 2},
		Services: true, Images: archives,
		Components: []string{devcluster.DefaultScheduler},
	})
}

func applyOverlay(t *testing.T, c *product.Cluster) {
	t.Log(c.Kubectl(t, "apply", "--server-side", "-k", overlay(t)))
}

func deleteOverlay(t *testing.T, c *product.Cluster) {
	c.Kubectl(t, "delete", "--wait", "--timeout=2m", "-k", overlay(t))
}

// overlay is what a user writes who has a configuration of their own.
func overlay(t *testing.T) string {
	t.Helper()
	settings, err := os.ReadFile(configuration)
	if err != nil {
		t.Fatal(err)
	}
	directory := t.TempDir()
	manifests, err := filepath.Abs(filepath.Join(root, "manifests"))
	if err != nil {
		t.Fatal(err)
	}
	base, err := filepath.Rel(directory, manifests)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]any{
		"kustomization.yaml": map[string]any{
			"resources": []string{base}, "patches": []any{map[string]any{"path": "configuration.yaml"}},
		},
		"configuration.yaml": map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"namespace": "ai-storage-system", "name": "ai-storage-scheduler-configuration"},
			"data":     map[string]any{"scheduler-configuration.yaml": string(settings)},
		},
	} {
		encoded, err := yaml.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(directory, name), encoded, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return directory
}

func installChart(t *testing.T, c *product.Cluster) {
	c.Kubectl(t, "apply", "--server-side", "-f", filepath.Join(root, "manifests", "namespace.yaml"))
	t.Log(helm(t, c, "install", "ai-storage", chart, "--set-file", "schedulerConfiguration="+configuration))
}

// uninstallChart wants the resource definition to stay, and with it what
// migrations there were.
func uninstallChart(t *testing.T, c *product.Cluster) {
	helm(t, c, "uninstall", "ai-storage", "--wait")
	if c.Kubectl(t, "get", "crd", "podmigrations.migration.ai-storage", "-o", "name") == "" {
		t.Error("the resource definition is gone")
	}
}

func helm(t *testing.T, c *product.Cluster, arguments ...string) string {
	t.Helper()
	arguments = append(arguments, "--namespace=ai-storage-system", "--kubeconfig="+c.AdminKubeconfig())
	output, err := exec.CommandContext(t.Context(), filepath.Join(root, "bin", "helm"), arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("helm %v: %v\n%s", arguments, err, output)
	}
	return string(output)
}

func awaitRollout(t *testing.T, c *product.Cluster) {
	t.Helper()
	begin := time.Now()
	for _, what := range [][]string{
		{"ai-storage-system", "deployment/ai-storage-scheduler"},
		{"ai-storage-system", "deployment/ai-storage-rebalancer"},
		{"ai-storage-node-agent", "daemonset/ai-storage-node-agent"},
	} {
		t.Log(c.Kubectl(t, "rollout", "status", "--timeout=3m", "-n", what[0], what[1]))
	}
	t.Logf("all rolled out after %s", time.Since(begin).Round(time.Second))
	// The leader has put the authority of its certificate into the webhook.
	product.Eventually(t, time.Minute, "the webhook is ready", func(context.Context) error {
		if c.Kubectl(t, "get", "mutatingwebhookconfiguration", "ai-storage-rebalancer", "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}") == "" {
			return fmt.Errorf("it has no authority")
		}
		return nil
	})
}

// withState is a pod whose init container fills an emptyDir.
func withState(workload string) corev1.PodTemplateSpec {
	template := product.Template(workload, product.Container("work", 50))
	data := corev1.VolumeMount{Name: "data", MountPath: "/data"}
	template.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{data}
	template.Spec.InitContainers = []corev1.Container{{
		Name: "fill", Image: image.WorkloadReference, Args: []string{"fill", "--dir=/data", "--bytes=8Mi", "--files=20"},
		VolumeMounts: []corev1.VolumeMount{data},
	}}
	template.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	return template
}

// digest is of all names and contents in the pod's emptyDir.
func digest(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	directory, err := devcluster.PodPath(pod.UID, "/data")
	if err != nil {
		t.Fatal(err)
	}
	hash, files := sha256.New(), 0
	err = filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		fmt.Fprintln(hash, strings.TrimPrefix(path, directory), len(content))
		hash.Write(content)
		files++
		return err
	})
	if err != nil || files == 0 {
		t.Fatalf("%d files in %s: %v", files, directory, err)
	}
	return fmt.Sprintf("%d files %x", files, hash.Sum(nil)[:8])
}

func moveBarePod(t *testing.T, c *product.Cluster) {
	namespace := c.Namespace(t, "install-")
	template := withState("bare")
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	c.Create(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bare", Labels: template.Labels, Annotations: template.Annotations}, Spec: template.Spec,
	})
	moveWithState(t, c, namespace, "bare")
}

func moveDeploymentPod(t *testing.T, c *product.Cluster) {
	namespace := c.Namespace(t, "install-")
	c.Create(t, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "served"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{product.Workload: "served"}}, Template: withState("served"),
		},
	})
	migration := moveWithState(t, c, namespace, "served")
	if migration.Status.Handover == nil || migration.Status.Handover.Method != v1alpha1.MethodRelease {
		t.Errorf("the migration did without the webhook: %+v", migration.Status.Handover)
	}
}

func moveWithState(t *testing.T, c *product.Cluster, namespace, workload string) *v1alpha1.PodMigration {
	t.Helper()
	pod := c.AwaitRunning(t, namespace, workload, "")
	before := digest(t, pod)
	migration := c.Migrate(t, pod, 3*time.Minute)
	replacement := c.AwaitRunning(t, namespace, workload, pod.Spec.NodeName)
	after := digest(t, replacement)
	if before != after {
		t.Errorf("state before: %s, after: %s", before, after)
	}
	t.Logf("%s -> %s, method %s, state %s\n%s", pod.Spec.NodeName, replacement.Spec.NodeName, migration.Status.Handover.Method, after,
		c.Kubectl(t, "get", "podmigrations", "-n", namespace))
	return migration
}

// relieveOverutilizedNode makes one node overutilized and waits until the loop moves a pod.
func relieveOverutilizedNode(t *testing.T, c *product.Cluster) {
	namespace := c.Namespace(t, "install-")
	nodes := c.Nodes().Names()
	setCordon(t, c, nodes[1], true)
	for name, memory := range map[string]string{"ballast": "800Mi", "training": "500Mi"} {
		template := product.Template(name, product.Container("hold", 100, "--memory="+memory))
		template.Spec.RestartPolicy = corev1.RestartPolicyNever
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: template.Labels}, Spec: template.Spec}
		if name == "ballast" {
			pod.Annotations = template.Annotations
		}
		c.Create(t, pod)
		c.AwaitRunning(t, namespace, name, "")
	}
	setCordon(t, c, nodes[1], false)
	migration := c.AwaitMigration(t, namespace, 4*time.Minute)
	c.AwaitRunning(t, namespace, "training", nodes[0])
	t.Logf("%s\n%s", migration.Spec.Reason, c.Kubectl(t, "get", "podmigrations", "-n", namespace, "-o", "wide"))
	// The pods go, whatever comes next.
	if err := c.Client.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		t.Error(err)
	}
}

func setCordon(t *testing.T, c *product.Cluster, node string, cordoned bool) {
	t.Helper()
	verb := "uncordon"
	if cordoned {
		verb = "cordon"
	}
	c.Kubectl(t, verb, node)
}

// checkRights looks whether a program missed a right since a byte of the audit log.
func checkRights(t *testing.T, c *product.Cluster, from int64) {
	t.Helper()
	uses, err := rights.Compare(filepath.Join(root, "manifests"), c.AuditLogPath(), from)
	if err != nil {
		t.Fatal(err)
	}
	for _, use := range uses {
		t.Logf("%s: %d of its own rights used, not needed here: %v", use.User, len(use.Granted)-len(use.Unused()), use.Unused())
		if len(use.Used) == 0 || len(use.Forbidden) > 0 {
			t.Errorf("%s used %d rights and was refused %v", use.User, len(use.Used), use.Forbidden.Sorted())
		}
	}
}
