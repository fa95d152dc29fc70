package chart

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
	"github.com/ai-storage/orchestrator/pkg/tracing"
)

const (
	root  = "../.."
	chart = root + "/manifests/chart/ai-storage-orchestrator"
)

// template runs helm template and returns the objects, or what it says.
func template(t *testing.T, arguments ...string) ([]*unstructured.Unstructured, error) {
	t.Helper()
	helm := filepath.Join(root, "bin", "helm")
	if _, err := os.Stat(helm); err != nil {
		t.Fatalf("%v: run `make bin/helm`", err)
	}
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(t.Context(), helm, append([]string{"template", "ai-storage", chart, "--namespace=ai-storage-system"}, arguments...)...)
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return nil, errors.New(stderr.String())
	}
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(&stdout, 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}

func render(t *testing.T, arguments ...string) []*unstructured.Unstructured {
	t.Helper()
	objects, err := template(t, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// find reads an object into a typed one.
func find(t *testing.T, objects []*unstructured.Unstructured, kind, name string, into any) {
	t.Helper()
	for _, object := range objects {
		if object.GetKind() == kind && object.GetName() == name {
			if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, into, true); err != nil {
				t.Fatalf("%s %s: %v", kind, name, err)
			}
			return
		}
	}
	t.Fatalf("no %s %s", kind, name)
}

func configurationOf(t *testing.T, objects []*unstructured.Unstructured) *load.Configuration {
	t.Helper()
	configMap := &corev1.ConfigMap{}
	find(t, objects, "ConfigMap", "ai-storage-scheduler-configuration", configMap)
	configuration, err := load.Bytes([]byte(configMap.Data["scheduler-configuration.yaml"]))
	if err != nil {
		t.Fatal(err)
	}
	return configuration
}

func TestTheOnlyScheduler(t *testing.T) {
	type facts struct {
		Profiles         []string
		Lease, Namespace string
	}
	for _, test := range []struct {
		value string
		want  facts
	}{
		{"false", facts{[]string{"ai-storage-scheduler"}, "ai-storage-scheduler", "ai-storage-system"}},
		{"true", facts{[]string{"ai-storage-scheduler", "default-scheduler"}, "kube-scheduler", "kube-system"}},
	} {
		scheduler := configurationOf(t, render(t, "--set=onlyScheduler="+test.value)).Scheduler
		got := facts{Lease: scheduler.LeaderElection.ResourceName, Namespace: scheduler.LeaderElection.ResourceNamespace}
		for _, profile := range scheduler.Profiles {
			got.Profiles = append(got.Profiles, profile.SchedulerName)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("onlyScheduler=%s (-want +got):\n%s", test.value, diff)
		}
		if len(scheduler.Profiles) == 2 {
			if diff := cmp.Diff(scheduler.Profiles[0].Plugins, scheduler.Profiles[1].Plugins); diff != "" {
				t.Errorf("the profiles differ:\n%s", diff)
			}
		}
	}
}

func TestAConfigurationOfOnesOwn(t *testing.T) {
	objects := render(t, "--set-file=schedulerConfiguration="+filepath.Join(root, "test/e2e/testdata/scheduler-configuration.yaml"))
	if got := configurationOf(t, objects).Rebalance.Thresholds.CPU; got != 40 {
		t.Errorf("threshold %v, want that of the file, 40", got)
	}
	// A new configuration must bring new pods.
	var before, after appsv1.Deployment
	find(t, objects, "Deployment", "ai-storage-rebalancer", &after)
	find(t, render(t), "Deployment", "ai-storage-rebalancer", &before)
	const checksum = "checksum/configuration"
	if old := before.Spec.Template.Annotations[checksum]; old == "" || old == after.Spec.Template.Annotations[checksum] {
		t.Errorf("checksum %q before and after", old)
	}
}

func TestImages(t *testing.T) {
	objects := render(t, "--set=image.registry=registry.example/team,image.tag=v1,image.pullSecrets={key}")
	var rebalancer appsv1.Deployment
	var agents appsv1.DaemonSet
	find(t, objects, "Deployment", "ai-storage-rebalancer", &rebalancer)
	find(t, objects, "DaemonSet", "ai-storage-node-agent", &agents)
	const agentImage = "registry.example/team/node-agent:v1"
	got := []string{
		rebalancer.Spec.Template.Spec.Containers[0].Image,
		rebalancer.Spec.Template.Spec.Containers[0].Args[1],
		agents.Spec.Template.Spec.Containers[0].Image,
		rebalancer.Spec.Template.Spec.ImagePullSecrets[0].Name,
	}
	want := []string{"registry.example/team/rebalancer:v1", "--node-agent-image=" + agentImage, agentImage, "key"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}

// The rebalancer may look for the Secrets that its flag names, and for no others.
func TestPullSecretsOfWorkloads(t *testing.T) {
	objects := render(t, "--set=image.workloadPullSecrets={one,two},rebalancer.unschedulableGrace=2m")
	var rebalancer appsv1.Deployment
	var role rbacv1.ClusterRole
	find(t, objects, "Deployment", "ai-storage-rebalancer", &rebalancer)
	find(t, objects, "ClusterRole", "ai-storage-rebalancer", &role)
	arguments := rebalancer.Spec.Template.Spec.Containers[0].Args
	for _, want := range []string{"--node-agent-image-pull-secrets=one,two", "--unschedulable-grace=2m"} {
		if !slices.Contains(arguments, want) {
			t.Errorf("arguments %q lack %s", arguments, want)
		}
	}
	secrets := func(role rbacv1.ClusterRole) (rules []rbacv1.PolicyRule) {
		for _, rule := range role.Rules {
			if slices.Contains(rule.Resources, "secrets") {
				rules = append(rules, rule)
			}
		}
		return rules
	}
	want := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"one", "two"}, Verbs: []string{"get"}}}
	if diff := cmp.Diff(want, secrets(role)); diff != "" {
		t.Errorf("rules on Secrets (-want +got):\n%s", diff)
	}
	find(t, render(t), "ClusterRole", "ai-storage-rebalancer", &role)
	if rules := secrets(role); len(rules) > 0 {
		t.Errorf("by default: %+v", rules)
	}
}

// Only the node agent may be privileged, in any way.
func TestPrivilegeIsTheNodeAgentsAlone(t *testing.T) {
	for _, object := range render(t) {
		pod, found, err := unstructured.NestedMap(object.Object, "spec", "template", "spec")
		if err != nil || !found {
			continue
		}
		var spec corev1.PodSpec
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(pod, &spec); err != nil {
			t.Fatal(err)
		}
		container := spec.Containers[0].SecurityContext
		privileged := container.Privileged != nil || spec.HostPID || spec.HostNetwork
		if privileged != (object.GetNamespace() == "ai-storage-node-agent") {
			t.Errorf("%s in %s: privileged %v", object.GetName(), object.GetNamespace(), privileged)
		}
		if !*container.ReadOnlyRootFilesystem {
			t.Errorf("%s may write to its image", object.GetName())
		}
	}
}

func TestWrongValuesAreNamed(t *testing.T) {
	for _, test := range []struct{ argument, want string }{
		{"--set=schedulr.replicas=3", "schedulr"},
		{"--set=scheduler.replicas=0", "replicas"},
		{"--set=networkPolicy.apiServerPorts={70000}", "apiServerPorts"},
		{"--set=tracing.endpoint=https://collector:4317", "endpoint"},
		{"--set=tracing.samplingRatePerMillion=1000001", "samplingRatePerMillion"},
		{"--set=onlyScheduler=true,schedulerConfiguration=x", "onlyScheduler"},
		{"--namespace=default", "namespace ai-storage-system"},
	} {
		if _, err := template(t, test.argument); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want an error about %q", test.argument, err, test.want)
		}
	}
}

func TestOptionalParts(t *testing.T) {
	kinds := func(objects []*unstructured.Unstructured) map[string]int {
		counted := map[string]int{}
		for _, object := range objects {
			counted[object.GetKind()]++
		}
		return counted
	}
	all := kinds(render(t, "--set=serviceMonitor.enabled=true,prometheusRule.enabled=true,dashboard.enabled=true"))
	few := kinds(render(t, "--set=networkPolicy.enabled=false,nodeAgent.enabled=false"))
	got := []int{all["ServiceMonitor"], all["PodMonitor"], few["PodMonitor"], all["PrometheusRule"], all["ConfigMap"], few["NetworkPolicy"], few["DaemonSet"], few["ConfigMap"]}
	if diff := cmp.Diff([]int{2, 1, 0, 1, 2, 0, 0, 1}, got); diff != "" {
		t.Errorf("ServiceMonitors, PodMonitors with and without, PrometheusRules, ConfigMaps, NetworkPolicies, DaemonSets, ConfigMaps (-want +got):\n%s", diff)
	}
}

// The agents change their nodes only when the values say so, and only those that
// are named.
func TestInstallOfTheRuntimeHandler(t *testing.T) {
	for values, want := range map[string][]string{
		"enabled=true":                          {"--process-checkpoint"},
		"install.enabled=true":                  nil,
		"enabled=true,%sinstall.enabled=true":   {"--process-checkpoint", "--install-runtime"},
		"enabled=true,%sinstall.restart=Signal": {"--process-checkpoint", "--containerd-restart=Signal"},
		"enabled=true,%[1]sinstall.enabled=true,%[1]sinstall.nodeSelector.pool=train,%[1]sinstall.nodeSelector.zone=a": {"--process-checkpoint", "--install-runtime", "--install-runtime-nodes=pool=train,zone=a"},
	} {
		const prefix = "nodeAgent.processCheckpoint."
		if strings.Contains(values, "%") {
			values = fmt.Sprintf(values, prefix)
		}
		var agent appsv1.DaemonSet
		find(t, render(t, "--set="+prefix+values), "DaemonSet", "ai-storage-node-agent", &agent)
		if got := agent.Spec.Template.Spec.Containers[0].Args[4:]; !slices.Equal(got, want) {
			t.Errorf("%s: arguments %v, want %v", values, got, want)
		}
	}
}

// Where agents receive volumes is one value, and a limit is passed on only where one is set.
func TestWhereAgentsReceive(t *testing.T) {
	for values, want := range map[string][]string{
		"nodeAgent.transfer.limit=":                                  {"--transfer-host=$(HOST_IP)", "--transfer-port=10271"},
		"nodeAgent.transfer.port=7443,nodeAgent.transfer.limit=50Mi": {"--transfer-host=$(HOST_IP)", "--transfer-port=7443", "--transfer-limit=50Mi"},
	} {
		var agent appsv1.DaemonSet
		find(t, render(t, "--set="+values), "DaemonSet", "ai-storage-node-agent", &agent)
		container := agent.Spec.Template.Spec.Containers[0]
		if got := container.Args[2:]; !slices.Equal(got, want) {
			t.Errorf("%s: arguments %v, want %v", values, got, want)
		}
		port := slices.IndexFunc(container.Ports, func(p corev1.ContainerPort) bool { return p.Name == "transfer" })
		if port < 0 || !strings.HasSuffix(want[1], fmt.Sprint("=", container.Ports[port].ContainerPort)) {
			t.Errorf("%s: ports %v", values, container.Ports)
		}
	}
}

// Traces are made only when a collector is named, and then they can leave.
func TestTracing(t *testing.T) {
	var without, with appsv1.Deployment
	find(t, render(t), "Deployment", "ai-storage-rebalancer", &without)
	objects := render(t, "--set=tracing.endpoint=collector.observability:4317,tracing.samplingRatePerMillion=5000")
	find(t, objects, "Deployment", "ai-storage-rebalancer", &with)
	if got, want := len(with.Spec.Template.Spec.Containers[0].Args), len(without.Spec.Template.Spec.Containers[0].Args)+1; got != want {
		t.Errorf("%d arguments, want %d", got, want)
	}
	var configuration corev1.ConfigMap
	find(t, objects, "ConfigMap", "ai-storage-tracing", &configuration)
	path := filepath.Join(t.TempDir(), "tracing.yaml")
	if err := os.WriteFile(path, []byte(configuration.Data["tracing.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := tracing.Load(path)
	if err != nil || *loaded.Endpoint != "collector.observability:4317" || *loaded.SamplingRatePerMillion != 5000 {
		t.Errorf("the rebalancer reads %+v, %v", loaded, err)
	}
	var policy networkingv1.NetworkPolicy
	find(t, objects, "NetworkPolicy", "ai-storage-tracing", &policy)
	if port := policy.Spec.Egress[0].Ports[0].Port; port.IntValue() != 4317 {
		t.Errorf("traces may leave to port %s", port)
	}
}
