package main

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/server/admission"
)

type options struct {
	config                  string
	kubeconfig              string
	dryRun                  bool
	leaderElect             bool
	leaderElectionNamespace string
	metricsBindAddress      string
	metricsSecure           bool
	apiBindAddress          string
	apiRate                 float64
	apiBurst                int
	tlsCertFile             string
	tlsPrivateKeyFile       string
	healthProbeBindAddress  string
	nodeAgentImage          string
	pullSecrets             []string
	dropAnnotationPrefixes  []string
	unschedulableGrace      time.Duration
	webhookHost             string
	webhookPort             int
	webhookURL              string
	tracingConfigFile       string
}

func defaultOptions() *options {
	return &options{
		leaderElect:             true,
		leaderElectionNamespace: "ai-storage-system",
		metricsBindAddress:      ":8080",
		metricsSecure:           true,
		apiBindAddress:          ":8443",
		apiRate:                 20,
		apiBurst:                100,
		healthProbeBindAddress:  ":8081",
		webhookPort:             admission.DefaultPort,
		unschedulableGrace:      migration.DefaultUnschedulableGrace,
	}
}

func (o *options) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.config, "config", o.config, "KubeSchedulerConfiguration that the scheduler reads too (required)")
	flags.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig, "kubeconfig; empty uses the service account of the pod")
	flags.BoolVar(&o.dryRun, "dry-run", o.dryRun, "print one plan with its predicted effect, change nothing, and exit")
	flags.BoolVar(&o.leaderElect, "leader-elect", o.leaderElect, "act only while holding the lease ai-storage-rebalancer")
	flags.StringVar(&o.leaderElectionNamespace, "leader-election-namespace", o.leaderElectionNamespace, "namespace of the lease")
	flags.StringVar(&o.metricsBindAddress, "metrics-bind-address", o.metricsBindAddress, "address for /metrics; 0 turns it off")
	flags.BoolVar(&o.metricsSecure, "metrics-secure", o.metricsSecure, "serve /metrics over HTTPS, to those who may get the non-resource URL /metrics")
	flags.StringVar(&o.apiBindAddress, "api-bind-address", o.apiBindAddress, "address for the HTTP API, over HTTPS; 0 turns it off")
	flags.Float64Var(&o.apiRate, "api-rate", o.apiRate, "requests to the HTTP API that each caller may make in a second; 0 does not limit")
	flags.IntVar(&o.apiBurst, "api-burst", o.apiBurst, "requests to the HTTP API that each caller may make at once")
	flags.StringVar(&o.tlsCertFile, "tls-cert-file", o.tlsCertFile, "certificate of the HTTP API and of /metrics, read again when it changes; empty uses one that the rebalancer makes, in the Secret of its webhook")
	flags.StringVar(&o.tlsPrivateKeyFile, "tls-private-key-file", o.tlsPrivateKeyFile, "key of --tls-cert-file")
	flags.StringVar(&o.healthProbeBindAddress, "health-probe-bind-address", o.healthProbeBindAddress, "address for /healthz and /readyz; 0 turns it off")
	flags.StringVar(&o.nodeAgentImage, "node-agent-image", o.nodeAgentImage, "image of the node agent, which carries the content of emptyDirs; empty refuses pods that would lose some")
	flags.StringSliceVar(&o.pullSecrets, "node-agent-image-pull-secrets", nil, "names of Secrets that pods with that image name beside those of the original: every namespace has to have them whose pods hold a place or carry state. A pod is refused where one is missing")
	flags.DurationVar(&o.unschedulableGrace, "unschedulable-grace", o.unschedulableGrace, "how long the scheduler may find no place before a migration is rolled back; while an autoscaler says that it makes a node, it may take as long as the migration")
	flags.StringSliceVar(&o.dropAnnotationPrefixes, "drop-annotation-prefixes", nil, "prefixes of annotations that a replacement does not inherit, beside the known ones: what a scheduler or a device plugin of yours has assigned to the original")
	flags.StringVar(&o.webhookHost, "webhook-host", o.webhookHost, "address that the admission webhook listens on; empty listens on all")
	flags.IntVar(&o.webhookPort, "webhook-port", o.webhookPort, "port of the admission webhook, which turns the pods of Jobs and StatefulSets into replacements; 0 turns it off")
	flags.StringVar(&o.webhookURL, "webhook-url", o.webhookURL, "where the API server reaches the webhook when the rebalancer runs outside of the cluster, such as https://localhost:9443; empty uses the Service")
	flags.StringVar(&o.tracingConfigFile, "tracing-config-file", o.tracingConfigFile, "TracingConfiguration of apiserver.config.k8s.io: where traces are sent to by OpenTelemetry's protocol; empty makes none")
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
	if (o.tlsCertFile == "") != (o.tlsPrivateKeyFile == "") {
		return errors.New("--tls-cert-file and --tls-private-key-file come together: name both or neither")
	}
	if o.unschedulableGrace <= 0 {
		return fmt.Errorf("--unschedulable-grace has to be more than 0s, such as 30s: it is %s", o.unschedulableGrace)
	}
	if slices.Contains(o.pullSecrets, "") {
		return errors.New("--node-agent-image-pull-secrets has an empty name: separate names by single commas")
	}
	if o.apiRate < 0 || o.apiBurst < 1 {
		return fmt.Errorf("--api-rate has to be 0 or more, and --api-burst 1 or more: they are %g and %d", o.apiRate, o.apiBurst)
	}
	return nil
}
