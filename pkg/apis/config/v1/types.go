package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
// +k8s:defaulter-gen=true

// CheckpointVolumeArgs tunes the plugin that brings checkpoint claims to the
// chosen node.
type CheckpointVolumeArgs struct {
	metav1.TypeMeta `json:",inline"`

	// attachTimeout bounds two waits in PreBind: for the volume to be released by
	// the source node, and then for it to be attached to the chosen one. Default
	// 2m.
	AttachTimeout *metav1.Duration `json:"attachTimeout,omitempty"`
	// failedNodeBackoff is how long a node stays out after an attach to it
	// failed. Default 5m.
	FailedNodeBackoff *metav1.Duration `json:"failedNodeBackoff,omitempty"`
}

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
// +k8s:defaulter-gen=true

// RebalanceArgs tunes the score plugin and the rebalancing loop.
type RebalanceArgs struct {
	metav1.TypeMeta `json:",inline"`

	// interval between two cycles of the loop. Default 30s.
	Interval *metav1.Duration `json:"interval,omitempty"`
	// nodeSelector limits the loop to the nodes it selects. Default: all nodes.
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
	// thresholds above which a node is hot.
	Thresholds UtilizationThresholds `json:"thresholds,omitempty"`
	// metricsMaxAge is the age at which a measurement is no longer used. A node
	// without a fresh one is left alone. Default 2m.
	MetricsMaxAge *metav1.Duration `json:"metricsMaxAge,omitempty"`
	// budget limits how much is disrupted at once.
	Budget BudgetArgs `json:"budget,omitempty"`
	// cooldown is how long a workload is left alone after one of its pods
	// moved. Default 10m.
	Cooldown *metav1.Duration `json:"cooldown,omitempty"`
	// minimumPodAge keeps younger pods where they are. Default 1m.
	MinimumPodAge *metav1.Duration `json:"minimumPodAge,omitempty"`
	// priorityCeiling is the highest pod priority that the loop moves.
	// Default 1000000000, the highest that a user may give.
	PriorityCeiling *int32 `json:"priorityCeiling,omitempty"`
	// migrationTimeout is the timeout of the PodMigrations that the loop
	// creates. Default 10m.
	MigrationTimeout *metav1.Duration `json:"migrationTimeout,omitempty"`
	// reclaim is about finished containers of pods that stay where they are.
	Reclaim ReclaimArgs `json:"reclaim,omitempty"`
}

// ReclaimArgs tunes the shrinking of finished containers in place.
type ReclaimArgs struct {
	// enabled shrinks them. Containers that were shrunk before and start again
	// get their requests back in any case. Default true.
	Enabled *bool `json:"enabled,omitempty"`
}

// UtilizationThresholds are percentages of a node's allocatable, 1 to 100.
type UtilizationThresholds struct {
	// cpu defaults to 70.
	CPU *int32 `json:"cpu,omitempty"`
	// memory defaults to 80.
	Memory *int32 `json:"memory,omitempty"`
}

// BudgetArgs limits migrations. One is in flight from its acceptance until its
// original is gone, or everything is put back.
type BudgetArgs struct {
	// maxInFlight in the whole cluster. Default 5.
	MaxInFlight *int32 `json:"maxInFlight,omitempty"`
	// maxInFlightPerNode, counting source and destination. Default 2.
	MaxInFlightPerNode *int32 `json:"maxInFlightPerNode,omitempty"`
	// maxInFlightPerNamespace. Default 5.
	MaxInFlightPerNamespace *int32 `json:"maxInFlightPerNamespace,omitempty"`
	// maxInFlightPerWorkload. Default 1.
	MaxInFlightPerWorkload *int32 `json:"maxInFlightPerWorkload,omitempty"`
	// maxMovesPerCycle caps one plan. Default 5.
	MaxMovesPerCycle *int32 `json:"maxMovesPerCycle,omitempty"`
}
