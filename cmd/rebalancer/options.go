package main

import (
	"errors"
	"flag"
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/ai-storage/orchestrator/pkg/admission"
)

type options struct {
	config                  string
	kubeconfig              string
	dryRun                  bool
	leaderElect             bool
	leaderElectionNamespace string
	metricsBindAddress      string
	healthProbeBindAddress  string
	nodeAgentImage          string
	webhookHost             string
	webhookPort             int
	webhookURL              string
}

func defaultOptions() *options {
	return &options{
		leaderElect:             true,
		leaderElectionNamespace: "ai-storage-system",
		metricsBindAddress:      ":8080",
		healthProbeBindAddress:  ":8081",
		webhookPort:             admission.DefaultPort,
	}
}

func (o *options) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.config, "config", o.config, "KubeSchedulerConfiguration that the scheduler reads too (required)")
	flags.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig, "kubeconfig; empty uses the service account of the pod")
	flags.BoolVar(&o.dryRun, "dry-run", o.dryRun, "print one plan with its predicted effect, change nothing, and exit")
	flags.BoolVar(&o.leaderElect, "leader-elect", o.leaderElect, "act only while holding the lease ai-storage-rebalancer")
	flags.StringVar(&o.leaderElectionNamespace, "leader-election-namespace", o.leaderElectionNamespace, "namespace of the lease")
	flags.StringVar(&o.metricsBindAddress, "metrics-bind-address", o.metricsBindAddress, "address for /metrics; 0 turns it off")
	flags.StringVar(&o.healthProbeBindAddress, "health-probe-bind-address", o.healthProbeBindAddress, "address for /healthz and /readyz; 0 turns it off")
	flags.StringVar(&o.nodeAgentImage, "node-agent-image", o.nodeAgentImage, "image of the node agent, which carries the content of emptyDirs; empty refuses pods that would lose some")
	flags.StringVar(&o.webhookHost, "webhook-host", o.webhookHost, "address that the admission webhook listens on; empty listens on all")
	flags.IntVar(&o.webhookPort, "webhook-port", o.webhookPort, "port of the admission webhook, which turns the pods of Jobs and StatefulSets into replacements; 0 turns it off")
	flags.StringVar(&o.webhookURL, "webhook-url", o.webhookURL, "where the API server reaches the webhook when the rebalancer runs outside of the cluster, such as https://localhost:9443; empty uses the Service")
	klogFlags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(klogFlags)
	flags.AddGoFlag(klogFlags.Lookup("v"))
}

func (o *options) validate(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q: all settings are flags", args[0])
	}
	if o.config == "" {
		return errors.New("--config is required: name the KubeSchedulerConfiguration file of the scheduler")
	}
	return nil
}
