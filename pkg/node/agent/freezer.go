package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	// freezeTimeout bounds the freezing itself: a process in an uninterruptible
	// system call does not freeze before that ends.
	freezeTimeout = 10 * time.Second
	// freezePoll is how often the kernel is asked whether all are frozen.
	freezePoll = time.Millisecond
)

// freezer is the cgroup of a pod where it can be frozen.
type freezer struct {
	directory string
	// v1 is true for version 1 of cgroups, false for 2.
	v1 bool
}

func (m Machine) freezer(pod types.UID) (freezer, error) {
	root, v1 := filepath.Join(m.Cgroup, "freezer"), true
	if _, err := os.Stat(root); err != nil {
		root, v1 = m.Cgroup, false
	}
	var found string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil //nolint:nilerr // removed meanwhile, or no cgroup
		}
		for _, name := range cgroupNames(pod) {
			if strings.Contains(entry.Name(), name) {
				found = path
				return fs.SkipAll
			}
		}
		return nil
	})
	if err != nil {
		return freezer{}, err
	}
	if found == "" {
		return freezer{}, errNoProcess
	}
	return freezer{directory: found, v1: v1}, nil
}

// Freeze implements nodeOps.
func (m Machine) Freeze(ctx context.Context, pod types.UID) error {
	f, err := m.freezer(pod)
	if err == nil {
		err = freezeAll(ctx, []freezer{f})
	}
	if err != nil {
		return fmt.Errorf("freezing the pod: %w", err)
	}
	return nil
}

// freezeAll returns when all are frozen at the same time. The error is
// context.DeadlineExceeded after freezeTimeout: what could be frozen stays so.
func freezeAll(ctx context.Context, freezers []freezer) error {
	return wait.PollUntilContextTimeout(ctx, freezePoll, freezeTimeout, true, func(context.Context) (bool, error) {
		for _, f := range freezers {
			if err := f.set(true); err != nil {
				return false, err
			}
		}
		for _, f := range freezers {
			if frozen, err := f.isFrozen(); err != nil || !frozen {
				return false, err
			}
		}
		return true, nil
	})
}

// Thaw implements nodeOps.
func (m Machine) Thaw(pod types.UID) error {
	f, err := m.freezer(pod)
	if errors.Is(err, errNoProcess) {
		return nil
	}
	if err == nil {
		err = errors.Join(f.set(false), thawContainers(f))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("thawing the pod: %w", err)
	}
	return nil
}

// Kill implements nodeOps. No signal that was sent earlier is handled first, since
// SIGKILL goes before all others (signal(7)).
func (m Machine) Kill(pod types.UID) error {
	f, err := m.freezer(pod)
	if errors.Is(err, errNoProcess) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("killing the pod: %w", err)
	}
	return filepath.WalkDir(f.directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "cgroup.procs" {
			return nil //nolint:nilerr // removed meanwhile
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // removed meanwhile
		}
		for field := range bytes.FieldsSeq(content) {
			// A process that this PID namespace cannot see has number 0, which would
			// mean our own group.
			if pid, err := strconv.Atoi(string(field)); err == nil && pid > 1 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return nil
	})
}

// set writes the wanted state. In version 1 the runtime's own freezing of a
// container is another level and stays as it is.
func (f freezer) set(frozen bool) error {
	name, value := "cgroup.freeze", "0"
	if frozen {
		value = "1"
	}
	if f.v1 {
		name, value = "freezer.state", "THAWED"
		if frozen {
			value = "FROZEN"
		}
	}
	return os.WriteFile(filepath.Join(f.directory, name), []byte(value), 0)
}

func (f freezer) isFrozen() (bool, error) {
	if f.v1 {
		state, err := os.ReadFile(filepath.Join(f.directory, "freezer.state"))
		return strings.TrimSpace(string(state)) == "FROZEN", err
	}
	events, err := os.ReadFile(filepath.Join(f.directory, "cgroup.events"))
	return bytes.Contains(events, []byte("frozen 1")), err
}

// podState is how a pod stands.
type podState struct {
	// Frozen: whatever starts in it is frozen too.
	Frozen bool
	// Containers are the names of the cgroups below its own that have processes, sorted.
	// A container that is started again has another one.
	Containers []string
}

// State implements nodeOps.
func (m Machine) State(pod types.UID) (podState, error) {
	f, err := m.freezer(pod)
	if errors.Is(err, errNoProcess) {
		return podState{Frozen: true}, nil
	}
	if err != nil {
		return podState{}, fmt.Errorf("looking at the pod: %w", err)
	}
	var state podState
	if state.Frozen, err = f.isSet(); err != nil {
		return podState{}, fmt.Errorf("looking at the pod: %w", err)
	}
	entries, err := os.ReadDir(f.directory)
	if err != nil {
		return podState{}, fmt.Errorf("looking at the pod: %w", err)
	}
	for _, entry := range entries {
		if entry.IsDir() && isPopulated(filepath.Join(f.directory, entry.Name())) {
			state.Containers = append(state.Containers, entry.Name())
		}
	}
	return state, nil
}

// isSet reports whether the cgroup is to be frozen. A process that joins it, such as that
// of a probe, is frozen a moment later: for that long the cgroup is not frozen as a whole.
func (f freezer) isSet() (bool, error) {
	name, thawed := "cgroup.freeze", "0"
	if f.v1 {
		name, thawed = "freezer.state", "THAWED"
	}
	state, err := os.ReadFile(filepath.Join(f.directory, name))
	return strings.TrimSpace(string(state)) != thawed, err
}

// isPopulated reports whether a cgroup, or one below it, has processes.
func isPopulated(directory string) bool {
	found := false
	_ = filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "cgroup.procs" {
			return nil //nolint:nilerr // removed meanwhile
		}
		if content, err := os.ReadFile(path); err == nil && len(bytes.TrimSpace(content)) > 0 {
			found = true
			return fs.SkipAll
		}
		return nil
	})
	return found
}

// Boot implements nodeOps (random(4)).
func (m Machine) Boot() (string, error) {
	id, err := os.ReadFile(filepath.Join(m.Proc, "sys/kernel/random/boot_id"))
	if err != nil {
		return "", fmt.Errorf("reading the boot ID: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// FreezeContainers implements nodeOps. Each container is frozen at its own cgroup: CRIU
// thaws that one for as long as it holds every process by ptrace, and freezes it again.
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
		p, err := m.runtimeInfo(id)
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

// CheckFrozen implements nodeOps.
func (m Machine) CheckFrozen(pod types.UID, containers []string) error {
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

// Processes implements nodeOps.
func (m Machine) Processes(container string) (alive, stopped int) {
	for _, pid := range m.members(container) {
		switch state, err := m.statusField(pid, "State:"); {
		case err != nil || state == "Z" || state == "X":
		case state == "T":
			stopped++
			alive++
		default:
			alive++
		}
	}
	return alive, stopped
}

// Continue implements nodeOps. CRIU left the processes stopped.
func (m Machine) Continue(container string) error {
	for _, pid := range m.members(container) {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("continuing process %d: %w", pid, err)
		}
	}
	return nil
}
