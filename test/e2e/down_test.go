//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ai-storage/orchestrator/test/devcluster"
	"github.com/ai-storage/orchestrator/test/devcluster/process"
	"github.com/ai-storage/orchestrator/test/devcluster/realnode"
)

// takeDownWithoutState takes the cluster down after what `git clean` does to a running
// one: only the machine knows of its nodes and processes. Nothing of it may be left.
func takeDownWithoutState(stateDir string) error {
	cgroups, err := env.cluster.NodeCgroups()
	if err != nil {
		return err
	}
	if len(cgroupDirectories(cgroups)) == 0 {
		return errors.New("the nodes have no cgroups: their removal proves nothing")
	}
	if err := loseState(stateDir); err != nil {
		return err
	}
	if err := takeDown(stateDir); err != nil {
		return err
	}
	strays, err := process.Strays(stateDir)
	if err != nil || len(strays) > 0 {
		return fmt.Errorf("processes are left: %v, error %w", strays, err)
	}
	nodes, err := realnode.Find(stateDir)
	if err != nil || len(nodes) > 0 {
		return fmt.Errorf("nodes are left: %v, error %w", nodes, err)
	}
	if left := cgroupDirectories(cgroups); len(left) > 0 {
		return fmt.Errorf("cgroups are left: %v", left)
	}
	fmt.Println("down without state: no process, node or cgroup is left")
	return nil
}

// loseState removes what the cluster knows of itself, and hides the files of its
// nodes. The audit log stays, by which volumes are removed.
func loseState(stateDir string) error {
	for _, name := range []string{"state.json", "processes", "pki", "kubeconfig", "config"} {
		if err := os.RemoveAll(filepath.Join(stateDir, name)); err != nil {
			return err
		}
	}
	if err := os.Rename(filepath.Join(stateDir, "nodes"), filepath.Join(stateDir, "lost-nodes")); err != nil {
		return err
	}
	if _, err := devcluster.Open(stateDir); !errors.Is(err, devcluster.ErrNotRunning) {
		return fmt.Errorf("the state is still there: %v", err)
	}
	_, err := os.Stat(filepath.Join(stateDir, "state.json"))
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the state is still there: %v", err)
	}
	return nil
}

// cgroupDirectories are those of nodes that exist, of version 1 hierarchies and of the
// version 2 hierarchy.
func cgroupDirectories(nodes []string) (found []string) {
	for _, node := range nodes {
		for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			directories, _ := filepath.Glob(pattern + node) // the pattern is well-formed
			found = append(found, directories...)
		}
	}
	return found
}
