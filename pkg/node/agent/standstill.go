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
)

// FreezeContainers stops all processes of containers, each at its own cgroup:
// CRIU thaws that one for as long as it holds every process by ptrace, and puts
// it back. It returns when all stand still.
func (m Machine) FreezeContainers(ctx context.Context, pod types.UID, containers []string) error {
	freezers, err := m.containerFreezers(pod, containers)
	if err == nil {
		err = freezeAll(ctx, freezers, func() (bool, error) {
			if !m.haveVisitors(containers) {
				return true, nil
			}
			// Such a process ends soon, once it can. What counts is the last freezing.
			if err := thawAll(freezers); err != nil {
				return false, err
			}
			time.Sleep(visit)
			return false, nil
		})
	}
	if err != nil {
		return fmt.Errorf("freezing the containers: %w", err)
	}
	return nil
}

// visit is how long a probe of the kubelet may take between two looks.
const visit = 20 * time.Millisecond

// haveVisitors reports whether a container has a process that its own first
// process did not start, such as that of an exec probe: CRIU dumps one tree.
func (m Machine) haveVisitors(containers []string) bool {
	return slices.ContainsFunc(containers, func(id string) bool {
		p, err := m.place(id)
		return err == nil && m.hasVisitors(p)
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
