package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ai-storage/orchestrator/test/devcluster"
)

// sources are flags that say where programs and files come from.
type sources struct {
	binDir, manifestsDir, configFile string
}

func (s *sources) addFlags(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&s.binDir, "bin-dir", "bin", "directory of the programs (make tools build)")
	flags.StringVar(&s.manifestsDir, "manifests", "manifests", "directory of the manifests to apply; empty installs nothing of ours")
	flags.StringVar(&s.configFile, "config", filepath.Join("config", "scheduler-configuration.yaml"), "configuration of the scheduler and the rebalancer")
}

func newUpCommand(stateDir *string) *cobra.Command {
	var from sources
	var nodes string
	var images, components []string
	var csi, services bool
	command := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			spec, err := devcluster.ParseNodeSpec(nodes)
			if err != nil {
				return err
			}
			if slices.Equal(components, []string{"none"}) {
				components = nil
			}
			cluster, err := devcluster.Up(command.Context(), devcluster.Options{
				StateDir: *stateDir, BinDir: from.binDir, ManifestsDir: from.manifestsDir, ConfigFile: from.configFile,
				Nodes: spec, Images: images, CSI: csi, Services: services, Components: components, Progress: command.OutOrStdout(),
			})
			if err != nil {
				return err
			}
			kubectl := filepath.Join(from.binDir, "kubectl") + " --kubeconfig=" + cluster.AdminKubeconfig()
			fmt.Fprintf(command.OutOrStdout(), "\nTry:\n  %s get nodes\n", kubectl)
			if slices.Contains(components, devcluster.Rebalancer) {
				printAPI(command, cluster, kubectl)
			}
			return nil
		},
	}
	from.addFlags(command)
	command.Flags().StringVar(&nodes, "nodes", "simulated:3", "simulated:N, or real:N (Linux, as root)")
	command.Flags().StringSliceVar(&images, "image", nil, "archive of a container image that real nodes get; can be repeated")
	command.Flags().BoolVar(&csi, "csi", false, "give real nodes a CSI driver whose volumes are really attached (classes csi-rwo and csi-wffc)")
	command.Flags().BoolVar(&services, "services", false, "make Services of real nodes work, by kube-proxy; the API server listens on all addresses then")
	command.Flags().StringSliceVar(&components, "components", devcluster.ComponentNames(), "our programs to start, or none")
	return command
}

// printAPI tells where the HTTP API is and how to ask it.
func printAPI(command *cobra.Command, cluster *devcluster.Cluster, kubectl string) {
	fmt.Fprintf(command.OutOrStdout(), "\nThe HTTP API is at %s, and opens with a token:\n"+
		"  TOKEN=$(%s create token -n kube-system %s)\n"+
		"  curl --cacert %s -H \"Authorization: Bearer $TOKEN\" %s/api/v1/nodes\n",
		cluster.APIURL(), kubectl, devcluster.AdminAccount, cluster.Authority(), cluster.APIURL())
}

func newDownCommand(stateDir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the cluster and remove everything it left",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return devcluster.Down(command.Context(), *stateDir, command.OutOrStdout())
		},
	}
}

func newStatusCommand(stateDir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what runs; fails when no cluster does",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			cluster, err := devcluster.Open(*stateDir)
			if err != nil {
				return err
			}
			return printStatus(command, cluster)
		},
	}
}

func printStatus(command *cobra.Command, cluster *devcluster.Cluster) error {
	processes, err := cluster.Processes()
	if err != nil {
		return err
	}
	config, err := cluster.AdminConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	nodes, err := client.CoreV1().Nodes().List(command.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(command.OutOrStdout(), 0, 0, 3, ' ', 0)
	fmt.Fprintf(out, "State directory\t%s\nAPI server\t%s\nKubeconfig\t%s\nHTTP API\t%s\nNodes\t%s, %d registered\n\nPROCESS\tPID\tSTATE\n",
		cluster.StateDir(), config.Host, cluster.AdminKubeconfig(), cluster.APIURL(), cluster.Nodes(), len(nodes.Items))
	for _, process := range processes {
		state := "running"
		if !process.Alive {
			state = "ended"
		}
		fmt.Fprintf(out, "%s\t%d\t%s\n", process.Name, process.PID, state)
	}
	return out.Flush()
}
