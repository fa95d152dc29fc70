package main

import (
	"errors"
	"flag"
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
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
}

func defaultOptions() *options {
	return &options{
		leaderElect:             true,
		leaderElectionNamespace: "ai-storage-system",
		metricsBindAddress:      ":8080",
		healthProbeBindAddress:  ":8081",
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
