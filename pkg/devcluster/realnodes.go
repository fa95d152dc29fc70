package devcluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

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

// stopRealNodes tries every node, also after one failed.
func stopRealNodes(ctx context.Context, stateDir string, nodes NodeSpec, say reporter) error {
	var failures []error
	for _, name := range nodes.Names() {
		if err := realnode.Stop(ctx, realnode.Options{Name: name, StateDir: stateDir}); err != nil {
			failures = append(failures, err)
			continue
		}
		say("node %s is removed", name)
	}
	return errors.Join(failures...)
}
