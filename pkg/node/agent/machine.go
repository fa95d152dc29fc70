package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"k8s.io/apimachinery/pkg/types"

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

// errNoProcess says that a pod or a container has no process here, or not yet.
var errNoProcess = errors.New("the pod has no process on this node")

// Where containerd's shim for runc keeps what it knows of a container
// (github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2), and runc.
const (
	bundles  = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
	runcRoot = "/run/containerd/runc/k8s.io"
)

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

// members are the processes in the cgroups of a container.
func (m Machine) members(id string) []int {
	entries, err := os.ReadDir(m.Proc)
	if err != nil {
		return nil
	}
	var members []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		cgroups, err := os.ReadFile(filepath.Join(m.Proc, entry.Name(), "cgroup"))
		if err == nil && bytes.Contains(cgroups, []byte(id)) {
			members = append(members, pid)
		}
	}
	return members
}

func (m Machine) parent(pid int) (int, error) {
	value, err := m.statusField(pid, "PPid:")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(value)
}

// statusField reads the first word of a line of /proc/<pid>/status.
func (m Machine) statusField(pid int, name string) (string, error) {
	content, err := os.ReadFile(filepath.Join(m.Proc, strconv.Itoa(pid), "status"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(content)) {
		if value, found := strings.CutPrefix(line, name); found {
			if words := strings.Fields(value); len(words) > 0 {
				return words[0], nil
			}
		}
	}
	return "", fs.ErrNotExist
}

// runtimeInfo is what a container runtime knows of a running container.
type runtimeInfo struct {
	// id of the container.
	id string
	// init is its first process, shim the process that the runtime left with it.
	init, shim int
	// host is the node's root directory, as the shim sees it.
	host string
	// runtime is the program that containerd calls instead of runc, on the host.
	runtime string
	proc    string
}

// runtimeInfo finds a container. The error is errNoProcess when it does not run.
func (m Machine) runtimeInfo(id string) (*runtimeInfo, error) {
	if id == "" {
		return nil, errNoProcess
	}
	members := m.members(id)
	for _, pid := range members {
		parent, err := m.parent(pid)
		if err != nil || slices.Contains(members, parent) || parent <= 1 {
			continue
		}
		p := &runtimeInfo{id: id, shim: parent, host: filepath.Join(m.Proc, strconv.Itoa(parent), "root"), proc: m.Proc}
		if err := p.read(); err == nil {
			return p, nil
		}
	}
	return nil, errNoProcess
}

// read takes what the shim has written down.
func (p *runtimeInfo) read() error {
	content, err := os.ReadFile(p.bundle("init.pid"))
	if err != nil {
		return err
	}
	if p.init, err = strconv.Atoi(strings.TrimSpace(string(content))); err != nil {
		return err
	}
	var options struct {
		BinaryName string `json:"binary_name"`
	}
	if content, err = os.ReadFile(p.bundle("options.json")); err != nil {
		return err
	}
	if err := json.Unmarshal(content, &options); err != nil {
		return err
	}
	p.runtime = options.BinaryName
	return nil
}

func (p *runtimeInfo) bundle(name string) string { return filepath.Join(p.host, bundles, p.id, name) }

// Layer implements nodeOps. The path is as the agent reaches it.
func (m Machine) Layer(container string) (string, error) {
	p, err := m.runtimeInfo(container)
	if err != nil {
		return "", err
	}
	return p.layer()
}

func (p *runtimeInfo) layer() (string, error) {
	file, err := os.Open(filepath.Join(p.proc, strconv.Itoa(p.init), "mountinfo"))
	if err != nil {
		return "", err
	}
	defer file.Close()
	roots, err := mountinfo.GetMountsFromReader(file, func(i *mountinfo.Info) (skip, stop bool) {
		return i.Mountpoint != "/" || i.FSType != "overlay", false
	})
	if err != nil {
		return "", err
	}
	for _, root := range roots {
		for option := range strings.SplitSeq(root.VFSOptions, ",") {
			upper, found := strings.CutPrefix(option, "upperdir=")
			if !found || !filepath.IsAbs(upper) {
				continue
			}
			// The kernel escapes options as it escapes paths (seq_show_option), and
			// mountinfo leaves them so. Octal escapes are those of Go.
			if upper, err = strconv.Unquote(`"` + strings.ReplaceAll(upper, `"`, `\042`) + `"`); err != nil {
				return "", fmt.Errorf("reading the mount options of container %s: %w", p.id, err)
			}
			return filepath.Join(p.host, upper), nil
		}
	}
	return "", fmt.Errorf("the root of container %s is no overlay with a writable layer", p.id)
}

// SharedMemory implements nodeOps. The path is as the agent reaches it.
func (m Machine) SharedMemory(container string) (string, error) {
	p, err := m.runtimeInfo(container)
	if err != nil {
		return "", err
	}
	return p.sharedMemory()
}

func (p *runtimeInfo) sharedMemory() (string, error) {
	content, err := os.ReadFile(p.bundle("config.json"))
	if err != nil {
		return "", err
	}
	var config struct {
		Mounts []struct {
			Destination string `json:"destination"`
			Source      string `json:"source"`
		} `json:"mounts"`
	}
	if err := json.Unmarshal(content, &config); err != nil {
		return "", fmt.Errorf("reading the configuration of container %s: %w", p.id, err)
	}
	for _, mount := range config.Mounts {
		if mount.Destination == "/dev/shm" && filepath.IsAbs(mount.Source) {
			return filepath.Join(p.host, mount.Source), nil
		}
	}
	return "", errors.New("the pod has no /dev/shm")
}
