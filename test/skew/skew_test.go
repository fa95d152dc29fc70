//go:build skew

package skew

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	baseversion "k8s.io/component-base/version"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster"
	"github.com/ai-storage/orchestrator/test/devcluster/image"
	"github.com/ai-storage/orchestrator/test/devcluster/simnode"
	"github.com/ai-storage/orchestrator/test/product"
	"github.com/ai-storage/orchestrator/test/rights"
)

const root = "../.."

// checks are what must work with every version, in order.
var checks = []struct {
	name string
	run  func(t *testing.T, c *product.Cluster, version string) (seen string)
}{
	{"apply -k", checkApply},
	{"pods admitted", checkPodsAdmitted},
	{"behaves as", checkEmulation},
	{"scheduler places", checkPlaces},
	{"CRD refuses", checkRefusal},
	{"policies deny", checkPolicies},
	{"dry-run plan", checkPlan},
	{"loop migrates", checkLoop},
	{"webhook (Job)", checkWebhook},
	{"rights", checkForbidden},
}

func TestSkew(t *testing.T) {
	versions := strings.FieldsFunc(os.Getenv("SKEW_VERSIONS"), func(r rune) bool { return r == ',' || r == ' ' })
	if len(versions) == 0 {
		t.Fatal("SKEW_VERSIONS is empty: run `make test-skew`")
	}
	results := map[string][]string{}
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			c := up(t, version)
			for _, check := range checks {
				seen := "FAILED"
				t.Run(check.name, func(t *testing.T) { seen = check.run(t, c, version) })
				results[version] = append(results[version], seen)
			}
		})
	}
	printTable(t, versions, results)
}

func printTable(t *testing.T, versions []string, results map[string][]string) {
	out := tabwriter.NewWriter(t.Output(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "Kubernetes\t%s\n", strings.Join(versions, "\t"))
	for i, check := range checks {
		row := []string{check.name}
		for _, version := range versions {
			seen := "FAILED"
			if i < len(results[version]) {
				seen = results[version][i]
			}
			row = append(row, seen)
		}
		fmt.Fprintln(out, strings.Join(row, "\t"))
	}
	if err := out.Flush(); err != nil {
		t.Error(err)
	}
}

// up starts a control plane of the version, with nodes that are simulated.
func up(t *testing.T, version string) *product.Cluster {
	t.Helper()
	binDir := programs(t, version)
	return product.Start(t, devcluster.Options{
		BinDir: binDir, ManifestsDir: filepath.Join(root, "manifests"),
		ConfigFile: filepath.Join(root, "test/e2e/testdata/scheduler-configuration.yaml"),
		Nodes:      devcluster.NodeSpec{Kind: devcluster.Simulated, Count: 2},
		Components: []string{devcluster.DefaultScheduler, devcluster.Scheduler},
	})
}

// programs is a directory with ours and the control plane of another version.
func programs(t *testing.T, version string) string {
	t.Helper()
	directory := t.TempDir()
	bin, err := filepath.Abs(filepath.Join(root, "bin"))
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(bin, "skew", "v"+strings.TrimPrefix(version, "v"))
	for _, program := range []string{"etcd", "kwok", "metrics-server", "kubectl", "scheduler", "rebalancer", "kube-apiserver", "kube-controller-manager"} {
		from := bin
		if strings.HasPrefix(program, "kube-") {
			from = other
		}
		if _, err := os.Stat(filepath.Join(from, program)); err != nil {
			t.Fatalf("%v: run `make test-skew`", err)
		}
		if err := os.Symlink(filepath.Join(from, program), filepath.Join(directory, program)); err != nil {
			t.Fatal(err)
		}
	}
	return directory
}

func checkApply(t *testing.T, c *product.Cluster, _ string) string {
	output := c.Kubectl(t, "apply", "--server-side", "--force-conflicts", "-k", filepath.Join(root, "manifests"))
	// After that: outside of the cluster, it makes the webhook's Service a URL.
	// Simulated nodes carry nothing; the image is that of placeholders.
	if err := c.StartComponent(devcluster.Rebalancer, "--node-agent-image="+image.NodeAgentReference); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitComponent(t.Context(), devcluster.Rebalancer); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d objects", strings.Count(output, "serverside-applied"))
}

// checkPodsAdmitted waits until Pod Security has let in what the manifests make.
func checkPodsAdmitted(t *testing.T, c *product.Cluster, _ string) string {
	admitted := int32(0)
	product.Eventually(t, time.Minute, "the pods of the manifests are made", func(ctx context.Context) error {
		deployments := &appsv1.DeploymentList{}
		if err := c.Client.List(ctx, deployments, client.InNamespace("ai-storage-system")); err != nil {
			return err
		}
		agents := &appsv1.DaemonSet{}
		if err := c.Client.Get(ctx, client.ObjectKey{Namespace: "ai-storage-node-agent", Name: "ai-storage-node-agent"}, agents); err != nil {
			return err
		}
		if len(deployments.Items) != 2 || agents.Status.CurrentNumberScheduled != 2 {
			return fmt.Errorf("%d deployments, node agent: %+v", len(deployments.Items), agents.Status)
		}
		admitted = agents.Status.CurrentNumberScheduled
		for _, d := range deployments.Items {
			if d.Status.Replicas != *d.Spec.Replicas {
				return fmt.Errorf("%s: %+v", d.Name, d.Status)
			}
			admitted += d.Status.Replicas
		}
		return nil
	})
	return fmt.Sprintf("%d pods", admitted)
}

// What the programs log when the API server is older or newer than their libraries.
var (
	emulates = regexp.MustCompile(`features that came later are off" version="([0-9.]+)"`)
	isNewer  = regexp.MustCompile(`what came later is not used" libraries="([0-9.]+)"`)
)

// checkEmulation wants both programs to behave as the API server's version, or as that
// of their libraries where the server is newer, and to say so.
func checkEmulation(t *testing.T, c *product.Cluster, of string) string {
	server, err := version.ParseGeneric(of)
	if err != nil {
		t.Fatal(err)
	}
	server = version.MajorMinor(server.Major(), server.Minor())
	libraries := version.MustParseGeneric(baseversion.DefaultKubeBinaryVersion)
	want, wantOlder, wantNewer := libraries, "", ""
	switch {
	case server.LessThan(libraries):
		want, wantOlder = server, server.String()
	case libraries.LessThan(server):
		wantNewer = libraries.String()
	}
	for _, name := range []string{devcluster.Scheduler, devcluster.Rebalancer} {
		log := c.LogTail(name, 1000)
		if older, newer := said(emulates, log), said(isNewer, log); older != wantOlder || newer != wantNewer {
			t.Errorf("with Kubernetes %s, %s says that it behaves as %q and that its libraries are %q, want %q and %q", of, name, older, newer, wantOlder, wantNewer)
		}
	}
	return want.String()
}

// said is the version in a line of the log, or empty.
func said(line *regexp.Regexp, log string) string {
	if found := line.FindStringSubmatch(log); found != nil {
		return found[1]
	}
	return ""
}

func checkPlaces(t *testing.T, c *product.Cluster, _ string) string {
	namespace := c.Namespace(t, "skew-")
	template := product.Template("bare", product.Container("work", 100))
	c.Create(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bare", Labels: template.Labels}, Spec: template.Spec})
	c.AwaitRunning(t, namespace, "bare", "")
	return "ok"
}

func checkRefusal(t *testing.T, c *product.Cluster, _ string) string {
	err := c.Client.Create(t.Context(), &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bad"},
		Spec:       v1alpha1.PodMigrationSpec{PodName: "p", SourceNode: "sim-1", TargetNode: "sim-1"},
	})
	if err == nil || !strings.Contains(err.Error(), "targetNode must differ from sourceNode") {
		t.Fatalf("a migration that goes nowhere: %v", err)
	}
	return "ok"
}

// checkPolicies wants the API server to find nothing wrong with the expressions of the
// policies, and one of each kind to deny.
func checkPolicies(t *testing.T, c *product.Cluster, _ string) string {
	checked := 0
	product.Eventually(t, time.Minute, "the policies are checked", func(ctx context.Context) error {
		list := &admissionregistrationv1.ValidatingAdmissionPolicyList{}
		if err := c.Client.List(ctx, list, client.MatchingLabels{"app.kubernetes.io/part-of": "ai-storage-orchestrator"}); err != nil {
			return err
		}
		checked = len(list.Items)
		for _, policy := range list.Items {
			if policy.Status.ObservedGeneration != policy.Generation || policy.Status.TypeChecking == nil {
				return fmt.Errorf("policy %s is not checked yet", policy.Name)
			}
			for _, warning := range policy.Status.TypeChecking.ExpressionWarnings {
				t.Errorf("policy %s: %s: %s", policy.Name, warning.FieldRef, warning.Warning)
			}
		}
		return nil
	})
	if checked == 0 {
		t.Fatal("the manifests have no policies")
	}
	template := product.Template("marked", product.Container("work", 100))
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "marked", Labels: map[string]string{v1alpha1.RoleLabel: v1alpha1.RolePlaceholder}}, Spec: template.Spec}
	if err := c.Client.Create(t.Context(), pod, client.DryRunAll); err == nil || !strings.Contains(err.Error(), "only the rebalancer sets "+v1alpha1.RoleLabel) {
		t.Errorf("a pod with a role: %v", err)
	}
	migration := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "nothing"}, Spec: v1alpha1.PodMigrationSpec{PodName: "there-is-none"}}
	c.Create(t, migration)
	report := client.RawPatch(types.MergePatchType, []byte(`{"status":{"checkpoint":{"mode":"Frozen","source":{"node":"sim-1","attempt":1,"phase":"Sealed"}}}}`))
	if err := c.Client.Status().Patch(t.Context(), migration, report); err == nil || !strings.Contains(err.Error(), "only the rebalancer and the node agents write the status") {
		t.Errorf("a status that an administrator wrote: %v", err)
	}
	checkAgentsToken(t, c, report)
	return fmt.Sprintf("%d policies", checked)
}

// checkAgentsToken tries to report with the token of the agent of one node on a migration
// that has nothing to do with that node.
func checkAgentsToken(t *testing.T, c *product.Cluster, report client.Patch) {
	t.Helper()
	const namespace, account = "ai-storage-node-agent", "ai-storage-node-agent"
	config, err := c.AdminConfig()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	agents, err := admin.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=sim-1"})
	if err != nil || len(agents.Items) == 0 {
		t.Fatalf("pods of node agents on sim-1: %v, %v", agents, err)
	}
	issued, err := admin.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: agents.Items[0].Name, UID: agents.Items[0].UID},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	asAgent := rest.AnonymousClientConfig(config)
	asAgent.BearerToken = issued.Status.Token
	agent, err := client.New(asAgent, client.Options{Scheme: c.Client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	migration := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "nothing"}}
	err = agent.Status().Patch(t.Context(), migration, report)
	if err == nil || !strings.Contains(err.Error(), "the node agent of sim-1") {
		t.Errorf("a report on another node's migration: %v", err)
	}
}

func checkPlan(t *testing.T, c *product.Cluster, _ string) string {
	config := filepath.Join(c.StateDir(), "config", "rebalancer.yaml")
	output, err := exec.CommandContext(t.Context(), filepath.Join(root, "bin/rebalancer"), "--dry-run",
		"--config="+config, "--kubeconfig="+c.ComponentKubeconfig(devcluster.Rebalancer)).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	if !strings.Contains(string(output), "sim-1") || !strings.Contains(string(output), "objective") {
		t.Fatalf("no plan:\n%s", output)
	}
	return "ok"
}

// checkLoop makes one node overutilized and waits until the loop moves a pod off it.
func checkLoop(t *testing.T, c *product.Cluster, _ string) string {
	namespace := c.Namespace(t, "skew-")
	const share = 10 // of the CPUs of a simulated node, in percent
	use := fmt.Sprintf("%dm", simnode.Capacity.Cpu().MilliValue()*share/100)
	for i := range 6 {
		name := fmt.Sprint("overutilized-", i)
		template := product.Template(name, product.Container("work", 100))
		template.Annotations = map[string]string{simnode.CPUUsagePrefix + "work": use}
		template.Spec.RestartPolicy = corev1.RestartPolicyNever
		template.Spec.Affinity = preferNode("sim-1")
		c.Create(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: template.Labels, Annotations: template.Annotations}, Spec: template.Spec})
	}
	c.AwaitMigration(t, namespace, 3*time.Minute)
	return "ok"
}

// preferNode outweighs what spreads pods.
func preferNode(name string) *corev1.Affinity {
	term := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
		{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{name}},
	}}
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 100, Preference: term}},
	}}
}

// checkWebhook moves a pod of a Job, whose next pod the webhook turns into the
// replacement.
func checkWebhook(t *testing.T, c *product.Cluster, _ string) string {
	namespace := c.Namespace(t, "skew-")
	template := product.Template("job", product.Container("work", 100))
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "job"}, Spec: batchv1.JobSpec{BackoffLimit: new(int32(0)), Template: template}}
	c.Create(t, job)
	pod := c.AwaitRunning(t, namespace, "job", "")
	migration := c.Migrate(t, pod, 2*time.Minute)
	c.AwaitRunning(t, namespace, "job", pod.Spec.NodeName)
	if migration.Status.Handover == nil || migration.Status.Handover.Method != v1alpha1.MethodRelease {
		t.Errorf("the migration did without the webhook: %+v", migration.Status.Handover)
	}
	return "ok"
}

// checkForbidden looks whether a program missed a right.
func checkForbidden(t *testing.T, c *product.Cluster, _ string) string {
	uses, err := rights.Compare(filepath.Join(root, "manifests"), c.AuditLogPath(), 0)
	if err != nil {
		t.Fatal(err)
	}
	used := 0
	for _, use := range uses {
		used += len(use.Used)
		if len(use.Forbidden) > 0 {
			t.Fatalf("%s was refused %v", use.User, use.Forbidden.Sorted())
		}
	}
	if used == 0 {
		t.Fatal("the audit log tells nothing of our programs")
	}
	return fmt.Sprintf("%d used", used)
}
