package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/ai-storage/orchestrator/pkg/node/atomicfile"
)

// gatePoll is how often a gate looks whether it is open.
const gatePoll = 20 * time.Millisecond

// newGateCommand holds what runs in the pods of users: it needs no network, no
// rights and no settings.
func newGateCommand() *cobra.Command {
	gate := &cobra.Command{Use: "gate", Short: "Hold the containers of a replacement back until its state is restored"}
	gate.AddCommand(
		&cobra.Command{
			Use: "install DIRECTORY", Short: "Copy this binary into a directory", Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return install(args[0]) },
		},
		&cobra.Command{
			Use: "warm", Short: "Do nothing: the image has been pulled", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return nil },
		},
		&cobra.Command{
			Use: "wait FILE", Short: "Wait until a file exists", Args: cobra.ExactArgs(1),
			RunE: func(command *cobra.Command, args []string) error {
				err := wait.PollUntilContextCancel(command.Context(), gatePoll, true, func(context.Context) (bool, error) {
					_, err := os.Stat(args[0])
					return err == nil, nil
				})
				if err != nil {
					return fmt.Errorf("waiting for the gate to open: %w", err)
				}
				return nil
			},
		},
	)
	return gate
}

func newPauseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "pause", Short: "Do nothing until terminated", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			<-command.Context().Done()
			return nil
		},
	}
}

// install copies this binary in one step: an interrupted copy has another name.
func install(directory string) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	return atomicfile.Write(filepath.Join(directory, "node-agent"), self, 0o755)
}
