package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/ai-storage/orchestrator/pkg/skew"
)

// emulatedVersion is kube-scheduler's own flag.
const emulatedVersion = "emulated-version"

// fitToAPIServer lets kube-scheduler behave as the version of an API server that is
// older than its libraries. Who sets the flag decides otherwise.
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
		var err error
		if kubeconfig, err = kubeconfigIn(config); err != nil {
			return skew.Emulation{}, err
		}
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

// kubeconfigIn reads clientConnection.kubeconfig alone: kube-scheduler judges the
// rest, and ignores --kubeconfig beside --config.
func kubeconfigIn(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading --config: %w", err)
	}
	var configuration struct {
		ClientConnection struct {
			Kubeconfig string `json:"kubeconfig"`
		} `json:"clientConnection"`
	}
	if err := yaml.Unmarshal(data, &configuration); err != nil {
		return "", fmt.Errorf("reading --config %s: %w", path, err)
	}
	return configuration.ClientConnection.Kubeconfig, nil
}
