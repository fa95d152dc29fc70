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
)

// Where containerd's shim for runc keeps what it knows of a container
// (github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2), and runc.
const (
	bundles  = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
	runcRoot = "/run/containerd/runc/k8s.io"
)

// place is where a running container is on its node.
type place struct {
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

// place finds a container. The error is errNoProcess when it does not run.
func (m Machine) place(id string) (*place, error) {
	if id == "" {
		return nil, errNoProcess
	}
	members := m.members(id)
	for _, pid := range members {
		parent, err := m.parent(pid)
		if err != nil || slices.Contains(members, parent) || parent <= 1 {
			continue
		}
		p := &place{id: id, shim: parent, host: filepath.Join(m.Proc, strconv.Itoa(parent), "root"), proc: m.Proc}
		if err := p.read(); err == nil {
			return p, nil
		}
	}
	return nil, errNoProcess
}

// read takes what the shim has written down.
func (p *place) read() error {
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

func (p *place) bundle(name string) string { return filepath.Join(p.host, bundles, p.id, name) }

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

// layer is the writable layer of the container, as the agent reaches it.
func (p *place) layer() (string, error) {
	content, err := os.ReadFile(filepath.Join(p.proc, strconv.Itoa(p.init), "mountinfo"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(content)) {
		// proc_pid_mountinfo(5): the mount point is fifth; after the dash come the
		// type, the source and the options of the file system.
		before, after, _ := strings.Cut(line, " - ")
		words, of := strings.Fields(before), strings.Fields(after)
		if len(words) < 5 || words[4] != "/" || len(of) < 3 || of[0] != "overlay" {
			continue
		}
		for option := range strings.SplitSeq(of[2], ",") {
			if upper, found := strings.CutPrefix(option, "upperdir="); found && filepath.IsAbs(upper) {
				return filepath.Join(p.host, unescape(upper)), nil
			}
		}
	}
	return "", fmt.Errorf("the root of container %s is no overlay with a writable layer", p.id)
}

// Layer is the writable layer of a running container, as the agent reaches it.
func (m Machine) Layer(container string) (string, error) {
	p, err := m.place(container)
	if err != nil {
		return "", err
	}
	return p.layer()
}

// SharedMemory is the /dev/shm of the pod of a running container.
func (m Machine) SharedMemory(container string) (string, error) {
	p, err := m.place(container)
	if err != nil {
		return "", err
	}
	return p.sharedMemory()
}

// unescape undoes the octal escapes of mountinfo.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// sharedMemory is the pod's /dev/shm, as the agent reaches it.
func (p *place) sharedMemory() (string, error) {
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
