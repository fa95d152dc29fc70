// Command node-agent carries what pods keep, emptyDirs and processes, for the migrations
// from and to the node that it runs on. The same binary, without any rights, is the gate
// of a replacement and the process of placeholders.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	root := &cobra.Command{
		Use: "node-agent", Short: "Carries emptyDirs and processes of pods for migrations",
		SilenceUsage: true, SilenceErrors: true,
	}
	klogFlags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(klogFlags)
	root.PersistentFlags().AddGoFlag(klogFlags.Lookup("v"))
	root.AddCommand(newRunCommand(), newGateCommand(), newPauseCommand(), newHostCommand())
	ctrl.SetLogger(klog.Background())
	if err := root.ExecuteContext(ctrl.SetupSignalHandler()); err != nil {
		fmt.Fprintln(os.Stderr, "node-agent:", err)
		klog.FlushAndExit(klog.ExitFlushTimeout, 1)
	}
}
