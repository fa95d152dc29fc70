package devcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/ai-storage/orchestrator/pkg/devcluster/controlplane"
)

// state is what must be known to use a cluster, or to remove what is left of
// one. It is written before the first process starts.
type state struct {
	BinDir     string             `json:"binDir"`
	ConfigFile string             `json:"configFile"`
	Nodes      NodeSpec           `json:"nodes"`
	Ports      controlplane.Ports `json:"ports"`
	// Complete says that Up reached its end.
	Complete bool `json:"complete"`
}

func statePath(stateDir string) string { return filepath.Join(stateDir, "state.json") }

// readState returns fs.ErrNotExist when the folder holds no cluster.
func readState(stateDir string) (state, error) {
	content, err := os.ReadFile(statePath(stateDir))
	if err != nil {
		return state{}, err
	}
	var s state
	if err := json.Unmarshal(content, &s); err != nil {
		return state{}, fmt.Errorf("read %s: %w", statePath(stateDir), err)
	}
	return s, nil
}

func (s state) write(stateDir string) error {
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	path := statePath(stateDir)
	if err := os.WriteFile(path+".new", append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// ours are the entries of a state folder that belong to a cluster. Others are
// never removed: the folder is the user's.
var ours = []string{
	"state.json", "state.json.new", "pki", "kubeconfig", "etcd", "audit", "kwok", "config", "images", "nodes", "processes", "logs", lockFile,
}

// lockFile must outlive what is done under the lock.
const lockFile = "lock"

// logFolders stay when a cluster is gone.
var logFolders = []string{"logs", "audit"}

// removeState removes all but the kept entries, and the folder when it is empty.
func removeState(stateDir string, keep ...string) error {
	var failures []error
	for _, entry := range ours {
		kept := false
		for _, name := range keep {
			kept = kept || name == entry
		}
		if !kept {
			failures = append(failures, os.RemoveAll(filepath.Join(stateDir, entry)))
		}
	}
	if err := os.Remove(stateDir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// lock keeps two commands from working on one cluster at the same time. The
// kernel drops it when the program ends, however it ends.
func lock(stateDir string) (release func(), err error) {
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	path := filepath.Join(stateDir, lockFile)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("another devcluster command works on %s", stateDir)
	}
	return func() { file.Close() }, nil
}
