package realnode

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	cgroupRoot   = "/sys/fs/cgroup"
	pollInterval = 20 * time.Millisecond
	// killGrace is how long the kernel may take to end processes after SIGKILL.
	killGrace = 15 * time.Second
)

// hierarchy is one mounted cgroup hierarchy: the only one of cgroup version 2,
// or one of the several of version 1.
type hierarchy struct {
	MountPoint string
	// Type is "cgroup" or "cgroup2".
	Type string
	// MountOptions names the controllers of a version 1 hierarchy.
	MountOptions string
}

// nodeHierarchy is a hierarchy with the directory of a node's cgroup in it.
type nodeHierarchy struct {
	hierarchy
	NodeDir string
}

func nodeHierarchies(l layout) ([]nodeHierarchy, error) {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroup hierarchies: %w", err)
	}
	var all []nodeHierarchy
	for _, h := range parseHierarchies(string(mountinfo)) {
		all = append(all, nodeHierarchy{hierarchy: h, NodeDir: filepath.Join(h.MountPoint, l.cgroup)})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("find cgroup hierarchies: none is mounted below %s", cgroupRoot)
	}
	return all, nil
}

// parseHierarchies reads /proc/self/mountinfo (proc(5)). A hierarchy that is
// mounted twice is taken once.
func parseHierarchies(mountinfo string) []hierarchy {
	var found []hierarchy
	seen := map[string]bool{}
	for _, line := range strings.Split(mountinfo, "\n") {
		before, after, ok := strings.Cut(line, " - ")
		mount, super := strings.Fields(before), strings.Fields(after)
		if !ok || len(mount) < 5 || len(super) < 3 {
			continue
		}
		device, mountPoint, fsType := mount[2], mount[4], super[0]
		isCgroup := fsType == "cgroup" || fsType == "cgroup2"
		inPlace := mountPoint == cgroupRoot || strings.HasPrefix(mountPoint, cgroupRoot+"/")
		if !isCgroup || !inPlace || seen[device] {
			continue
		}
		seen[device] = true
		h := hierarchy{MountPoint: mountPoint, Type: fsType}
		if fsType == "cgroup" {
			h.MountOptions = controllerOptions(super[2])
		}
		found = append(found, h)
	}
	return found
}

// controllerOptions keeps of a version 1 hierarchy's options those that say
// which hierarchy it is.
func controllerOptions(superOptions string) string {
	var kept []string
	named := false
	for _, option := range strings.Split(superOptions, ",") {
		key, _, _ := strings.Cut(option, "=")
		switch key {
		case "rw", "ro", "xattr", "clone_children", "noprefix", "release_agent", "cpuset_v2_mode", "favordynmods":
		case "name":
			named = true
			kept = append(kept, option)
		default:
			kept = append(kept, option)
		}
	}
	if named && len(kept) == 1 {
		return "none," + kept[0]
	}
	return strings.Join(kept, ",")
}

// createCgroups makes the node's cgroup and, in it, the one of its programs.
func createCgroups(hierarchies []nodeHierarchy) error {
	for _, h := range hierarchies {
		if h.Type == "cgroup2" {
			if err := enableControllers(h.MountPoint); err != nil {
				return err
			}
		}
		for _, dir := range []string{h.NodeDir, filepath.Join(h.NodeDir, "system")} {
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("create cgroup: %w", err)
			}
			if err := inheritCPUSet(dir); err != nil {
				return err
			}
		}
		if h.Type == "cgroup2" && h.MountPoint == cgroupRoot {
			if err := checkControllers(h.NodeDir); err != nil {
				return err
			}
		}
	}
	return nil
}

// neededControllers are those that a kubelet does not start without.
var neededControllers = []string{"cpu", "cpuset", "memory", "pids"}

// checkControllers reports what a version 2 cgroup did not get.
func checkControllers(dir string) error {
	available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("check cgroup controllers: %w", err)
	}
	for _, controller := range neededControllers {
		if !slices.Contains(strings.Fields(string(available)), controller) {
			return fmt.Errorf("the kernel does not hand the cgroup controller %q on from %s: inside a container, its root cgroup must hold no processes", controller, filepath.Dir(dir))
		}
	}
	return nil
}

// enableControllers lets the children of a version 2 cgroup use all its
// controllers. One by one: a controller may refuse without harm to the others.
func enableControllers(dir string) error {
	available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("enable cgroup controllers: %w", err)
	}
	for _, controller := range strings.Fields(string(available)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
	}
	return nil
}

// inheritCPUSet fills a new version 1 cpuset, which takes no process while it
// is empty.
func inheritCPUSet(dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		path := filepath.Join(dir, file)
		current, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || strings.TrimSpace(string(current)) != "" {
			continue
		}
		parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if err != nil || len(strings.TrimSpace(string(parent))) == 0 {
			continue // version 2, where empty means the parent's
		}
		if err := os.WriteFile(path, parent, 0o644); err != nil {
			return fmt.Errorf("inherit cpuset: %w", err)
		}
	}
	return nil
}

// killCgroups ends every process in the node's cgroups.
func killCgroups(ctx context.Context, hierarchies []nodeHierarchy) error {
	deadline := time.Now().Add(killGrace)
	for {
		pids := processesIn(hierarchies)
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("end the node's processes: %v are still there %s after SIGKILL", pids, killGrace)
		}
		thaw(hierarchies)
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err := pause(ctx, pollInterval); err != nil {
			return fmt.Errorf("end the node's processes: %w", err)
		}
	}
}

func processesIn(hierarchies []nodeHierarchy) []int {
	found := map[int]bool{}
	for _, h := range hierarchies {
		for _, dir := range cgroupsBelow(h.NodeDir) {
			content, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if err != nil {
				continue // removed meanwhile
			}
			for _, field := range strings.Fields(string(content)) {
				if pid, err := strconv.Atoi(field); err == nil && pid != 0 && pid != os.Getpid() {
					found[pid] = true
				}
			}
		}
	}
	pids := make([]int, 0, len(found))
	for pid := range found {
		pids = append(pids, pid)
	}
	sort.Ints(pids)
	return pids
}

// thaw lets frozen processes run to their end: those of a frozen version 1
// cgroup do not even die.
func thaw(hierarchies []nodeHierarchy) {
	for _, h := range hierarchies {
		for _, dir := range cgroupsBelow(h.NodeDir) {
			writeExisting(filepath.Join(dir, "freezer.state"), "THAWED")
			writeExisting(filepath.Join(dir, "cgroup.freeze"), "0")
		}
	}
}

func writeExisting(path, content string) {
	if file, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
		_, _ = file.WriteString(content)
		_ = file.Close()
	}
}

// cgroupsBelow lists a cgroup and all in it, parents first.
func cgroupsBelow(dir string) []string {
	var found []string
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // removed meanwhile
		}
		if entry.IsDir() {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// removeCgroups removes the node's cgroups. The kernel refuses for a moment
// after the last process has ended.
func removeCgroups(ctx context.Context, hierarchies []nodeHierarchy) error {
	deadline := time.Now().Add(killGrace)
	for {
		var lastErr error
		for _, h := range hierarchies {
			dirs := cgroupsBelow(h.NodeDir)
			for i := len(dirs) - 1; i >= 0; i-- {
				if err := os.Remove(dirs[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
					lastErr = err
				}
			}
		}
		if lastErr == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove the node's cgroups: %w", lastErr)
		}
		if err := pause(ctx, pollInterval); err != nil {
			return fmt.Errorf("remove the node's cgroups: %w", err)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
