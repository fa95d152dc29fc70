package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
	"github.com/ai-storage/orchestrator/pkg/skew"
)

// emulatedVersion is kube-scheduler's own flag.
const emulatedVersion = "emulated-version"

// fitToAPIServer lets kube-scheduler behave as the version of an API server that is
// older than its libraries, unless the flag is set.
func fitToAPIServer(command *cobra.Command) {
	next := command.PersistentPreRunE
	command.PersistentPreRunE = func(command *cobra.Command, args []string) error {
		flags := command.Flags()
		for _, settled := range []string{emulatedVersion, "version", "write-config-to"} {
			if flags.Changed(settled) {
				return next(command, args)
			}
		}
		emulated, err := askAPIServer(flags.Lookup("config").Value.String(), flags.Lookup("kubeconfig").Value.String(), flags.Lookup("master").Value.String())
		if err != nil {
			return err
		}
		if emulated.Reason != "" {
			if err := flags.Set(emulatedVersion, emulated.Version.String()); err != nil {
				return fmt.Errorf("behaving as Kubernetes %s: %w", emulated.Version, err)
			}
		}
		return next(command, args)
	}
}

func askAPIServer(config, kubeconfig, master string) (skew.Emulation, error) {
	if config != "" {
		// What is wrong in it is said before the API server is asked anything.
		configuration, err := load.Scheduler(config)
		if err != nil {
			return skew.Emulation{}, err
		}
		// kube-scheduler ignores --kubeconfig beside --config.
		kubeconfig = configuration.ClientConnection.Kubeconfig
	}
	restConfig, err := clientcmd.BuildConfigFromFlags(master, kubeconfig)
	if err != nil {
		return skew.Emulation{}, fmt.Errorf("reading kubeconfig %q: %w", kubeconfig, err)
	}
	client, err := discovery.NewDiscoveryClientForConfig(restConfig)
	if err != nil {
		return skew.Emulation{}, err
	}
	return skew.Ask(context.Background(), client, utilfeature.DefaultMutableFeatureGate.EmulationVersion())
}
