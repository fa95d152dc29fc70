package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/ai-storage/orchestrator/test/devcluster"
	"github.com/ai-storage/orchestrator/test/devcluster/demo"
)

func newDemoCommand(stateDir *string) *cobra.Command {
	var from sources
	var nodes string
	var pods int
	command := &cobra.Command{
		Use:   "demo",
		Short: "Show how a skewed cluster is rebalanced, and clean up",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			spec, err := devcluster.ParseNodeSpec(nodes)
			if err != nil {
				return err
			}
			return demo.Run(command.Context(), demo.Options{
				Cluster: devcluster.Options{
					StateDir: *stateDir, BinDir: from.binDir, ManifestsDir: from.manifestsDir, ConfigFile: from.configFile, Nodes: spec,
				},
				Pods: pods, Out: command.OutOrStdout(), Live: isTerminal(os.Stdout),
			})
		},
	}
	from.addFlags(command)
	command.Flags().StringVar(&nodes, "nodes", "simulated:20", "simulated:N, or real:N (Linux, as root)")
	command.Flags().IntVar(&pods, "pods", 0, "number of pods; 0 is 10 for each simulated node and 3 for each real one")
	return command
}

func isTerminal(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}
