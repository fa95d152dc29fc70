package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/ai-storage/orchestrator/test/devcluster/controlplane"
	"github.com/ai-storage/orchestrator/test/devcluster/image"
	"github.com/ai-storage/orchestrator/test/devcluster/realnode"
)

// startRealNodes starts one node after the other: a machine that can hold them
// is not faster when they all start at once.
func (b *bringUp) startRealNodes(ctx context.Context) error {
	archives, err := image.BuildLocal(b.BinDir, filepath.Join(b.StateDir, "images"))
	if err != nil {
		return fmt.Errorf("build images: %w", err)
	}
	b.say("images for pods are built")
	for i, name := range b.Nodes.Names() {
		if _, err := b.credentials.NodeKubeconfig(name); err != nil {
			return err
		}
		options := realNodeOptions(b.StateDir, b.BinDir, name, i)
		options.Images, options.Log, options.WithoutHandler = append(archives, b.Images...), b.say, b.WithoutHandler
		if err := realnode.Start(ctx, options); err != nil {
			return err
		}
		b.say("node %s is started", name)
	}
	return nil
}

func realNodeOptions(stateDir, binDir, name string, index int) realnode.Options {
	return realnode.Options{
		Name: name, Index: index, StateDir: stateDir, BinDir: binDir,
		Kubeconfig:   controlplane.NodeKubeconfigPath(stateDir, name),
		ClientCAFile: controlplane.CertificatePath(stateDir, "ca"),
	}
}

// NodeCgroups are the names of the real nodes' cgroups, in every hierarchy of the
// machine: clusters share it.
func (c *Cluster) NodeCgroups() (names []string, err error) {
	for _, node := range c.state.Nodes.Names() {
		name, err := realnode.Cgroup(c.stateDir, node)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// KillNode ends a real node with all that runs on it, as a power cut would. Its
// node object stays, and its disk is lost.
func (c *Cluster) KillNode(ctx context.Context, name string) error {
	return realnode.Stop(ctx, realnode.Options{Name: name, StateDir: c.stateDir})
}

// StartNode starts a real node that was killed, with an empty disk, the images that
// lie in the state directory, and those that the cluster was given.
func (c *Cluster) StartNode(ctx context.Context, name string) error {
	index := slices.Index(c.state.Nodes.Names(), name)
	if index < 0 {
		return fmt.Errorf("start node %s: the cluster has no node of that name", name)
	}
	options := realNodeOptions(c.stateDir, c.state.BinDir, name, index)
	var err error
	if options.Images, err = filepath.Glob(filepath.Join(c.stateDir, "images", "*.tar")); err != nil {
		return fmt.Errorf("start node %s: %w", name, err)
	}
	options.Images = append(options.Images, c.state.Images...)
	return realnode.Start(ctx, options)
}

// StartContainerd starts containerd on a real node on which it has ended, as
// systemd would. The error is process.ErrRunning when it runs.
func (c *Cluster) StartContainerd(ctx context.Context, node string) error {
	return realnode.StartContainerd(ctx, realNodeOptions(c.stateDir, c.state.BinDir, node, 0))
}

// NodeDir is the directory of a real node's files. Those that programs on the node see
// elsewhere are "programs" (/opt/ai-storage) and "agent" (/var/lib/ai-storage).
func (c *Cluster) NodeDir(node string) string { return filepath.Join(c.stateDir, "nodes", node) }

// realNodeNames returns the real nodes that a cluster was to have and those
// that the machine knows of, which are all that is left when the state is lost.
func realNodeNames(stateDir string) ([]string, error) {
	names, err := realnode.Find(stateDir)
	if err != nil {
		return nil, err
	}
	old, err := readState(stateDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil && old.Nodes.Kind == Real {
		names = append(names, old.Nodes.Names()...)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// stopRealNodes tries every node, also after one failed.
func stopRealNodes(ctx context.Context, stateDir string, names []string, say reporter) error {
	var failures []error
	for _, name := range names {
		if err := realnode.Stop(ctx, realnode.Options{Name: name, StateDir: stateDir}); err != nil {
			failures = append(failures, err)
			continue
		}
		say("node %s is removed", name)
	}
	return errors.Join(failures...)
}
