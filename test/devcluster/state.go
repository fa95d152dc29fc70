package devcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/ai-storage/orchestrator/test/devcluster/controlplane"
)

// state is what must be known to use a cluster, or to remove what is left of
// one. It is written before the first process starts.
type state struct {
	BinDir     string             `json:"binDir"`
	ConfigFile string             `json:"configFile"`
	Nodes      NodeSpec           `json:"nodes"`
	Services   bool               `json:"services,omitempty"`
	Images     []string           `json:"images,omitempty"`
	Ports      controlplane.Ports `json:"ports"`
	// Complete says that Up reached its end.
	Complete bool `json:"complete"`
}

// stateDirectory gives a state directory one name, whatever links lead to it: what a
// cluster has on the machine is found by that name. It need not exist.
func stateDirectory(path string) (string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("state directory: %w", err)
	}
	resolved, err := filepath.EvalSymlinks(absolute)
	if errors.Is(err, fs.ErrNotExist) {
		parent, err := stateDirectory(filepath.Dir(absolute))
		return filepath.Join(parent, filepath.Base(absolute)), err
	}
	if err != nil {
		return "", fmt.Errorf("state directory: %w", err)
	}
	return resolved, nil
}

func statePath(stateDir string) string { return filepath.Join(stateDir, "state.json") }

// readState returns fs.ErrNotExist when the directory holds no cluster.
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

// ours are the entries of a state directory that belong to a cluster. Others are
// never removed: the directory is the user's.
var ours = []string{
	"state.json", "state.json.new", "pki", "kubeconfig", "etcd", "audit", "kwok", "config", "images", "nodes", "processes", "logs", "csi",
}

// lockFile must outlive what is done under the lock. It stays for good, for it
// marks a directory as ours: others may well have a "config" or "logs" in them.
const lockFile = "devcluster.lock"

// logDirectories stay when a cluster is gone.
var logDirectories = []string{"logs", "audit"}

// removeState removes what is ours, but for the kept entries and the mark.
func removeState(stateDir string, keep ...string) error {
	var failures []error
	for _, entry := range ours {
		if !slices.Contains(keep, entry) {
			failures = append(failures, os.RemoveAll(filepath.Join(stateDir, entry)))
		}
	}
	return errors.Join(failures...)
}

// checkOurs refuses a directory that holds files and not our mark: what a cluster
// writes and removes there could be the user's. While the machine runs something
// of it, it is ours: the mark can have been deleted under a cluster.
func checkOurs(stateDir string) error {
	entries, err := os.ReadDir(stateDir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if _, err := os.Lstat(filepath.Join(stateDir, lockFile)); err == nil {
		return nil
	}
	if runs, err := isOnMachine(stateDir); err != nil || runs {
		return err
	}
	return fmt.Errorf("%s is not empty and no state directory of devcluster's: choose one that is new or empty", stateDir)
}

// lock keeps two commands from working on one cluster at the same time. The
// kernel drops it when the program ends, however it ends.
func lock(stateDir string) (release func(), err error) {
	if err := checkOurs(stateDir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	path := filepath.Join(stateDir, lockFile)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("another devcluster command works on %s", stateDir)
	}
	return func() { file.Close() }, nil
}
