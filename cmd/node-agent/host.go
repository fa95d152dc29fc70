package main

import (
	"github.com/spf13/cobra"

	"github.com/ai-storage/orchestrator/pkg/node/agent"
)

// newHostCommand is how the agent calls the container runtime of its node.
func newHostCommand() *cobra.Command {
	return &cobra.Command{
		Use: agent.HostCommand + " PID -- BINARY [ARGUMENT]...", Short: "Run a binary of the node in the namespaces of a process",
		Hidden: true, Args: cobra.MinimumNArgs(2), DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error { return agent.Enter(args[0], args[1:]) },
	}
}
