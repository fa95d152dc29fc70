package config

import (
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
	// Thresholds above which a node is hot.
	Thresholds UtilizationThresholds
	// MetricsMaxAge is the age at which a measurement is no longer used. A node
	// without a fresh one is left alone.
	MetricsMaxAge metav1.Duration
	// Budget limits how much is disrupted at once.
	Budget BudgetArgs
	// Cooldown is how long a workload is left alone after one of its pods moved.
	Cooldown metav1.Duration
	// MinimumPodAge keeps younger pods where they are.
	MinimumPodAge metav1.Duration
	// PriorityCeiling is the highest pod priority that the loop moves.
	PriorityCeiling int32
	// MigrationTimeout is the timeout of the PodMigrations the loop creates.
	MigrationTimeout metav1.Duration
	// Reclaim is about finished containers of pods that stay where they are.
	Reclaim ReclaimArgs
}

// ReclaimArgs tunes the shrinking of finished containers in place.
type ReclaimArgs struct {
	// Enabled shrinks them. Containers that were shrunk before and start again get
	// their requests back in any case.
	Enabled bool
}

// UtilizationThresholds are percentages of a node's allocatable.
type UtilizationThresholds struct {
	CPU    int32
	Memory int32
}

// BudgetArgs limits migrations. One is in flight from its acceptance until its
// original is gone, or everything is put back.
type BudgetArgs struct {
	MaxInFlight             int32
	MaxInFlightPerNode      int32
	MaxInFlightPerNamespace int32
	MaxInFlightPerWorkload  int32
	MaxMovesPerCycle        int32
}
