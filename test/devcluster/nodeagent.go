package devcluster

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster/controlplane"
)

const (
	nodeAgentProgram = "node-agent"
	// nodeAgentNamespace is where manifests/ puts the node agents.
	nodeAgentNamespace = "ai-storage-node-agent"
	nodeAgentName      = "ai-storage-node-agent"
	nodeAgentLabel     = "app.kubernetes.io/name=" + nodeAgentName
)

// processRuntimeClass is that of pods whose processes can move, and lets the node
// agents label their nodes. Kubernetes itself keeps such pods off other nodes.
const processRuntimeClass = `apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata:
  name: ` + v1alpha1.ProcessRuntimeClass + `
handler: ` + v1alpha1.ProcessRuntimeClass + `
scheduling:
  nodeSelector:
    ` + v1alpha1.ProcessNodeLabel + `: "true"
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: ai-storage-node-agent-processes
rules:
- apiGroups: [""]
  resources: [nodes]
  verbs: [get, patch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: ai-storage-node-agent-processes
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: ai-storage-node-agent-processes
subjects:
- kind: ServiceAccount
  name: ` + nodeAgentName + `
  namespace: ` + nodeAgentNamespace + `
`

// startNodeAgents applies the DaemonSet of manifests/, whose pods our scheduler
// places, and returns when there is an agent on every real node. The API server
// is on loopback, which the agents share with the machine.
func (b *bringUp) startNodeAgents(ctx context.Context) error {
	manifest := filepath.Join(b.ManifestsDir, "base", "node-agent.yaml")
	if _, err := os.Stat(manifest); err != nil || b.Nodes.Kind != Real || !slices.Contains(b.Components, Scheduler) {
		return nil
	}
	config, err := b.cluster.AdminConfig()
	if err != nil {
		return err
	}
	applier, err := controlplane.NewApplier(config)
	if err != nil {
		return err
	}
	rights, err := os.ReadFile(filepath.Join(b.ManifestsDir, "base", "node-agent-rbac.yaml"))
	if err != nil {
		return fmt.Errorf("install the node agents: %w", err)
	}
	agents, err := b.localNodeAgents(manifest)
	if err != nil {
		return fmt.Errorf("install the node agents: %w", err)
	}
	for _, manifest := range [][]byte{rights, agents, []byte(processRuntimeClass)} {
		if _, err := applier.Apply(ctx, manifest); err != nil {
			return fmt.Errorf("install the node agents: %w", err)
		}
	}
	if err := b.awaitNodeAgents(ctx); err != nil {
		return err
	}
	b.say("a node agent is Ready on each node")
	return nil
}

// localNodeAgents is the DaemonSet with what is different on a local cluster.
func (b *bringUp) localNodeAgents(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	daemonSet := &appsv1.DaemonSet{}
	if err := yaml.UnmarshalStrict(content, daemonSet); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	spec := &daemonSet.Spec.Template.Spec
	spec.SchedulerName = v1alpha1.SchedulerName
	spec.DNSPolicy = corev1.DNSDefault
	spec.Containers[0].Env = append(spec.Containers[0].Env,
		corev1.EnvVar{Name: "KUBERNETES_SERVICE_HOST", Value: "127.0.0.1"},
		corev1.EnvVar{Name: "KUBERNETES_SERVICE_PORT", Value: strconv.Itoa(b.state.Ports.APIServer)})
	spec.Containers[0].Args = append(spec.Containers[0].Args, "--process-checkpoint")
	return yaml.Marshal(daemonSet)
}

func (b *bringUp) awaitNodeAgents(ctx context.Context) error {
	var ready int32
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		agents, err := b.client.AppsV1().DaemonSets(nodeAgentNamespace).Get(ctx, nodeAgentName, metav1.GetOptions{})
		if err != nil {
			return false, nil
		}
		ready = agents.Status.NumberReady
		return int(ready) == b.Nodes.Count, nil
	})
	if err != nil {
		return fmt.Errorf("wait for the node agents, of which %d of %d are Ready: %w", ready, b.Nodes.Count, err)
	}
	return nil
}

// KillNodeAgent ends the node agent of a real node with SIGKILL, as a crash
// would. The kubelet starts it again: at once the first time, later after a
// back-off that doubles (see ReplaceNodeAgents).
func (c *Cluster) KillNodeAgent(ctx context.Context, node string) error {
	return c.SignalNodeAgent(ctx, node, syscall.SIGKILL)
}

// SignalNodeAgent sends a signal to the node agent of a real node: SIGSTOP makes
// it hang, SIGCONT lets it continue.
func (c *Cluster) SignalNodeAgent(ctx context.Context, node string, signal syscall.Signal) error {
	pid, err := c.nodeAgentProcess(ctx, node)
	if err == nil {
		err = syscall.Kill(pid, signal)
	}
	if err != nil {
		return fmt.Errorf("%s for the node agent of %s: %w", signal, node, err)
	}
	return nil
}

func (c *Cluster) nodeAgentProcess(ctx context.Context, node string) (int, error) {
	client, err := c.adminClient()
	if err != nil {
		return 0, err
	}
	pods, err := client.CoreV1().Pods(nodeAgentNamespace).List(ctx, metav1.ListOptions{
		LabelSelector: nodeAgentLabel, FieldSelector: "spec.nodeName=" + node,
	})
	if err != nil {
		return 0, err
	}
	if len(pods.Items) == 0 {
		return 0, errors.New("there is none")
	}
	return processOf(pods.Items[0].UID, nodeAgentProgram)
}

// ReplaceNodeAgents gives every node a new agent, whose crashes the kubelet has
// not counted yet, and returns when all are Ready.
func (c *Cluster) ReplaceNodeAgents(ctx context.Context) error {
	client, err := c.adminClient()
	if err != nil {
		return err
	}
	pods := client.CoreV1().Pods(nodeAgentNamespace)
	old, err := pods.List(ctx, metav1.ListOptions{LabelSelector: nodeAgentLabel})
	if err != nil {
		return fmt.Errorf("replace the node agents: %w", err)
	}
	if err := pods.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: nodeAgentLabel}); err != nil {
		return fmt.Errorf("replace the node agents: %w", err)
	}
	err = wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		now, err := pods.List(ctx, metav1.ListOptions{LabelSelector: nodeAgentLabel})
		if err != nil || len(now.Items) != len(old.Items) {
			return false, nil
		}
		for i := range now.Items {
			pod := &now.Items[i]
			isOld := slices.ContainsFunc(old.Items, func(o corev1.Pod) bool { return o.UID == pod.UID })
			if isOld || len(pod.Status.ContainerStatuses) == 0 || !pod.Status.ContainerStatuses[0].Ready {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("replace the node agents: %w", err)
	}
	return nil
}

func (c *Cluster) adminClient() (kubernetes.Interface, error) {
	config, err := c.AdminConfig()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// processOf finds the process of a pod that runs a program.
func processOf(pod types.UID, program string) (int, error) {
	for pid := range processesOf(pod) {
		if executable, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe")); err == nil && filepath.Base(executable) == program {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("pod %s has no process %s", pod, program)
}

// PodPath is where this machine sees a path of a pod on a real node, as the first
// of its containers has it.
func PodPath(pod types.UID, path string) (string, error) {
	for pid := range processesOf(pod) {
		seen := filepath.Join("/proc", strconv.Itoa(pid), "root", path)
		if _, err := os.Stat(seen); err == nil {
			return seen, nil
		}
	}
	return "", fmt.Errorf("no process of pod %s has %s", pod, path)
}

// processesOf walks over the processes of a pod, by their numbers on this machine.
func processesOf(pod types.UID) iter.Seq[int] {
	return func(yield func(int) bool) {
		processes, _ := filepath.Glob("/proc/[0-9]*/cgroup") // the pattern is well-formed
		for _, file := range processes {
			cgroups, err := os.ReadFile(file)
			if err != nil || !strings.Contains(string(cgroups), string(pod)) {
				continue // gone meanwhile, or another pod's
			}
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err == nil && !yield(pid) {
				return
			}
		}
	}
}
