package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// CheckpointMode says how state that is not on persistent volumes is carried
// to the replacement.
//
// +kubebuilder:validation:Enum=Frozen;Process;Live;Application;None
type CheckpointMode string

const (
	// CheckpointFrozen carries every emptyDir; the pod is frozen for the last
	// copy, so that nothing it wrote and acknowledged is lost.
	CheckpointFrozen CheckpointMode = "Frozen"
	// CheckpointProcess carries what Frozen does, the writable layers of containers
	// and the memory of their processes, all of one instant: the processes continue
	// where they were frozen.
	CheckpointProcess CheckpointMode = "Process"
	// CheckpointLive carries every emptyDir without freezing the pod: it is
	// copied until two passes agree. What is written after that is lost.
	CheckpointLive CheckpointMode = "Live"
	// CheckpointApplication leaves saving to the application: on SIGTERM it
	// writes to the claim that its author mounted at CheckpointMountPath and named
	// in CheckpointClaimAnnotation.
	CheckpointApplication CheckpointMode = "Application"
	// CheckpointNone carries nothing: the content of every emptyDir is lost.
	CheckpointNone CheckpointMode = "None"
)

// CheckpointModes are all modes, the default first.
var CheckpointModes = []CheckpointMode{CheckpointFrozen, CheckpointProcess, CheckpointLive, CheckpointApplication, CheckpointNone}

// CarriesVolumes reports whether the node agents carry emptyDirs in this mode.
// An empty mode is the default, Frozen.
func (m CheckpointMode) CarriesVolumes() bool {
	return m == "" || m == CheckpointFrozen || m == CheckpointLive || m == CheckpointProcess
}

// CheckpointFallback says what happens to a pod whose processes cannot move.
//
// +kubebuilder:validation:Enum=None;FreshStart
type CheckpointFallback string

const (
	// FallbackNone fails the migration: the original continues where it is.
	FallbackNone CheckpointFallback = "None"
	// FallbackFreshStart continues in mode Frozen: the volumes move, and the
	// containers start afresh.
	FallbackFreshStart CheckpointFallback = "FreshStart"
)

// CheckpointFallbacks are all of them, the default first.
var CheckpointFallbacks = []CheckpointFallback{FallbackNone, FallbackFreshStart}

// RestoredState says what a replacement continues with.
//
// +kubebuilder:validation:Enum=Processes;Volumes
type RestoredState string

const (
	RestoredProcesses RestoredState = "Processes"
	RestoredVolumes   RestoredState = "Volumes"
)

// CheckpointMode is how state is carried: as it was accepted, or as it was requested.
func (m *PodMigration) CheckpointMode() CheckpointMode {
	switch {
	case m.Status.Checkpoint != nil && m.Status.Checkpoint.Mode != "":
		return m.Status.Checkpoint.Mode
	case m.Spec.Checkpoint.Mode != "":
		return m.Spec.Checkpoint.Mode
	}
	return CheckpointFrozen
}

// CheckpointUID is the UID below which the checkpoint lies on the claim.
func (m *PodMigration) CheckpointUID() types.UID {
	if c := m.Status.Checkpoint; c != nil && c.SealedBy != "" {
		return c.SealedBy
	}
	return m.UID
}

// ReplacementMethod says how the replacement of a pod comes to be.
//
// +kubebuilder:validation:Enum=Create;Adopt;Release;Recreate
type ReplacementMethod string

const (
	// MethodCreate: nobody owns the pod, the controller creates the replacement.
	MethodCreate ReplacementMethod = "Create"
	// MethodAdopt: the controller creates the replacement; once it is ready, its
	// ReplicaSet adopts it and the original is evicted.
	MethodAdopt ReplacementMethod = "Adopt"
	// MethodRelease: the original is released by its owner, which creates
	// another pod at once; the admission webhook turns that pod into the replacement.
	MethodRelease ReplacementMethod = "Release"
	// MethodRecreate: the owner creates another pod once the original is gone; the
	// admission webhook turns that pod into the replacement.
	MethodRecreate ReplacementMethod = "Recreate"
)

// HandoverOrder says whether original and replacement may overlap.
//
// +kubebuilder:validation:Enum=StartFirst;StopFirst
type HandoverOrder string

const (
	// OrderStartFirst: the replacement becomes ready while the original runs.
	OrderStartFirst HandoverOrder = "StartFirst"
	// OrderStopFirst: the original ends before the replacement can start,
	// because both need a volume that only one node can have, or one name. A
	// placeholder pod holds the place meanwhile.
	OrderStopFirst HandoverOrder = "StopFirst"
)

// Handover is the way from original to replacement, chosen when the migration
// is accepted.
type Handover struct {
	Method ReplacementMethod `json:"method"`
	Order  HandoverOrder     `json:"order"`
	// reason says in a sentence why the order is what it is.
	// +optional
	Reason string `json:"reason,omitempty"`
	// owner is the controller of the original; absent when it has none.
	// +optional
	Owner *metav1.OwnerReference `json:"owner,omitempty"`
	// identity is what the owner's next pod must be to take over: the pod name
	// of a StatefulSet, the completion index of an indexed Job. Empty: any.
	// +optional
	Identity string `json:"identity,omitempty"`
	// probedAt is when the admission webhook answered for the owner's next pod, by the
	// clock of the API server. A pod of the owner that is older was not created in place
	// of the original.
	// +optional
	ProbedAt *metav1.Time `json:"probedAt,omitempty"`
	// withdrawals counts how often the end of the original was begun and withdrawn.
	// +optional
	Withdrawals int32 `json:"withdrawals,omitempty"`
}

// CheckpointStep is what the controller asks of the node agents.
//
// +kubebuilder:validation:Enum=Measure;Copy;Seal;Release;Abort
type CheckpointStep string

const (
	// StepMeasure: the agent of the source node measures the volumes.
	StepMeasure CheckpointStep = "Measure"
	// StepCopy: the agent of the source node copies the volumes in passes while
	// the pod runs; the agent of the destination restores what is complete.
	StepCopy CheckpointStep = "Copy"
	// StepSeal: the agent of the source node freezes the pod (mode Frozen), copies
	// the last changes, verifies and seals; the agent of the destination restores
	// and verifies what was sealed.
	StepSeal CheckpointStep = "Seal"
	// StepRelease: the agent of the destination lets the containers of the
	// replacement start. From here on the replacement is the working copy.
	StepRelease CheckpointStep = "Release"
	// StepAbort: the agent of the source node thaws the original.
	StepAbort CheckpointStep = "Abort"
)

// CheckpointStatus is how far the checkpoint is. The controller writes
// everything but source and destination, which belong to the node agents. All
// of them write under the guard of the resourceVersion, so that an agent cannot
// thaw a pod whose replacement is being released, nor the reverse.
type CheckpointStatus struct {
	Mode CheckpointMode `json:"mode"`
	// volumes are the emptyDirs whose content is carried, sorted.
	// +optional
	// +listType=atomic
	Volumes []string `json:"volumes,omitempty"`
	// processes are the containers whose processes move, sorted (mode Process).
	// +optional
	// +listType=atomic
	Processes []string `json:"processes,omitempty"`
	// restored says what the replacement continued with, once it was released.
	// +optional
	Restored RestoredState `json:"restored,omitempty"`
	// fallbackReason says why the processes could not move, where the migration
	// continued with the volumes alone.
	// +optional
	FallbackReason string `json:"fallbackReason,omitempty"`
	// claimReused says that the claim is the one of an earlier migration, which
	// the original brought along.
	// +optional
	ClaimReused bool `json:"claimReused,omitempty"`
	// manifest is the original as it was when the last copy was asked for, as JSON. It is
	// kept after the end only where the claim has the only copy: the pod is recovered
	// from it. Absent where it was too large.
	// +optional
	Manifest string `json:"manifest,omitempty"`
	// recoveredFrom is the UID of the migration that kept the claim, in one that recovers
	// the pod.
	// +optional
	RecoveredFrom types.UID `json:"recoveredFrom,omitempty"`
	// sealedBy is the UID of the migration that has written what is on the claim, where
	// that is another one.
	// +optional
	SealedBy types.UID `json:"sealedBy,omitempty"`
	// carrier is the pod that mounts the claim on the source node.
	// +optional
	Carrier *PodReference `json:"carrier,omitempty"`
	// +optional
	Step CheckpointStep `json:"step,omitempty"`
	// attempt grows when the preparation restarts. Reports of another attempt
	// are void.
	// +optional
	Attempt int32 `json:"attempt,omitempty"`
	// +optional
	Source *SourceReport `json:"source,omitempty"`
	// +optional
	Destination *DestinationReport `json:"destination,omitempty"`
}

// Carries reports whether node agents carry anything.
func (c *CheckpointStatus) Carries() bool {
	return c != nil && (len(c.Volumes) > 0 || len(c.Processes) > 0)
}

// SourcePhase is how far the agent of the source node is.
//
// +kubebuilder:validation:Enum=Measured;Copying;Copied;Sealing;Sealed;Thawed;Failed
type SourcePhase string

const (
	SourceMeasured SourcePhase = "Measured"
	SourceCopying  SourcePhase = "Copying"
	// SourceCopied: a complete pass is on the claim, and the next is short.
	SourceCopied  SourcePhase = "Copied"
	SourceSealing SourcePhase = "Sealing"
	// SourceSealed: the copy is complete and verified; in mode Frozen the pod
	// stays frozen until its end or until it is thawed.
	SourceSealed SourcePhase = "Sealed"
	// SourceThawed: the pod runs again, the seal is void.
	SourceThawed SourcePhase = "Thawed"
	SourceFailed SourcePhase = "Failed"
)

// ReportNoSpace is the reason of a report that the claim is full.
const ReportNoSpace = "NoSpace"

// ReportNoManifest is the reason of a report that there is no complete pass of the
// migration on the claim.
const ReportNoManifest = "NoManifest"

// ReportProcessNotMovable is the reason of a report that the memory of a pod's
// processes cannot be carried, while its volumes could.
const ReportProcessNotMovable = "ProcessNotMovable"

// SourceReport is what the agent of the source node reports.
type SourceReport struct {
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	Node string `json:"node"`
	// +kubebuilder:validation:Minimum=0
	Attempt int32       `json:"attempt"`
	Phase   SourcePhase `json:"phase"`
	// reason is a CamelCase word when phase is Failed.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]*$`
	Reason string `json:"reason,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
	// bytes and files are the content of the volumes: measured, then copied.
	// Bytes count allocated data, not holes.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Bytes int64 `json:"bytes,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	Files int64 `json:"files,omitempty"`
	// pass is the number of the current or last pass, from 1.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Pass int32 `json:"pass,omitempty"`
	// passBytes is what the current or last pass had to write.
	// +optional
	// +kubebuilder:validation:Minimum=0
	PassBytes int64 `json:"passBytes,omitempty"`
	// frozenAt and sealedAt bound the time in which the pod was frozen.
	// +optional
	FrozenAt *metav1.MicroTime `json:"frozenAt,omitempty"`
	// dumpedAt is when the memory of the processes had been read (mode Process).
	// +optional
	DumpedAt *metav1.MicroTime `json:"dumpedAt,omitempty"`
	// +optional
	SealedAt *metav1.MicroTime `json:"sealedAt,omitempty"`
	// manifestDigest is the digest of the sealed manifest, "sha256:…". The
	// destination restores nothing else.
	// +optional
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	ManifestDigest string `json:"manifestDigest,omitempty"`
}

// DestinationPhase is how far the agent of the destination node is.
//
// +kubebuilder:validation:Enum=Restoring;Warm;Restored;Released;Failed
type DestinationPhase string

const (
	// DestinationRestoring: a complete pass is being restored, or, with the reason
	// NoManifest, looked for.
	DestinationRestoring DestinationPhase = "Restoring"
	// DestinationWarm: a complete pass was restored before the seal.
	DestinationWarm DestinationPhase = "Warm"
	// DestinationRestored: what was sealed is restored and verified; in mode Process
	// the processes are there too, stopped.
	DestinationRestored DestinationPhase = "Restored"
	// DestinationReleased: the containers of the replacement may start.
	DestinationReleased DestinationPhase = "Released"
	DestinationFailed   DestinationPhase = "Failed"
)

// DestinationReport is what the agent of the destination node reports.
type DestinationReport struct {
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	Node string `json:"node"`
	// +kubebuilder:validation:Minimum=0
	Attempt int32            `json:"attempt"`
	Phase   DestinationPhase `json:"phase"`
	// podUID is the replacement that was restored into.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`
	PodUID types.UID `json:"podUID,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]*$`
	Reason string `json:"reason,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	Bytes int64 `json:"bytes,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	Files int64 `json:"files,omitempty"`
	// pass is the pass of the source that was restored.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Pass int32 `json:"pass,omitempty"`
	// +optional
	RestoredAt *metav1.MicroTime `json:"restoredAt,omitempty"`
	// +optional
	ReleasedAt *metav1.MicroTime `json:"releasedAt,omitempty"`
}

// ReportFreezeTooLong is the reason of a report by an agent that could not seal within
// the time in which the pod may be frozen.
const ReportFreezeTooLong = "FreezeTooLong"
