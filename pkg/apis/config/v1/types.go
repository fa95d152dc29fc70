package v1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
// +k8s:defaulter-gen=true
// +kubebuilder:object:root=true

// CheckpointVolumeArgs tunes the plugin that brings checkpoint claims to the
// chosen node.
type CheckpointVolumeArgs struct {
	metav1.TypeMeta `json:",inline"`

	// attachTimeout bounds two waits in PreBind: for the volume to be released by the
	// source node, and then for it to be attached to the chosen one.
	// +kubebuilder:default="2m"
	// +optional
	AttachTimeout *metav1.Duration `json:"attachTimeout,omitempty"`
	// failedNodeBackoff is how long a node stays out after an attach to it failed.
	// +kubebuilder:default="5m"
	// +optional
	FailedNodeBackoff *metav1.Duration `json:"failedNodeBackoff,omitempty"`
}

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
// +k8s:defaulter-gen=true
// +kubebuilder:object:root=true

// RebalanceArgs tunes the score plugin and the rebalancing loop.
type RebalanceArgs struct {
	metav1.TypeMeta `json:",inline"`

	// interval between two cycles of the loop.
	// +kubebuilder:default="30s"
	// +optional
	Interval *metav1.Duration `json:"interval,omitempty"`
	// nodeSelector limits the loop to the nodes it selects. Default: all nodes.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
	// nodePools divides the selected nodes: a pod moves only within the pool of
	// its node. A node belongs to the first pool that selects it, and is
	// skipped when none does. Default: one pool of all selected nodes.
	// +optional
	NodePools []metav1.LabelSelector `json:"nodePools,omitempty"`
	// strategies that the loop follows, by relative weight. Default: Balance alone.
	// +optional
	Strategies []Strategy `json:"strategies,omitempty"`
	// shapes of pods that the strategy Defragment keeps capacity free for.
	// +optional
	Shapes []corev1.ResourceList `json:"shapes,omitempty"`
	// thresholds above which a node is overutilized.
	// +optional
	Thresholds UtilizationThresholds `json:"thresholds,omitempty"`
	// abnormalCycles is how many cycles in a row a node must be overutilized before
	// pods leave it.
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	AbnormalCycles *int32 `json:"abnormalCycles,omitempty"`
	// minimumGain is how many times its cost a move must gain.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	MinimumGain *float64 `json:"minimumGain,omitempty"`
	// signals say how measurements become the load that the loop plans with.
	// +optional
	Signals SignalArgs `json:"signals,omitempty"`
	// metricsMaxAge is the age at which a measurement is no longer used. A node
	// without a recent one is skipped.
	// +kubebuilder:default="2m"
	// +optional
	MetricsMaxAge *metav1.Duration `json:"metricsMaxAge,omitempty"`
	// budget limits how much is disrupted at once.
	// +optional
	Budget BudgetArgs `json:"budget,omitempty"`
	// cooldown is how long a workload is skipped after a migration of one of its
	// pods ended, well or badly. It doubles with every further migration that ends
	// within twice maxCooldown of the one before.
	// +kubebuilder:default="10m"
	// +optional
	Cooldown *metav1.Duration `json:"cooldown,omitempty"`
	// maxCooldown is where the doubling ends. Default 2h, or cooldown where that
	// is longer.
	// +optional
	MaxCooldown *metav1.Duration `json:"maxCooldown,omitempty"`
	// circuitBreaker stops the loop when too many of its migrations fail.
	// +optional
	CircuitBreaker CircuitBreakerArgs `json:"circuitBreaker,omitempty"`
	// minimumPodAge keeps younger pods where they are.
	// +kubebuilder:default="1m"
	// +optional
	MinimumPodAge *metav1.Duration `json:"minimumPodAge,omitempty"`
	// priorityCeiling is the highest pod priority that the loop moves.
	// Default 1000000000, the highest that a user may give.
	// +kubebuilder:default=1000000000
	// +kubebuilder:validation:Maximum=1000000000
	// +optional
	PriorityCeiling *int32 `json:"priorityCeiling,omitempty"`
	// migrationTimeout is the timeout of the PodMigrations that the loop creates.
	// +kubebuilder:default="10m"
	// +optional
	MigrationTimeout *metav1.Duration `json:"migrationTimeout,omitempty"`
	// checkpointStorageClassName is a storage class whose volumes several nodes can
	// use at once. With it what the loop's migrations carry is also written to a
	// checkpoint claim, ReadWriteMany, which survives the new node and goes with the pod.
	// Default: none; what is carried then goes straight into the volumes of the
	// replacement, which starts before its original stops.
	// +optional
	CheckpointStorageClassName string `json:"checkpointStorageClassName,omitempty"`
	// reclaim is about finished containers of pods that stay where they are.
	// +optional
	Reclaim ReclaimArgs `json:"reclaim,omitempty"`
}

// ReclaimArgs tunes the shrinking of finished containers in place.
type ReclaimArgs struct {
	// enabled shrinks them. Containers that were shrunk before and start again get
	// their requests back in any case.
	// +kubebuilder:default=true
	// +optional
	Enabled *bool `json:"enabled,omitempty"`
}

// Strategy is something that the loop strives for.
type Strategy struct {
	// name is Balance (even load), Consolidate (few nodes in use) or Defragment
	// (capacity for shapes).
	// +kubebuilder:validation:Enum=Balance;Consolidate;Defragment
	// +required
	Name string `json:"name"`
	// weight against the other strategies, 1 to 100.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	Weight *int32 `json:"weight,omitempty"`
}

// UtilizationThresholds are percentages of a node's allocatable, 1 to 100.
type UtilizationThresholds struct {
	// mode is Absolute, or Deviation: then cpu and memory are percentage points above
	// the mean of the nodes.
	// +kubebuilder:default="Absolute"
	// +kubebuilder:validation:Enum=Absolute;Deviation
	// +optional
	Mode string `json:"mode,omitempty"`
	// cpu defaults to 70, in mode Deviation to 10.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	CPU *int32 `json:"cpu,omitempty"`
	// memory defaults to 80, in mode Deviation to 10.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	Memory *int32 `json:"memory,omitempty"`
}

// SignalArgs say how measurements become load. The load of a node or pod is the
// larger of the smoothed value and the percentile.
type SignalArgs struct {
	// halfLife of the exponential smoothing: a measurement of that age counts half.
	// +kubebuilder:default="1m"
	// +optional
	HalfLife *metav1.Duration `json:"halfLife,omitempty"`
	// window is how far back measurements count at all. Default 5m, or twice
	// abnormalCycles times interval where that is longer.
	// +optional
	Window *metav1.Duration `json:"window,omitempty"`
	// percentile of the measurements in the window, 1 to 100.
	// +kubebuilder:default=90
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	Percentile *int32 `json:"percentile,omitempty"`
	// prometheus, when set, is asked instead of the metrics API.
	// +optional
	Prometheus *PrometheusArgs `json:"prometheus,omitempty"`
}

// PrometheusArgs name a Prometheus and what to ask it.
type PrometheusArgs struct {
	// url of the server, such as http://prometheus.monitoring:9090.
	// +required
	URL string `json:"url"`
	// bearerTokenFile holds a token to send along. It is read for every request.
	// +optional
	BearerTokenFile string `json:"bearerTokenFile,omitempty"`
	// queries replace the defaults, which read what the kubelet's cAdvisor
	// exports, with the label node that kube-prometheus gives it. Where the series
	// of a node's root cgroup are dropped, as the chart kube-prometheus-stack does,
	// the load of the node is the sum of its containers: less by what the kubelet
	// and the system use.
	// +optional
	Queries PrometheusQueries `json:"queries,omitempty"`
}

// PrometheusQueries return one series for each node, with the label node, or
// for each pod, with the labels namespace and pod.
type PrometheusQueries struct {
	// nodeCPU in cores.
	// +optional
	NodeCPU string `json:"nodeCPU,omitempty"`
	// nodeMemory in bytes.
	// +optional
	NodeMemory string `json:"nodeMemory,omitempty"`
	// podCPU in cores.
	// +optional
	PodCPU string `json:"podCPU,omitempty"`
	// podMemory in bytes.
	// +optional
	PodMemory string `json:"podMemory,omitempty"`
	// range that the queries look back over. A node that a migration changed within it
	// is not judged.
	// +kubebuilder:default="2m"
	// +optional
	Range *metav1.Duration `json:"range,omitempty"`
}

// CircuitBreakerArgs say when failures stop the loop. They are counted from the
// PodMigrations that the loop created.
type CircuitBreakerArgs struct {
	// failurePercent of the last migrations that opens the breaker, 1 to 100.
	// +kubebuilder:default=50
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	FailurePercent *int32 `json:"failurePercent,omitempty"`
	// migrations that are looked at. Where fewer have finished, the others count as
	// good.
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	Migrations *int32 `json:"migrations,omitempty"`
	// window is the age at which a finished migration is no longer looked at.
	// +kubebuilder:default="1h"
	// +optional
	Window *metav1.Duration `json:"window,omitempty"`
	// openFor is how long nothing is moved. Then one migration is tried: if it fails,
	// the breaker opens again.
	// +kubebuilder:default="30m"
	// +optional
	OpenFor *metav1.Duration `json:"openFor,omitempty"`
}

// BudgetArgs limits migrations. One is in flight from its acceptance until its
// original is gone, or it is rolled back.
type BudgetArgs struct {
	// maxInFlight in the whole cluster.
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=1
	// +optional
	MaxInFlight *int32 `json:"maxInFlight,omitempty"`
	// maxInFlightPerNode, counting source and destination.
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +optional
	MaxInFlightPerNode *int32 `json:"maxInFlightPerNode,omitempty"`
	// maxInFlightPerNamespace.
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=1
	// +optional
	MaxInFlightPerNamespace *int32 `json:"maxInFlightPerNamespace,omitempty"`
	// maxInFlightPerWorkload.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +optional
	MaxInFlightPerWorkload *int32 `json:"maxInFlightPerWorkload,omitempty"`
	// maxMovesPerCycle caps one plan.
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=1
	// +optional
	MaxMovesPerCycle *int32 `json:"maxMovesPerCycle,omitempty"`
}
