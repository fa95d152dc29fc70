package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ai-storage/orchestrator/pkg/devcluster/image"
)

func newImagesCommand() *cobra.Command {
	var binDirs []string
	var output string
	command := &cobra.Command{
		Use:   "images",
		Short: "Build the images of our programs for a cluster of one's own, without Docker",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			archives, err := image.BuildIndexes(binDirs, output)
			for _, archive := range archives {
				fmt.Fprintln(command.OutOrStdout(), archive)
			}
			return err
		},
	}
	command.Flags().StringSliceVar(&binDirs, "bin-dir", []string{"bin"}, "folder of the programs of one architecture; can be repeated")
	command.Flags().StringVar(&output, "output", "dist", "folder for the archives")
	return command
}
