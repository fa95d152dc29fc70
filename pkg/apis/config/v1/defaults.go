package v1

import (
	"cmp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
)

// highestUserPriority is the highest priority that a user may give a class
// (HighestUserDefinablePriority in k8s.io/kubernetes/pkg/apis/scheduling).
const highestUserPriority int32 = 1_000_000_000

// SetDefaults_CheckpointVolumeArgs fills in what was left out.
func SetDefaults_CheckpointVolumeArgs(args *CheckpointVolumeArgs) {
	setDefault(&args.AttachTimeout, metav1.Duration{Duration: 2 * time.Minute})
	setDefault(&args.FailedNodeBackoff, metav1.Duration{Duration: 5 * time.Minute})
}

// SetDefaults_RebalanceArgs fills in what was left out.
func SetDefaults_RebalanceArgs(args *RebalanceArgs) {
	setDefault(&args.Interval, metav1.Duration{Duration: 30 * time.Second})
	if len(args.Strategies) == 0 {
		args.Strategies = []Strategy{{Name: config.StrategyBalance}}
	}
	for i := range args.Strategies {
		setDefault(&args.Strategies[i].Weight, 1)
	}
	setDefaultThresholds(&args.Thresholds)
	setDefault(&args.AbnormalCycles, 3)
	setDefault(&args.MinimumGain, 1)
	setDefaultSignals(args)
	setDefault(&args.MetricsMaxAge, metav1.Duration{Duration: 2 * time.Minute})
	setDefault(&args.Budget.MaxInFlight, 5)
	setDefault(&args.Budget.MaxInFlightPerNode, 2)
	setDefault(&args.Budget.MaxInFlightPerNamespace, 5)
	setDefault(&args.Budget.MaxInFlightPerWorkload, 1)
	setDefault(&args.Budget.MaxMovesPerCycle, 5)
	setDefault(&args.Cooldown, metav1.Duration{Duration: 10 * time.Minute})
	setDefault(&args.MaxCooldown, metav1.Duration{Duration: max(2*time.Hour, args.Cooldown.Duration)})
	setDefault(&args.CircuitBreaker.FailurePercent, 50)
	setDefault(&args.CircuitBreaker.Migrations, 10)
	setDefault(&args.CircuitBreaker.Window, metav1.Duration{Duration: time.Hour})
	setDefault(&args.CircuitBreaker.OpenFor, metav1.Duration{Duration: 30 * time.Minute})
	setDefault(&args.MinimumPodAge, metav1.Duration{Duration: time.Minute})
	setDefault(&args.PriorityCeiling, highestUserPriority)
	setDefault(&args.MigrationTimeout, metav1.Duration{Duration: 10 * time.Minute})
	setDefault(&args.Reclaim.Enabled, true)
}

func setDefaultThresholds(thresholds *UtilizationThresholds) {
	if thresholds.Mode == "" {
		thresholds.Mode = config.ThresholdsAbsolute
	}
	if thresholds.Mode == config.ThresholdsDeviation {
		setDefault(&thresholds.CPU, 10)
		setDefault(&thresholds.Memory, 10)
	}
	setDefault(&thresholds.CPU, 70)
	setDefault(&thresholds.Memory, 80)
}

// The queries read what the kubelet exports of its root cgroup and of every
// container. A monitoring stack may drop the root cgroup: the chart
// kube-prometheus-stack drops series of cAdvisor with an id and no pod. The sum over
// the containers of the node then stands for it. $range stands for the range.
const (
	nodeCPUQuery    = `sum by (node) (rate(container_cpu_usage_seconds_total{id="/",node!=""}[$range])) or sum by (node) (rate(container_cpu_usage_seconds_total{container!="",pod!="",node!=""}[$range]))`
	nodeMemoryQuery = `sum by (node) (container_memory_working_set_bytes{id="/",node!=""}) or sum by (node) (container_memory_working_set_bytes{container!="",pod!="",node!=""})`
	podCPUQuery     = `sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{container!="",pod!=""}[$range]))`
	podMemoryQuery  = `sum by (namespace, pod) (container_memory_working_set_bytes{container!="",pod!=""})`
)

// setDefaultSignals keeps twice the measurements that must be there,
// also where the interval is long.
func setDefaultSignals(args *RebalanceArgs) {
	signals := &args.Signals
	window := 5 * time.Minute
	if interval := args.Interval.Duration; interval < 24*time.Hour && *args.AbnormalCycles <= 100 {
		window = max(window, 2*time.Duration(*args.AbnormalCycles)*interval)
	}
	setDefault(&signals.HalfLife, metav1.Duration{Duration: time.Minute})
	setDefault(&signals.Window, metav1.Duration{Duration: window})
	setDefault(&signals.Percentile, 90)
	if signals.Prometheus == nil {
		return
	}
	queries := &signals.Prometheus.Queries
	setDefault(&queries.Range, metav1.Duration{Duration: 2 * time.Minute})
	queries.NodeCPU = cmp.Or(queries.NodeCPU, nodeCPUQuery)
	queries.NodeMemory = cmp.Or(queries.NodeMemory, nodeMemoryQuery)
	queries.PodCPU = cmp.Or(queries.PodCPU, podCPUQuery)
	queries.PodMemory = cmp.Or(queries.PodMemory, podMemoryQuery)
}

func setDefault[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}
