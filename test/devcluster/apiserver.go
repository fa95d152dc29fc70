package devcluster

import (
	"context"
	"fmt"

	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/test/devcluster/controlplane"
	"github.com/ai-storage/orchestrator/test/devcluster/process"
)

// KillAPIServer ends the API server with SIGKILL, as a crash would. What is
// stored stays.
func (c *Cluster) KillAPIServer() error { return process.Kill(c.stateDir, controlplane.APIServer) }

// StartAPIServer starts the API server again and waits until it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	return controlplane.StartAPIServer(ctx, controlplane.Options{
		StateDir: c.stateDir, BinDir: c.state.BinDir, Ports: c.state.Ports, Address: apiServerAddress(c.state.Services), Report: func(string, ...any) {},
	})
}

// StartWithBreakpoints starts the rebalancer that was built with breakpoints. The
// args come last, so they can override flags.
func (c *Cluster) StartWithBreakpoints(url string, args ...string) error {
	component, err := componentNamed(Rebalancer)
	if err != nil {
		return err
	}
	if err := c.renderConfig(component); err != nil {
		return err
	}
	spec := c.specOf(component)
	spec.Path += "-breakpoints"
	spec.Args = append(spec.Args, args...)
	spec.Env = append(spec.Env, migration.BreakpointURL+"="+url)
	if _, err := process.Start(c.stateDir, spec); err != nil {
		return fmt.Errorf("%w: `make bin/rebalancer-breakpoints` builds it", err)
	}
	return nil
}
