// devcluster runs a whole local cluster for the demo and for tests.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	// SIGPIPE too: a reader that goes away must not leave a cluster behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	err := newCommand().ExecuteContext(ctx)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil:
	case interrupted && errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "interrupted:", err)
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	command := &cobra.Command{
		Use:           "devcluster",
		Short:         "Run a whole local Kubernetes cluster with our scheduler and rebalancer",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	stateDir := command.PersistentFlags().String("state-dir", ".devcluster", "directory that holds everything about the cluster")
	command.AddCommand(newUpCommand(stateDir), newDownCommand(stateDir), newStatusCommand(stateDir), newDemoCommand(stateDir))
	return command
}
