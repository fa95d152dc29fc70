package devcluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/test/devcluster/controlplane"
	"github.com/ai-storage/orchestrator/test/devcluster/process"
	"github.com/ai-storage/orchestrator/test/devcluster/realnode"
)

const (
	// shutdownGrace is how long a process of a cluster that is thrown away may
	// take to end by itself.
	shutdownGrace = 3 * time.Second

	// hostPathDirectory is where the controller manager's host-path provisioner
	// makes volumes (k8s.io/kubernetes/pkg/volume/hostpath); it cannot be moved.
	hostPathDirectory = "/tmp/hostpath_pv"
)

// Down ends the cluster and removes its files, but for the logs: they tell what
// went wrong, and the next Up removes them. It works after a crash too, and
// nothing to end is no error.
func Down(ctx context.Context, stateDir string, progress io.Writer) error {
	stateDir, err := stateDirectory(stateDir)
	if err != nil {
		return err
	}
	if progress == nil {
		progress = io.Discard
	}
	say := newReporter(progress)
	empty, err := isEmpty(stateDir)
	if err != nil {
		return err
	}
	if empty {
		say("there is no cluster in %s", stateDir)
		return nil
	}
	release, err := lock(stateDir)
	if err != nil {
		return err
	}
	defer release()
	if err := tearDown(ctx, stateDir, say, logDirectories...); err != nil {
		return err
	}
	say("the cluster is gone; its logs are in %s", filepath.Join(stateDir, "logs"))
	return nil
}

// isEmpty tells whether there is nothing to end, not even what a crash left.
func isEmpty(stateDir string) (bool, error) {
	if _, err := os.Stat(statePath(stateDir)); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	records, err := process.List(stateDir)
	if err != nil || len(records) > 0 {
		return false, err
	}
	runs, err := isOnMachine(stateDir)
	return !runs, err
}

// isOnMachine tells whether processes or real nodes of the directory are on the
// machine, whatever became of the directory.
func isOnMachine(stateDir string) (bool, error) {
	records, err := process.List(stateDir)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(records, process.Record.Alive) {
		return true, nil
	}
	strays, err := process.Strays(stateDir)
	if err != nil || len(strays) > 0 {
		return true, err
	}
	nodes, err := realnode.Find(stateDir)
	return len(nodes) > 0, err
}

// tearDown continues after a failure, so that as little as possible is left. The
// state stays when something failed, for another try.
func tearDown(ctx context.Context, stateDir string, say reporter, keep ...string) error {
	failures := []error{stopNodes(ctx, stateDir, say), stopProcesses(ctx, stateDir, say), endStrays(ctx, stateDir, say)}
	// Only now, when nobody makes another one.
	failures = append(failures, removeVolumes(stateDir, say), detachCSIVolumes(ctx, stateDir, say), withdrawServices(ctx, stateDir, say))
	if err := errors.Join(failures...); err != nil {
		return fmt.Errorf("clean up %s: %w", stateDir, err)
	}
	if err := removeState(stateDir, keep...); err != nil {
		return fmt.Errorf("clean up %s: %w", stateDir, err)
	}
	return nil
}

func stopNodes(ctx context.Context, stateDir string, say reporter) error {
	names, err := realNodeNames(stateDir)
	if err != nil {
		return err
	}
	return stopRealNodes(ctx, stateDir, names, say)
}

// stopProcesses ends all at once: the state is thrown away, so no process has
// to see the others' last words.
func stopProcesses(ctx context.Context, stateDir string, say reporter) error {
	records, err := process.List(stateDir)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, shutdownGrace)
	defer cancel()
	failures := make([]error, len(records))
	var stopping sync.WaitGroup
	for i, record := range records {
		stopping.Go(func() { failures[i] = process.Stop(ctx, stateDir, record.Name) })
	}
	stopping.Wait()
	say("%d processes are stopped", len(records))
	return errors.Join(failures...)
}

func endStrays(ctx context.Context, stateDir string, say reporter) error {
	strays, err := process.Strays(stateDir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, shutdownGrace)
	defer cancel()
	var failures []error
	for _, stray := range strays {
		failures = append(failures, stray.End(ctx))
		say("stray process %s (pid %d) is stopped", stray.Name, stray.PID)
	}
	return errors.Join(failures...)
}

// removeVolumes removes the directories of the host-path volumes that this
// cluster made. The audit log knows them even when the API server is dead.
func removeVolumes(stateDir string, say reporter) error {
	logs, err := filepath.Glob(filepath.Join(filepath.Dir(controlplane.AuditLogPath(stateDir)), "*.log"))
	if err != nil {
		return err
	}
	removed := 0
	for _, log := range logs {
		file, err := os.Open(log)
		if err != nil {
			return err
		}
		defer file.Close()
		directories, err := volumeDirectories(file)
		if err != nil {
			return fmt.Errorf("read %s: %w", log, err)
		}
		for _, directory := range directories {
			if _, err := os.Stat(directory); errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err := os.RemoveAll(directory); err != nil {
				return err
			}
			removed++
		}
	}
	if removed > 0 {
		say("%d host-path volumes are removed", removed)
	}
	// Another cluster's volumes may still be in it.
	_ = os.Remove(hostPathDirectory)
	return nil
}

// volumeDirectories reads from an audit log which host-path volumes were made.
func volumeDirectories(auditLog io.Reader) ([]string, error) {
	var directories []string
	reader := bufio.NewReader(auditLog)
	for {
		line, err := reader.ReadString('\n')
		if strings.Contains(line, hostPathDirectory) {
			if directory, ok := volumeDirectory(line); ok {
				directories = append(directories, directory)
			}
		}
		if errors.Is(err, io.EOF) {
			return directories, nil
		}
		if err != nil {
			return directories, err
		}
	}
}

func volumeDirectory(line string) (string, bool) {
	var event struct {
		Verb      string
		ObjectRef struct{ Resource string }
		// The answer, not the request: what was refused is not ours to remove.
		ResponseObject corev1.PersistentVolume
	}
	// The last line of a killed server may be cut short.
	if json.Unmarshal([]byte(line), &event) != nil || event.ObjectRef.Resource != "persistentvolumes" {
		return "", false
	}
	source := event.ResponseObject.Spec.HostPath
	if source == nil || filepath.Dir(filepath.Clean(source.Path)) != hostPathDirectory {
		return "", false
	}
	return filepath.Clean(source.Path), true
}
