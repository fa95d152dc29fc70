package simnode

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ai-storage/orchestrator/test/devcluster/process"
)

// Annotations of a pod are these prefixes and a container's name. See doc.go.
const (
	CPUUsagePrefix    = "cpu.usage.devcluster/"
	MemoryUsagePrefix = "memory.usage.devcluster/"
	FinishAfterPrefix = "finish-after.devcluster/"
)

// User is the one that kwok authenticates as; RBAC holds its rights.
const User = "devcluster:kwok"

const (
	processName = "kwok"

	// managedLabel marks the nodes that kwok plays.
	managedLabel = "devcluster/node"
	managedValue = "simulated"

	// metricsPathAnnotation tells metrics-server where to read a node's use
	// (sigs.k8s.io/metrics-server/pkg/scraper/client/resource).
	metricsPathAnnotation = "metrics.k8s.io/resource-metrics-path"
)

// RBAC is the manifest of the rights that kwok needs.
//
//go:embed rbac.yaml
var RBAC []byte

//go:embed kwok.yaml
var stages []byte

// Capacity of each simulated node.
var Capacity = corev1.ResourceList{
	corev1.ResourceCPU:              resource.MustParse("8"),
	corev1.ResourceMemory:           resource.MustParse("32Gi"),
	corev1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
	corev1.ResourcePods:             resource.MustParse("110"),
}

// Options of the process that plays all simulated nodes.
type Options struct {
	StateDir   string
	BinDir     string
	Kubeconfig string
	// Port serves the kubelets' metrics with the certificate and key.
	Port            int
	CertificateFile string
	KeyFile         string
}

// Start runs kwok. It plays the nodes that CreateNodes makes.
func Start(o Options) error {
	directory := filepath.Join(o.StateDir, processName)
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return fmt.Errorf("start simulated nodes: %w", err)
	}
	config := filepath.Join(directory, "kwok.yaml")
	if err := os.WriteFile(config, stages, 0o644); err != nil {
		return fmt.Errorf("start simulated nodes: %w", err)
	}
	_, err := process.Start(o.StateDir, process.Spec{
		Name: processName,
		Path: filepath.Join(o.BinDir, "kwok"),
		// kwok looks for a config of its own under the home directory otherwise.
		Env: []string{"KWOK_WORKDIR=" + directory},
		Args: []string{
			"--config=" + config,
			"--kubeconfig=" + o.Kubeconfig,
			"--manage-all-nodes=false",
			"--manage-nodes-with-annotation-selector=",
			"--manage-nodes-with-label-selector=" + managedLabel + "=" + managedValue,
			"--node-ip=127.0.0.1",
			"--node-port=" + strconv.Itoa(o.Port),
			"--server-address=127.0.0.1:" + strconv.Itoa(o.Port),
			"--tls-cert-file=" + o.CertificateFile,
			"--tls-private-key-file=" + o.KeyFile,
			"--node-lease-duration-seconds=40",
			"--cidr=10.128.0.0/16",
		},
	})
	return err
}

// CreateNodes makes the Node objects. Like a kubelet's, they come up without
// being Ready.
func CreateNodes(ctx context.Context, client kubernetes.Interface, names []string) error {
	for _, name := range names {
		if _, err := client.CoreV1().Nodes().Create(ctx, newNode(name), metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create node %s: %w", name, err)
		}
	}
	return nil
}

func newNode(name string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name,
			Labels: map[string]string{
				managedLabel:                   managedValue,
				corev1.LabelHostname:           name,
				corev1.LabelOSStable:           "linux",
				corev1.LabelArchStable:         "amd64",
				corev1.LabelInstanceTypeStable: "simulated",
			},
			Annotations: map[string]string{
				metricsPathAnnotation: "/metrics/nodes/" + name + "/metrics/resource",
			},
		},
		Status: corev1.NodeStatus{Capacity: Capacity, Allocatable: Capacity},
	}
}
