//go:build e2e

package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster"
	"github.com/ai-storage/orchestrator/test/devcluster/process"
	"github.com/ai-storage/orchestrator/test/product"
)

// handlerCluster is a cluster whose nodes report about processes.
type handlerCluster struct{ *product.Cluster }

func upWithoutHandler(t *testing.T) handlerCluster {
	t.Helper()
	binDir, manifests := filepath.Join(root, "bin"), filepath.Join(root, "manifests")
	for _, program := range []string{"criu", "oci-runtime"} {
		if _, err := os.Stat(filepath.Join(binDir, program)); err != nil {
			t.Fatalf("needs bin/%s: make bin/%s", program, program)
		}
	}
	return handlerCluster{product.Start(t, devcluster.Options{
		BinDir: binDir, ManifestsDir: manifests, ConfigFile: configuration,
		Nodes: devcluster.NodeSpec{Kind: devcluster.Real, Count: 2}, WithoutHandler: true, CSI: true,
		Components: []string{devcluster.Scheduler, devcluster.Rebalancer},
	})}
}

// supervisor starts containerd again where it has ended, as systemd would.
type supervisor struct {
	mu       sync.Mutex
	restarts map[string]int
	// holds: it does not start with a drop-in, as if it could not read it.
	holds map[string]bool
}

func supervise(t *testing.T, c handlerCluster, nodes []string) *supervisor {
	s := &supervisor{restarts: map[string]int{}, holds: map[string]bool{}}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	for _, node := range nodes {
		done.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(100 * time.Millisecond)
				dropIns, _ := filepath.Glob(filepath.Join(c.NodeDir(node), "containerd.d", "*.toml"))
				s.mu.Lock()
				held := s.holds[node] && len(dropIns) > 0
				s.mu.Unlock()
				if held {
					continue
				}
				err := c.StartContainerd(ctx, node)
				switch {
				case err == nil:
					s.mu.Lock()
					s.restarts[node]++
					s.mu.Unlock()
				case !errors.Is(err, process.ErrRunning) && ctx.Err() == nil:
					t.Logf("containerd of %s: %v", node, err)
				}
			}
		})
	}
	t.Cleanup(func() { cancel(); done.Wait() })
	return s
}

func (s *supervisor) count(node string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restarts[node]
}

// awaitCounts wants so many starts of containerd on each node.
func (s *supervisor) awaitCounts(t *testing.T, nodes []string, want ...int) {
	t.Helper()
	product.Eventually(t, 10*time.Second, "containerd was started again as often as it should", func(context.Context) error {
		got := make([]int, len(nodes))
		for i, node := range nodes {
			got[i] = s.count(node)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("it was %v times, want %v", got, want)
		}
		return nil
	})
}

func (s *supervisor) hold(node string, holds bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds[node] = holds
}

// filesOf are the files of a node that an installer could touch: mode and content
// by path.
func filesOf(t *testing.T, c handlerCluster, node string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, part := range []string{"containerd.toml", "containerd.d", "programs", "agent"} {
		err := filepath.WalkDir(filepath.Join(c.NodeDir(node), part), func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			name, err := filepath.Rel(c.NodeDir(node), path)
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			content := ""
			if info.Mode().IsRegular() {
				read, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				content = string(read)
			}
			// The agent's own directories come with its first migration.
			if !strings.HasPrefix(name, "agent/node-agent/") || info.Mode().IsRegular() {
				files[name] = info.Mode().String() + " " + content
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// setArguments gives the agents these besides their own, and waits for the new ones.
func setArguments(t *testing.T, c handlerCluster, arguments ...string) {
	t.Helper()
	all, err := json.Marshal(append([]string{"run", "--metrics-host=$(HOST_IP)", "--process-checkpoint"}, arguments...))
	if err != nil {
		t.Fatal(err)
	}
	const namespace = "--namespace=ai-storage-node-agent"
	c.Kubectl(t, "patch", namespace, "daemonset/ai-storage-node-agent", "--type=json", "-p",
		`[{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": `+string(all)+`}]`)
	c.Kubectl(t, "rollout", "status", namespace, "daemonset/ai-storage-node-agent", "--timeout=3m")
}

// replaceAgents lets the agents look at once, not within a minute.
func replaceAgents(t *testing.T, c handlerCluster) {
	t.Helper()
	if err := c.ReplaceNodeAgents(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// awaitNode waits until the agent of a node says whether processes can move, and why.
func (c handlerCluster) awaitNode(t *testing.T, name, label, says string) {
	t.Helper()
	product.Eventually(t, 3*time.Minute, "node "+name+" says "+says, func(ctx context.Context) error {
		node := &corev1.Node{}
		if err := c.Client.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
			return err
		}
		told := node.Annotations[v1alpha1.ProcessVersionsAnnotation]
		if node.Labels[v1alpha1.ProcessNodeLabel] != label || !strings.Contains(told, says) {
			return fmt.Errorf("it says %q %q", node.Labels[v1alpha1.ProcessNodeLabel], told)
		}
		t.Logf("%s says: %s", name, told)
		return nil
	})
}
