package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"

	"github.com/ai-storage/orchestrator/test/devcluster/controlplane"
	"github.com/ai-storage/orchestrator/test/devcluster/process"
)

// ErrNotRunning says that the state directory holds no running cluster.
var ErrNotRunning = errors.New("no cluster is running")

// Cluster is a running cluster.
type Cluster struct {
	stateDir string
	state    state
}

// Open returns the running cluster of a state directory, or ErrNotRunning.
func Open(stateDir string) (*Cluster, error) {
	stateDir, err := stateDirectory(stateDir)
	if err != nil {
		return nil, err
	}
	found, err := readState(stateDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil || !isRunning(stateDir) {
		return nil, fmt.Errorf("%w in %s: `devcluster up` starts one", ErrNotRunning, stateDir)
	}
	return &Cluster{stateDir: stateDir, state: found}, nil
}

// StateDir is the directory of the cluster.
func (c *Cluster) StateDir() string { return c.stateDir }

// Nodes says what nodes the cluster was started with.
func (c *Cluster) Nodes() NodeSpec { return c.state.Nodes }

// AdminKubeconfig is the path of a kubeconfig with every right.
func (c *Cluster) AdminKubeconfig() string { return controlplane.KubeconfigPath(c.stateDir, "admin") }

// AdminConfig returns a client configuration with every right. It is not
// throttled, since its API server serves nobody else.
func (c *Cluster) AdminConfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.AdminKubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read the admin's kubeconfig: %w", err)
	}
	config.QPS = -1
	return config, nil
}

// AuditLogPath is the API server's audit log, one JSON event a line. It has the
// creates, bindings and evictions of pods and all of PodMigrations, with bodies.
func (c *Cluster) AuditLogPath() string { return controlplane.AuditLogPath(c.stateDir) }

// LogTail returns the last lines that a process of the cluster wrote.
func (c *Cluster) LogTail(name string, lines int) string {
	return process.LogTail(c.stateDir, name, lines)
}

// awaitMetrics waits until metrics.k8s.io has a measurement of each node.
func (c *Cluster) awaitMetrics(ctx context.Context, nodes int) error {
	config, err := c.AdminConfig()
	if err != nil {
		return err
	}
	client, err := metricsclient.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	var reason error
	err = wait.PollUntilContextTimeout(ctx, 500*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		measured, err := client.MetricsV1beta1().NodeMetricses().List(ctx, metav1.ListOptions{})
		if reason = err; err != nil {
			return false, nil
		}
		reason = fmt.Errorf("it measured %d of %d nodes", len(measured.Items), nodes)
		return len(measured.Items) >= nodes, nil
	})
	if err != nil {
		return fmt.Errorf("wait for metrics.k8s.io: %w: %w", err, reason)
	}
	return nil
}

// ProcessStatus is one line of a status.
type ProcessStatus struct {
	Name  string
	PID   int
	Alive bool
}

// Processes tells which processes of the cluster are alive, by name.
func (c *Cluster) Processes() ([]ProcessStatus, error) {
	records, err := process.List(c.stateDir)
	if err != nil {
		return nil, err
	}
	statuses := make([]ProcessStatus, len(records))
	for i, record := range records {
		statuses[i] = ProcessStatus{Name: record.Name, PID: record.PID, Alive: record.Alive()}
	}
	return statuses, nil
}
