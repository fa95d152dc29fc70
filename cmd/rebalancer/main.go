// Command rebalancer keeps a cluster balanced by itself: it plans moves, and it
// carries out PodMigrations, its own and those of others.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	options := defaultOptions()
	options.addFlags(pflag.CommandLine)
	pflag.Parse()
	if err := options.validate(pflag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "rebalancer:", err)
		os.Exit(2)
	}
	ctrl.SetLogger(klog.Background())
	if err := run(ctrl.SetupSignalHandler(), options); err != nil {
		klog.Background().Error(err, "Rebalancer stopped")
		klog.FlushAndExit(klog.ExitFlushTimeout, 1)
	}
}
