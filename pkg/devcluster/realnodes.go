package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/ai-storage/orchestrator/pkg/devcluster/controlplane"
	"github.com/ai-storage/orchestrator/pkg/devcluster/image"
	"github.com/ai-storage/orchestrator/pkg/devcluster/realnode"
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
		kubeconfig, err := b.credentials.NodeKubeconfig(name)
		if err != nil {
			return err
		}
		if err := realnode.Start(ctx, realnode.Options{
			Name:         name,
			Index:        i,
			StateDir:     b.StateDir,
			BinDir:       b.BinDir,
			Kubeconfig:   kubeconfig,
			ClientCAFile: controlplane.CertificatePath(b.StateDir, "ca"),
			Images:       append(archives, b.Images...),
			Log:          b.say,
		}); err != nil {
			return err
		}
		b.say("node %s is started", name)
	}
	return nil
}

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
