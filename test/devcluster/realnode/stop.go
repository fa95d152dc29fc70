package realnode

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/ai-storage/orchestrator/test/devcluster/process"
)

// Find returns the names of the nodes of a state directory that run or left
// something, sorted. It asks the machine, so it knows them even when the state
// directory is gone.
func Find(stateDir string) ([]string, error) {
	stateDir, err := filepath.Abs(stateDir)
	if err != nil {
		return nil, fmt.Errorf("find nodes: %w", err)
	}
	aliases, err := filepath.Glob("/sys/class/net/" + bridgePrefix + "*/ifalias")
	if err != nil {
		return nil, fmt.Errorf("find nodes: %w", err)
	}
	var nodes []string
	for _, file := range aliases {
		alias, err := os.ReadFile(file)
		if err != nil {
			continue // removed meanwhile
		}
		if node, found := nodeOfAlias(strings.TrimSuffix(string(alias), "\n"), stateDir); found {
			nodes = append(nodes, node)
		}
	}
	sort.Strings(nodes)
	return nodes, nil
}

// bridgeAlias tells, on the bridge itself, whose it is. The kernel keeps 255
// bytes, too few for some paths.
func bridgeAlias(l layout) string { return l.node + " " + shortHash(l.stateDir) }

func nodeOfAlias(alias, stateDir string) (string, bool) {
	node, mark, found := strings.Cut(alias, " ")
	return node, found && mark == shortHash(stateDir)
}

// Stop ends every process of a node and removes its mounts, bridge, cgroups
// and files. It needs no more than the state directory's path and the node's
// name, and does no harm when there is no such node.
func Stop(ctx context.Context, o Options) error {
	l, err := newLayout(o.StateDir, o.Name)
	if err != nil {
		return err
	}
	hierarchies, err := nodeHierarchies(l)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return killRecorded(l) },
		func() error { return killCgroups(ctx, hierarchies) },
		func() error { return removeCgroups(ctx, hierarchies) },
		func() error { return unmountBelow(ctx, l.dir) },
		func() error { return removeDirectory(ctx, l.dir) },
		// After all else that belongs to the node: Find goes by the bridges.
		func() error { return deleteBridge(ctx, l) },
		restoreMachine,
	} {
		if err := step(); err != nil {
			return fmt.Errorf("stop node %s: %w", o.Name, err)
		}
	}
	return nil
}

func killRecorded(l layout) error {
	for _, name := range l.processes() {
		if err := process.Kill(l.stateDir, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// unmountBelow unmounts what the machine itself sees mounted in the node's
// directory. There should be nothing: a node's mounts are its own. But removing
// the directory must never reach into a volume of others.
func unmountBelow(ctx context.Context, dir string) error {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(string(mountinfo), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(lines[i])
		if len(fields) < 5 {
			continue
		}
		if path := unescapeMountPoint(fields[4]); strings.HasPrefix(path, dir+"/") {
			if err := run(ctx, "umount", "--lazy", path); err != nil {
				return err
			}
		}
	}
	return nil
}

// unescapeMountPoint undoes the kernel's octal escapes (proc(5)).
func unescapeMountPoint(escaped string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(escaped)
}

// removeDirectory removes the node's directory. The last process's mounts may take
// a moment to go.
func removeDirectory(ctx context.Context, dir string) error {
	deadline := time.Now().Add(killGrace)
	for {
		err := os.RemoveAll(dir)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		if pauseErr := pause(ctx, pollInterval); pauseErr != nil {
			return errors.Join(err, pauseErr)
		}
	}
}
