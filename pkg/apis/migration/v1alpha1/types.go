package v1alpha1

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// PodMigration moves one pod of its namespace to another node. Its spec is the
// request: only cancel, reason and ttlSecondsAfterFinished can be changed once it
// was created. Its status is the only memory of the controller.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=pmig,categories=all
// +kubebuilder:printcolumn:name="Pod",type=string,JSONPath=`.spec.podName`
// +kubebuilder:printcolumn:name="From",type=string,JSONPath=`.status.original.nodeName`
// +kubebuilder:printcolumn:name="To",type=string,JSONPath=`.status.replacement.nodeName`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Replacement",type=string,priority=1,JSONPath=`.status.replacement.name`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.message`
type PodMigration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec PodMigrationSpec `json:"spec"`
	// +optional
	Status PodMigrationStatus `json:"status,omitempty"`
}

// PodMigrationList is a list of PodMigration.
//
// +kubebuilder:object:root=true
type PodMigrationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PodMigration `json:"items"`
}

// PodMigrationSpec says which pod moves, and how.
//
// +kubebuilder:validation:XValidation:rule="self.podName == oldSelf.podName",message="podName cannot be changed: create another PodMigration"
// +kubebuilder:validation:XValidation:rule="has(self.podUID) == has(oldSelf.podUID) && (!has(self.podUID) || self.podUID == oldSelf.podUID)",message="podUID cannot be changed: create another PodMigration"
// +kubebuilder:validation:XValidation:rule="has(self.sourceNode) == has(oldSelf.sourceNode) && (!has(self.sourceNode) || self.sourceNode == oldSelf.sourceNode)",message="sourceNode cannot be changed: create another PodMigration"
// +kubebuilder:validation:XValidation:rule="has(self.targetNode) == has(oldSelf.targetNode) && (!has(self.targetNode) || self.targetNode == oldSelf.targetNode)",message="targetNode cannot be changed: create another PodMigration"
// +kubebuilder:validation:XValidation:rule="has(self.plannedNode) == has(oldSelf.plannedNode) && (!has(self.plannedNode) || self.plannedNode == oldSelf.plannedNode)",message="plannedNode cannot be changed: create another PodMigration"
// +kubebuilder:validation:XValidation:rule="has(self.recoverFrom) == has(oldSelf.recoverFrom) && (!has(self.recoverFrom) || self.recoverFrom == oldSelf.recoverFrom)",message="recoverFrom cannot be changed: create another PodMigration"
// +kubebuilder:validation:XValidation:rule="!has(self.recoverFrom) || !has(self.podUID) && !has(self.sourceNode)",message="recoverFrom starts a pod that does not exist: leave podUID and sourceNode out"
// +kubebuilder:validation:XValidation:rule="self.waiting == oldSelf.waiting && self.timeoutSeconds == oldSelf.timeoutSeconds && self.forceRestart == oldSelf.forceRestart && self.checkpoint == oldSelf.checkpoint",message="waiting, timeoutSeconds, forceRestart and checkpoint cannot be changed: create another PodMigration"
// +kubebuilder:validation:XValidation:rule="!has(self.targetNode) || !has(self.sourceNode) || self.targetNode != self.sourceNode",message="targetNode must differ from sourceNode"
// +kubebuilder:validation:XValidation:rule="!oldSelf.cancel || self.cancel",message="a cancelled migration cannot be resumed: create another PodMigration"
type PodMigrationSpec struct {
	// podName is the pod to move, in the namespace of this object. With recoverFrom it is
	// the pod to start, and must not exist.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	PodName string `json:"podName"`

	// recoverFrom names a PodMigration of this namespace that has failed and kept the
	// only copy of its pod's state on its checkpoint claim. The pod is started again
	// with that state, under the name podName.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	RecoverFrom string `json:"recoverFrom,omitempty"`

	// podUID, when set, must be the UID of the pod: a pod that was recreated
	// under the same name is then not moved by mistake. The rebalancer sets it.
	// +optional
	PodUID types.UID `json:"podUID,omitempty"`

	// sourceNode, when set, must be the node that the pod runs on.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	SourceNode string `json:"sourceNode,omitempty"`

	// targetNode, when set, is the only node that the scheduler may choose.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	TargetNode string `json:"targetNode,omitempty"`

	// plannedNode is the node that the rebalancer expects. The scheduler prefers
	// it and may choose another.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	PlannedNode string `json:"plannedNode,omitempty"`

	// waiting says what happens to a container that has never started.
	// +optional
	// +kubebuilder:default=Strip
	Waiting WaitingPolicy `json:"waiting,omitempty"`

	// checkpoint describes the claim that carries state over.
	// +optional
	// +kubebuilder:default={}
	Checkpoint CheckpointSpec `json:"checkpoint,omitempty"`

	// forceRestart makes the original stop before its replacement starts, also
	// where both could run side by side. State is carried all the same.
	// +optional
	// +kubebuilder:default=false
	ForceRestart bool `json:"forceRestart,omitempty"`

	// timeoutSeconds bounds the migration from its start to the eviction of the
	// original, in seconds. When it runs out, the migration is rolled back.
	// +optional
	// +kubebuilder:default=600
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	TimeoutSeconds int32 `json:"timeoutSeconds,omitempty"`

	// ttlSecondsAfterFinished removes this object that many seconds after it
	// finished. Unset keeps it. The replacement is never removed by it.
	// +optional
	// +kubebuilder:validation:Minimum=0
	TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished,omitempty"`

	// cancel rolls the migration back, as long as it is not committed. It cannot be
	// undone.
	// +optional
	// +kubebuilder:default=false
	Cancel bool `json:"cancel,omitempty"`

	// reason says for humans why the pod moves. The rebalancer writes the gain
	// that it expects.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`
}

// WaitingPolicy says what happens to a container that has never started.
//
// +kubebuilder:validation:Enum=Strip;Keep
type WaitingPolicy string

const (
	// WaitingStrip leaves containers that never started out of the replacement.
	WaitingStrip WaitingPolicy = "Strip"
	// WaitingKeep takes them along.
	WaitingKeep WaitingPolicy = "Keep"
)

// CheckpointSpec describes the checkpoint claim.
type CheckpointSpec struct {
	// mode says how the state of the pod is carried.
	// +optional
	// +kubebuilder:default=Frozen
	Mode CheckpointMode `json:"mode,omitempty"`

	// fallback says what happens in mode Process when the processes cannot move:
	// None fails the migration and the original continues, FreshStart continues
	// the migration in mode Frozen.
	// +optional
	// +kubebuilder:default=None
	Fallback CheckpointFallback `json:"fallback,omitempty"`

	// maxFreezeSeconds bounds how long the pod stays frozen until its replacement
	// continues, in seconds. Half of it is for the time until the last copy is
	// sealed. A migration that takes longer is rolled back, and the original is
	// thawed. Much memory needs more.
	// +optional
	// +kubebuilder:default=60
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600
	MaxFreezeSeconds int32 `json:"maxFreezeSeconds,omitempty"`

	// claim says whether a checkpoint claim is made. Always makes one. WhenNeeded makes
	// one where the original has to stop before its replacement starts and state is
	// carried: between the two pods nothing but a disk of the destination would have it.
	// Never makes none. A claim that the pod brought along is kept in any case.
	// +optional
	// +kubebuilder:default=WhenNeeded
	Claim ClaimPolicy `json:"claim,omitempty"`

	// size of the claim. It is made larger when the pod holds more.
	// +optional
	// +kubebuilder:default="1Gi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isGreaterThan(quantity('0'))",message="size must be greater than 0"
	Size *resource.Quantity `json:"size,omitempty"`

	// storageClassName of the claim; unset uses the default class.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	StorageClassName *string `json:"storageClassName,omitempty"`

	// accessMode of the claim; unset is ReadWriteOnce. The claim is mounted on the
	// destination alone.
	// +optional
	// +kubebuilder:validation:Enum=ReadWriteOnce;ReadWriteMany;ReadWriteOncePod
	AccessMode corev1.PersistentVolumeAccessMode `json:"accessMode,omitempty"`

	// reclaimPolicy says whether the claim outlives the replacement. Retain
	// leaves it; Delete removes it together with the replacement.
	// +optional
	// +kubebuilder:default=Delete
	// +kubebuilder:validation:Enum=Retain;Delete
	ReclaimPolicy ClaimReclaimPolicy `json:"reclaimPolicy,omitempty"`
}

// DefaultMaxFreeze bounds how long an original stays frozen where its migration does
// not say.
const DefaultMaxFreeze = time.Minute

// MaxFreeze bounds how long the original stays frozen until its replacement
// continues.
func (c CheckpointSpec) MaxFreeze() time.Duration {
	if c.MaxFreezeSeconds == 0 {
		return DefaultMaxFreeze
	}
	return time.Duration(c.MaxFreezeSeconds) * time.Second
}

// ClaimAccessMode is the access mode of the claim: as it was requested, or the default.
func (c CheckpointSpec) ClaimAccessMode() corev1.PersistentVolumeAccessMode {
	return cmp.Or(c.AccessMode, corev1.ReadWriteOnce)
}

// ClaimPolicy says whether a claim is made: as it was requested, or the default. One that
// is to be retained was asked for.
func (c CheckpointSpec) ClaimPolicy() ClaimPolicy {
	if c.ReclaimPolicy == ClaimRetain {
		return ClaimAlways
	}
	return cmp.Or(c.Claim, ClaimWhenNeeded)
}

// ClaimPolicy says whether a migration makes a checkpoint claim.
//
// +kubebuilder:validation:Enum=WhenNeeded;Always;Never
type ClaimPolicy string

const (
	ClaimWhenNeeded ClaimPolicy = "WhenNeeded"
	ClaimAlways     ClaimPolicy = "Always"
	ClaimNever      ClaimPolicy = "Never"
)

// ClaimPolicies are all of them, the default first.
var ClaimPolicies = []ClaimPolicy{ClaimWhenNeeded, ClaimAlways, ClaimNever}

// ClaimReclaimPolicy says whether a checkpoint claim outlives its replacement.
type ClaimReclaimPolicy string

const (
	ClaimRetain ClaimReclaimPolicy = "Retain"
	ClaimDelete ClaimReclaimPolicy = "Delete"
)

// Phase summarises the conditions for humans; the controller decides by the
// conditions and by what exists.
//
// +kubebuilder:validation:Enum=Pending;Preparing;Placing;HandingOver;Succeeded;Failed;Cancelled
type Phase string

const (
	PhasePending     Phase = "Pending"
	PhasePreparing   Phase = "Preparing"
	PhasePlacing     Phase = "Placing"
	PhaseHandingOver Phase = "HandingOver"
	PhaseSucceeded   Phase = "Succeeded"
	PhaseFailed      Phase = "Failed"
	PhaseCancelled   Phase = "Cancelled"
)

// IsFinished reports whether a phase is final.
func (p Phase) IsFinished() bool {
	return p == PhaseSucceeded || p == PhaseFailed || p == PhaseCancelled
}

// Step names one thing that has to be so before a migration goes further. Their order
// is in docs/migration.md.
//
// +kubebuilder:validation:MaxLength=64
type Step string

// PodMigrationStatus is the memory of the controller.
type PodMigrationStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	Phase Phase `json:"phase,omitempty"`
	// step is what is being done, or waited for.
	// +optional
	Step Step `json:"step,omitempty"`
	// message explains the phase in a sentence.
	// +optional
	Message string `json:"message,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// original is the pod as it was found when the migration started.
	// +optional
	Original *PodReference `json:"original,omitempty"`
	// replacement is the pod that takes over. Its name is given when the
	// migration is accepted; it has a UID once the pod was created.
	// +optional
	Replacement *PodReference `json:"replacement,omitempty"`
	// checkpointClaim is the name of the checkpoint claim, given when the
	// migration is accepted.
	// +optional
	CheckpointClaim string `json:"checkpointClaim,omitempty"`

	// handover is the way chosen from original to replacement.
	// +optional
	Handover *Handover `json:"handover,omitempty"`
	// placeholder holds the place of the replacement when the original has to
	// stop first.
	// +optional
	Placeholder *PodReference `json:"placeholder,omitempty"`
	// checkpoint is how far the checkpoint is.
	// +optional
	Checkpoint *CheckpointStatus `json:"checkpoint,omitempty"`
	// downtime is the time from the last moment at which the original could
	// run to the moment at which the replacement was Ready; 0 when they
	// overlapped.
	// +optional
	Downtime *metav1.Duration `json:"downtime,omitempty"`

	// containers holds the verdict on every container of the original.
	// +optional
	// +listType=map
	// +listMapKey=name
	Containers []ContainerVerdict `json:"containers,omitempty"`

	// before and after are the resources of the original and of the replacement.
	// +optional
	Before *ResourceRecord `json:"before,omitempty"`
	// +optional
	After *ResourceRecord `json:"after,omitempty"`

	// times of the steps.
	// +optional
	Times StepTimes `json:"times,omitempty"`
}

// PodReference points at one pod, by UID.
type PodReference struct {
	// +optional
	Name string `json:"name,omitempty"`
	// +optional
	UID types.UID `json:"uid,omitempty"`
	// +optional
	NodeName string `json:"nodeName,omitempty"`
}

// ContainerVerdict says whether a container moves, and why.
type ContainerVerdict struct {
	Name string `json:"name"`
	// kind is Container, Init, Sidecar or Ephemeral.
	Kind ContainerKind `json:"kind"`
	// state is what was found, such as Running, Completed, Failed or Waiting.
	State ContainerState `json:"state"`
	// shouldMigrate says whether the replacement has this container.
	ShouldMigrate bool `json:"shouldMigrate"`
	// reason is a CamelCase word for programs.
	Reason string `json:"reason"`
	// message is a human-readable sentence.
	// +optional
	Message string `json:"message,omitempty"`
}

// ContainerKind is the role of a container in its pod.
type ContainerKind string

const (
	KindContainer ContainerKind = "Container"
	KindInit      ContainerKind = "Init"
	KindSidecar   ContainerKind = "Sidecar"
	KindEphemeral ContainerKind = "Ephemeral"
)

// ContainerState is what a container was found doing.
type ContainerState string

const (
	StateRunning   ContainerState = "Running"
	StateCompleted ContainerState = "Completed"
	StateFailed    ContainerState = "Failed"
	StateWaiting   ContainerState = "Waiting"
)

// ResourceRecord holds what a pod requests and what it was measured to use.
type ResourceRecord struct {
	// requests are those of the pod as the scheduler counts them; of an original
	// whose finished containers were shrunk in place, those from before that.
	// +optional
	Requests corev1.ResourceList `json:"requests,omitempty"`
	// usage is the measured use; absent when it could not be measured.
	// +optional
	Usage corev1.ResourceList `json:"usage,omitempty"`
	// source names where usage comes from: metrics.k8s.io, or Unavailable.
	// +optional
	Source UsageSource `json:"source,omitempty"`
	// measuredAt is the timestamp that the source gave.
	// +optional
	MeasuredAt *metav1.Time `json:"measuredAt,omitempty"`
	// windowSeconds is the length of the measurement, in seconds.
	// +optional
	WindowSeconds int32 `json:"windowSeconds,omitempty"`
}

// UsageSource names where a measured use comes from.
type UsageSource string

const (
	UsageFromMetricsAPI UsageSource = "metrics.k8s.io"
	UsageUnavailable    UsageSource = "Unavailable"
)

// StepTimes are the moments at which the steps of a migration were reached.
type StepTimes struct {
	// +optional
	Started *metav1.MicroTime `json:"started,omitempty"`
	// +optional
	Prepared *metav1.MicroTime `json:"prepared,omitempty"`
	// copied is when the first complete copy was on the destination.
	// +optional
	Copied *metav1.MicroTime `json:"copied,omitempty"`
	// +optional
	Placed *metav1.MicroTime `json:"placed,omitempty"`
	// handingOver is when the phase HandingOver began.
	// +optional
	HandingOver *metav1.MicroTime `json:"handingOver,omitempty"`
	// stopped is the last moment at which the original could run.
	// +optional
	Stopped *metav1.MicroTime `json:"stopped,omitempty"`
	// +optional
	Sealed *metav1.MicroTime `json:"sealed,omitempty"`
	// released is when the containers of the replacement were allowed to start.
	// +optional
	Released *metav1.MicroTime `json:"released,omitempty"`
	// +optional
	ReplacementReady *metav1.MicroTime `json:"replacementReady,omitempty"`
	// +optional
	OriginalGone *metav1.MicroTime `json:"originalGone,omitempty"`
	// +optional
	Finished *metav1.MicroTime `json:"finished,omitempty"`
}
