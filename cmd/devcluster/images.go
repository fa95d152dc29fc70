package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ai-storage/orchestrator/pkg/devcluster/image"
)

func newImagesCommand() *cobra.Command {
	var binDir, output string
	command := &cobra.Command{
		Use:   "images",
		Short: "Build the images of our programs for a cluster of one's own, without Docker",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			archives, err := image.BuildAll(binDir, output)
			for _, archive := range archives {
				fmt.Fprintln(command.OutOrStdout(), archive)
			}
			return err
		},
	}
	command.Flags().StringVar(&binDir, "bin-dir", "bin", "folder of the programs (make build)")
	command.Flags().StringVar(&output, "output", "dist", "folder for the archives")
	return command
}
