package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent"
)

type options struct {
	agent.Options
	kubeconfig             string
	healthProbeBindAddress string
	metricsHost            string
	metricsPort            int
	metricsSecure          bool
	transferLimit          string
	installNodes           string
	restart                string
}

// How containerd is restarted: values of --containerd-restart.
const (
	restartSystemd = "Systemd"
	restartSignal  = "Signal"
)

func newRunCommand() *cobra.Command {
	o := &options{Options: agent.Options{Node: os.Getenv("NODE_NAME"), TransferHost: os.Getenv("HOST_IP")}}
	command := &cobra.Command{
		Use: "run", Short: "Serve the migrations from and to this node", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return run(command.Context(), o) },
	}
	flags := command.Flags()
	flags.StringVar(&o.Node, "node-name", o.Node, "name of the node; NODE_NAME when not given")
	flags.StringVar(&o.StateDir, "state-dir", "/var/lib/ai-storage/node-agent", "directory of the node for the records of frozen pods and the checkpoints to restore")
	flags.StringVar(&o.Machine.KubeletRoot, "kubelet-root", "/var/lib/kubelet", "root directory of the kubelet")
	flags.StringVar(&o.Machine.Proc, "proc", "/proc", "where the node's processes are seen")
	flags.StringVar(&o.Machine.Cgroup, "cgroup-root", "/sys/fs/cgroup", "where the node's cgroups are mounted")
	flags.BoolVar(&o.Processes, "process-checkpoint", false, "look for CRIU and the runtime handler of the node, and report on its node object whether processes can move (docs/process-checkpoint.md)")
	flags.BoolVar(&o.Install.Enabled, "install-runtime", false, "with --process-checkpoint, install the runtime handler on the node and restart containerd; without, remove what was installed earlier")
	flags.StringVar(&o.installNodes, "install-runtime-nodes", "", "label selector of the nodes to install the runtime handler on; empty means all")
	flags.StringVar(&o.restart, "containerd-restart", restartSystemd, "how containerd is restarted: Systemd, or Signal, which terminates it for another supervisor to start it again")
	flags.StringVar(&o.Install.Source, "oci-runtime", "/oci-runtime", "path of the runtime binary that is installed")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig; empty uses the service account of the pod")
	flags.StringVar(&o.healthProbeBindAddress, "health-probe-bind-address", "0", "address for /healthz; 0 turns it off")
	flags.StringVar(&o.metricsHost, "metrics-host", "", "address of the node that /metrics is served on; empty serves on all")
	flags.IntVar(&o.metricsPort, "metrics-port", 10270, "port of /metrics; 0 turns it off")
	flags.StringVar(&o.TransferHost, "transfer-host", o.TransferHost, "address of the node at which it receives volumes from the node agents of others; HOST_IP when not given")
	flags.IntVar(&o.TransferPort, "transfer-port", 10271, "port at which it receives volumes")
	flags.StringVar(&o.transferLimit, "transfer-limit", "0", "bytes a second that it sends at most while pods run, such as 50Mi; 0 does not limit it")
	flags.BoolVar(&o.metricsSecure, "metrics-secure", true, "serve /metrics over HTTPS, to those who may get the non-resource URL /metrics")
	return command
}

func (o *options) metrics() server.Options {
	served := server.Options{BindAddress: "0"}
	if o.metricsPort != 0 {
		served.BindAddress = net.JoinHostPort(o.metricsHost, strconv.Itoa(o.metricsPort))
	}
	if served.SecureServing = o.metricsSecure; served.SecureServing {
		served.FilterProvider = filters.WithAuthenticationAndAuthorization
		served.TLSOpts = []func(*tls.Config){func(c *tls.Config) { c.MinVersion = tls.VersionTLS12 }}
	}
	return served
}

func (o *options) readInstall() (err error) {
	if o.restart != restartSystemd && o.restart != restartSignal {
		return fmt.Errorf("--containerd-restart %q: must be %s or %s", o.restart, restartSystemd, restartSignal)
	}
	o.Install.BySignal = o.restart == restartSignal
	if o.Install.Nodes, err = labels.Parse(o.installNodes); err != nil {
		return fmt.Errorf("--install-runtime-nodes %q: %w", o.installNodes, err)
	}
	return nil
}

func (o *options) readTransfer() error {
	host, err := netip.ParseAddr(o.TransferHost)
	if err != nil {
		return fmt.Errorf("--transfer-host %q, or the environment variable HOST_IP, must be an IP address of the node: %w", o.TransferHost, err)
	}
	// As its Node has it: that is what agents of other nodes compare with.
	o.TransferHost = host.Unmap().String()
	if o.TransferPort < 1 || o.TransferPort > 65535 {
		return fmt.Errorf("--transfer-port %d: must be a port from 1 to 65535", o.TransferPort)
	}
	limit, err := resource.ParseQuantity(o.transferLimit)
	if err != nil || limit.Sign() < 0 {
		return fmt.Errorf("--transfer-limit %q: must be a quantity of bytes, such as 50Mi, or 0", o.transferLimit)
	}
	o.TransferLimit = limit.Value()
	return nil
}

func run(ctx context.Context, o *options) error {
	if o.Node == "" {
		return errors.New("--node-name is required, or the environment variable NODE_NAME")
	}
	if err := o.readTransfer(); err != nil {
		return err
	}
	if err := o.readInstall(); err != nil {
		return err
	}
	restConfig, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return fmt.Errorf("reading --kubeconfig %q: %w", o.kubeconfig, err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme: scheme, Metrics: o.metrics(), HealthProbeBindAddress: o.healthProbeBindAddress,
		// The priority queue of controller-runtime 0.23 can let its workers wait for ever
		// when it ends (kubernetes-sigs/controller-runtime#3538, fixed in 0.25).
		Controller: config.Controller{UsePriorityQueue: new(false)},
	})
	if err != nil {
		return fmt.Errorf("creating the manager: %w", err)
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	o.Registerer = metrics.Registry
	if err := agent.SetupWithManager(mgr, o.Options); err != nil {
		return fmt.Errorf("setting up the agent: %w", err)
	}
	return mgr.Start(ctx)
}
