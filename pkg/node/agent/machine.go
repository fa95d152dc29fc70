package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Machine finds the volumes and the processes of pods on a node of Linux.
type Machine struct {
	// KubeletRoot is the root directory of the kubelet, "/var/lib/kubelet".
	KubeletRoot string
	// Proc is where processes are seen, "/proc" in the node's PID namespace.
	Proc string
	// Cgroup is where the node's cgroups are mounted, "/sys/fs/cgroup".
	Cgroup string
}

// errNoProcess says that the processes of a pod are not there, or not yet.
var errNoProcess = errors.New("the pod has no process on this node")

// EmptyDir is the directory of an emptyDir of a pod
// (k8s.io/kubernetes/pkg/volume/emptydir).
func (m Machine) EmptyDir(pod types.UID, volume string) string {
	return filepath.Join(m.KubeletRoot, "pods", string(pod), "volumes", "kubernetes.io~empty-dir", volume)
}

// ClaimDirectory is where a process of the pod sees the checkpoint claim. container,
// when not empty, is the ID of the container to look at. The error is
// errNoProcess while it does not run.
func (m Machine) ClaimDirectory(pod types.UID, container string) (string, error) {
	processes, err := os.ReadDir(m.Proc)
	if err != nil {
		return "", err
	}
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		cgroups, err := os.ReadFile(filepath.Join(m.Proc, p.Name(), "cgroup"))
		if err != nil || !isOfPod(cgroups, pod) || !bytes.Contains(cgroups, []byte(container)) {
			continue // another pod's, or gone meanwhile
		}
		directory := filepath.Join(m.Proc, p.Name(), "root", v1alpha1.CheckpointMountPath)
		if _, err := os.Stat(directory); err == nil {
			return directory, nil
		}
	}
	return "", errNoProcess
}

func isOfPod(cgroups []byte, pod types.UID) bool {
	for _, name := range cgroupNames(pod) {
		if bytes.Contains(cgroups, []byte(name)) {
			return true
		}
	}
	return false
}

// cgroupNames are how the kubelet names the cgroup of a pod with its two
// drivers, cgroupfs and systemd (k8s.io/kubernetes/pkg/kubelet/cm).
func cgroupNames(pod types.UID) []string {
	return []string{"pod" + string(pod), "pod" + strings.ReplaceAll(string(pod), "-", "_")}
}

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
	// v1 tells cgroup version 1 from 2.
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
			return nil // removed meanwhile, or no cgroup
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

// Freeze stops all processes of a pod and returns when they stand still.
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

// Thaw lets a pod go on. One that is gone needs none.
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

// Kill ends the processes of a frozen pod. They die when they are thawed, before
// they take another step: no signal that was sent earlier is handled first, since
// SIGKILL goes before all others (signal(7)).
func (m Machine) Kill(pod types.UID) error {
	f, err := m.freezer(pod)
	if errors.Is(err, errNoProcess) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ending the pod: %w", err)
	}
	return filepath.WalkDir(f.directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "cgroup.procs" {
			return nil // removed meanwhile
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return nil
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
