package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
)

// FreezeContainers stops all processes of containers, each at its own cgroup:
// CRIU thaws that one for as long as it holds every process by ptrace, and puts
// it back. It returns when all stand still.
func (m Machine) FreezeContainers(ctx context.Context, pod types.UID, containers []string) error {
	ctx, cancel := context.WithTimeout(ctx, freezeTimeout)
	defer cancel()
	freezers, err := m.containerFreezers(pod, containers)
	if err == nil {
		err = wait.Backoff{Duration: execProbeTime}.DelayFunc().Until(ctx, true, true, func(ctx context.Context) (bool, error) {
			if err := freezeAll(ctx, freezers); err != nil {
				return false, err
			}
			if !m.hasExecProbes(containers) {
				return true, nil
			}
			// Such a process ends soon, once it can. What counts is the last freezing.
			return false, thawAll(freezers)
		})
	}
	if err != nil {
		return fmt.Errorf("freezing the containers: %w", err)
	}
	return nil
}

// execProbeTime is how long an exec probe of the kubelet runs before the container
// is frozen again.
const execProbeTime = 20 * time.Millisecond

// hasExecProbes reports whether a container has a process that its own first
// process did not start, such as that of an exec probe: CRIU dumps one tree.
func (m Machine) hasExecProbes(containers []string) bool {
	return slices.ContainsFunc(containers, func(id string) bool {
		p, err := m.place(id)
		if err != nil {
			return false
		}
		members := m.members(id)
		return slices.ContainsFunc(members, func(pid int) bool {
			parent, err := m.parent(pid)
			return pid != p.init && err == nil && !slices.Contains(members, parent)
		})
	})
}

func thawAll(freezers []freezer) error {
	var failures []error
	for _, f := range freezers {
		failures = append(failures, f.set(false))
	}
	return errors.Join(failures...)
}

// StandStill reports whether all containers are frozen.
func (m Machine) StandStill(pod types.UID, containers []string) error {
	freezers, err := m.containerFreezers(pod, containers)
	if err != nil {
		return err
	}
	for _, f := range freezers {
		if frozen, err := f.isFrozen(); err != nil || !frozen {
			return errors.Join(err, fmt.Errorf("cgroup %s was thawed", filepath.Base(f.directory)))
		}
	}
	return nil
}

func (m Machine) containerFreezers(pod types.UID, containers []string) ([]freezer, error) {
	parent, err := m.freezer(pod)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(parent.directory)
	if err != nil {
		return nil, err
	}
	var found []freezer
	for _, id := range containers {
		i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.IsDir() && strings.Contains(e.Name(), id) })
		if i < 0 {
			return nil, errNoProcess
		}
		found = append(found, freezer{directory: filepath.Join(parent.directory, entries[i].Name()), v1: parent.v1})
	}
	return found, nil
}

// thawContainers thaws what was frozen below a pod. One that is gone needs none.
func thawContainers(parent freezer) error {
	entries, err := os.ReadDir(parent.directory)
	if err != nil {
		return err
	}
	var failures []error
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		if err := (freezer{directory: filepath.Join(parent.directory, entry.Name()), v1: parent.v1}).set(false); !errors.Is(err, fs.ErrNotExist) {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

// LetGo lets the processes of restored containers go on, which CRIU left stopped.
func (m Machine) LetGo(container string) error {
	for _, pid := range m.members(container) {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("letting process %d go on: %w", pid, err)
		}
	}
	return nil
}
