package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"k8s.io/apimachinery/pkg/types"
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
	// sandboxes are the pods, as containerd's plugin for Kubernetes keeps them.
	sandboxes = "/run/containerd/io.containerd.grpc.v1.cri/sandboxes"
)

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
		if err == nil && m.parentCgroup(pid, id) != "" {
			members = append(members, pid)
		}
	}
	return members
}

// parentCgroup is the name of the cgroup that has the cgroup of a container, that of its pod;
// "" where the process is in none of the container's. A container runtime names a cgroup
// "<id>" or "cri-containerd-<id>.scope".
func (m Machine) parentCgroup(pid int, id string) string {
	for _, names := range m.cgroupsOf(pid) {
		for i := 1; i < len(names); i++ {
			name := strings.TrimSuffix(names[i], ".scope")
			if name == id || strings.HasSuffix(name, "-"+id) {
				return names[i-1]
			}
		}
	}
	return ""
}

// cgroupsOf are the paths of the cgroups of a process, name by name.
func (m Machine) cgroupsOf(pid int) [][]string {
	content, err := os.ReadFile(filepath.Join(m.Proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return nil
	}
	var paths [][]string
	for line := range strings.Lines(string(content)) {
		// hierarchy:controllers:path (cgroups(7))
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 {
			paths = append(paths, strings.Split(parts[2], "/"))
		}
	}
	return paths
}

// isInCgroup reports whether a process is in a cgroup of this name, or below one.
func (m Machine) isInCgroup(pid int, name string) bool {
	return slices.ContainsFunc(m.cgroupsOf(pid), func(names []string) bool { return slices.Contains(names, name) })
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
	if !containerPattern.MatchString(id) {
		return nil, errNoProcess
	}
	members := m.members(id)
	for _, pid := range members {
		parent, err := m.parent(pid)
		if err != nil || slices.Contains(members, parent) || parent <= 1 {
			continue
		}
		// A shim is in no cgroup of a pod. What is beside the container was started by a
		// container that may make cgroups, and names them as it likes.
		if m.isInCgroup(parent, m.parentCgroup(pid, id)) {
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

// Layer implements nodeOps.
func (m Machine) Layer(container string) (root, path string, err error) {
	p, err := m.runtimeInfo(container)
	if err != nil {
		return "", "", err
	}
	return p.layer()
}

// layerPath is where containerd's snapshotter for overlays has the layers, beneath its root
// directory.
var layerPath = regexp.MustCompile(`^(/.*)/(io\.containerd\.snapshotter\.v1\.overlayfs/snapshots/[0-9]+/fs)$`)

// layer reads the mounts that the shim sees, where it has mounted the root of the container
// for itself. What the container sees it can change: in a user namespace of its own it may
// mount an overlay with a layer of its choice.
func (p *runtimeInfo) layer() (root, path string, err error) {
	file, err := os.Open(filepath.Join(p.proc, strconv.Itoa(p.shim), "mountinfo"))
	if err != nil {
		return "", "", err
	}
	defer file.Close()
	rootfs := filepath.Join(bundles, p.id, "rootfs")
	mounts, err := mountinfo.GetMountsFromReader(file, func(i *mountinfo.Info) (skip, stop bool) {
		return i.Mountpoint != rootfs || i.FSType != "overlay", false
	})
	if err != nil {
		return "", "", err
	}
	for _, mount := range mounts {
		for option := range strings.SplitSeq(mount.VFSOptions, ",") {
			upper, found := strings.CutPrefix(option, "upperdir=")
			if !found {
				continue
			}
			// The kernel escapes options as it escapes paths (seq_show_option), and
			// mountinfo leaves them so. Octal escapes are those of Go.
			if upper, err = strconv.Unquote(`"` + strings.ReplaceAll(upper, `"`, `\042`) + `"`); err != nil {
				return "", "", fmt.Errorf("reading the mount options of container %s: %w", p.id, err)
			}
			parts := layerPath.FindStringSubmatch(filepath.Clean(upper))
			if parts == nil {
				return "", "", fmt.Errorf("the writable layer of container %s is %s, which is no snapshot of containerd", p.id, upper)
			}
			return filepath.Join(p.host, parts[1]), parts[2], nil
		}
	}
	return "", "", fmt.Errorf("the root of container %s is no overlay with a writable layer", p.id)
}

// SharedMemory implements nodeOps.
func (m Machine) SharedMemory(container string) (root, path string, err error) {
	p, err := m.runtimeInfo(container)
	if err != nil {
		return "", "", err
	}
	return p.sharedMemory(m.KubeletRoot)
}

// sharedMemory takes the source of the mount at /dev/shm from the bundle, which the shim has
// made: that of the sandbox, or a volume of the pod.
func (p *runtimeInfo) sharedMemory(kubelet string) (root, path string, err error) {
	content, err := os.ReadFile(p.bundle("config.json"))
	if err != nil {
		return "", "", err
	}
	var config struct {
		Mounts []struct {
			Destination string `json:"destination"`
			Source      string `json:"source"`
		} `json:"mounts"`
	}
	if err := json.Unmarshal(content, &config); err != nil {
		return "", "", fmt.Errorf("reading the configuration of container %s: %w", p.id, err)
	}
	for _, mount := range config.Mounts {
		if mount.Destination != "/dev/shm" {
			continue
		}
		for _, root := range []string{sandboxes, filepath.Join(kubelet, "pods")} {
			if path, found := strings.CutPrefix(filepath.Clean(mount.Source), root+"/"); found {
				return filepath.Join(p.host, root), path, nil
			}
		}
		return "", "", fmt.Errorf("/dev/shm of container %s is %s, which is of no pod", p.id, mount.Source)
	}
	return "", "", errors.New("the pod has no /dev/shm")
}
