package config

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
)

// Names of the plugins. The kind of a plugin's arguments is its name and "Args".
const (
	CheckpointVolumeName = "CheckpointVolume"
	RebalanceName        = "Rebalance"
)

// SchemeGroupVersion is the internal version of the scheduler's config group.
var SchemeGroupVersion = schema.GroupVersion{Group: schedulerconfig.GroupName, Version: runtime.APIVersionInternal}

var schemeBuilder = runtime.NewSchemeBuilder(func(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(SchemeGroupVersion, &CheckpointVolumeArgs{}, &RebalanceArgs{})
	return nil
})

// AddToScheme registers the internal types with a scheme.
var AddToScheme = schemeBuilder.AddToScheme

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object

// CheckpointVolumeArgs tunes the plugin that brings checkpoint claims to the
// chosen node.
type CheckpointVolumeArgs struct {
	metav1.TypeMeta

	// AttachTimeout bounds two waits in PreBind: for the volume to be released by
	// the source node, and then for it to be attached to the chosen one.
	AttachTimeout metav1.Duration
	// FailedNodeBackoff is how long a node stays out after an attach to it failed.
	FailedNodeBackoff metav1.Duration
}

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object

// RebalanceArgs tunes the score plugin and the rebalancing loop.
type RebalanceArgs struct {
	metav1.TypeMeta

	// Interval between two cycles of the loop.
	Interval metav1.Duration
	// NodeSelector limits the loop to the nodes it selects; nil is all nodes.
	NodeSelector *metav1.LabelSelector
	// NodePools divides the selected nodes: a pod moves only within the pool of
	// its node, the first that selects it. None is one pool of all nodes.
	NodePools []metav1.LabelSelector
	// Strategies that the loop follows, by relative weight.
	Strategies []Strategy
	// Shapes of pods that the strategy Defragment keeps capacity free for.
	Shapes []corev1.ResourceList
	// Thresholds above which a node is overutilized.
	Thresholds UtilizationThresholds
	// AbnormalCycles is how many cycles in a row a node must be overutilized before pods
	// leave it.
	AbnormalCycles int32
	// MinimumGain is how many times its cost a move must gain.
	MinimumGain float64
	// Signals say how measurements become the load that the loop plans with.
	Signals SignalArgs
	// MetricsMaxAge is the age at which a measurement is no longer used. A node
	// without a recent one is skipped.
	MetricsMaxAge metav1.Duration
	// Budget limits how much is disrupted at once.
	Budget BudgetArgs
	// Cooldown is how long a workload is skipped after a migration of one of
	// its pods ended. It doubles with every further one, up to MaxCooldown.
	Cooldown    metav1.Duration
	MaxCooldown metav1.Duration
	// CircuitBreaker stops the loop when too many of its migrations fail.
	CircuitBreaker CircuitBreakerArgs
	// MinimumPodAge keeps younger pods where they are.
	MinimumPodAge metav1.Duration
	// PriorityCeiling is the highest pod priority that the loop moves.
	PriorityCeiling int32
	// MigrationTimeout is the timeout of the PodMigrations the loop creates.
	MigrationTimeout metav1.Duration
	// CheckpointStorageClassName is the class of the checkpoint claims of these
	// PodMigrations, which are ReadWriteMany then. Empty: they make none.
	CheckpointStorageClassName string
	// Reclaim is about finished containers of pods that stay where they are.
	Reclaim ReclaimArgs
}

// ReclaimArgs tunes the shrinking of finished containers in place.
type ReclaimArgs struct {
	// Enabled shrinks them. Containers that were shrunk before and start again get
	// their requests back in any case.
	Enabled bool
}

// Names of the strategies.
const (
	StrategyBalance     = "Balance"
	StrategyConsolidate = "Consolidate"
	StrategyDefragment  = "Defragment"
)

// Strategy is something that the loop strives for.
type Strategy struct {
	Name   string
	Weight int32
}

// Modes of thresholds.
const (
	ThresholdsAbsolute  = "Absolute"
	ThresholdsDeviation = "Deviation"
)

// UtilizationThresholds are percentages of a node's allocatable; in mode
// Deviation, percentage points above the mean of the nodes.
type UtilizationThresholds struct {
	Mode   string
	CPU    int32
	Memory int32
}

// SignalArgs say how measurements become load.
type SignalArgs struct {
	// HalfLife of the exponential smoothing.
	HalfLife metav1.Duration
	// Window is how far back measurements count at all.
	Window metav1.Duration
	// Percentile of the measurements in the window, 1 to 100.
	Percentile int32
	// Prometheus, when set, is asked instead of the metrics API.
	Prometheus *PrometheusArgs
}

// PrometheusArgs name a Prometheus and what to ask it.
type PrometheusArgs struct {
	URL             string
	BearerTokenFile string
	Queries         PrometheusQueries
}

// PrometheusQueries return one series for each node or pod, in cores or bytes.
type PrometheusQueries struct {
	NodeCPU    string
	NodeMemory string
	PodCPU     string
	PodMemory  string
	// Range that the queries look back over.
	Range metav1.Duration
}

// CircuitBreakerArgs say when failures stop the loop.
type CircuitBreakerArgs struct {
	// FailurePercent of the last Migrations, finished within Window, opens the
	// breaker for OpenFor.
	FailurePercent int32
	Migrations     int32
	Window         metav1.Duration
	OpenFor        metav1.Duration
}

// BudgetArgs limits migrations. One is in flight from its acceptance until its
// original is gone, or it is rolled back.
type BudgetArgs struct {
	MaxInFlight             int32
	MaxInFlightPerNode      int32
	MaxInFlightPerNamespace int32
	MaxInFlightPerWorkload  int32
	MaxMovesPerCycle        int32
}
