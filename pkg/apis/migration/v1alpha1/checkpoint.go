package v1alpha1

import (
	"path"
	"strconv"

	"k8s.io/apimachinery/pkg/api/meta"
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
	// StepCopy: the agent of the source node streams the volumes to the agent of the
	// destination, in passes while the pod runs.
	StepCopy CheckpointStep = "Copy"
	// StepSeal: the agent of the source node freezes the pod (mode Frozen), streams
	// the last changes, and seals; the agent of the destination verifies and syncs
	// what was sealed where the replacement, or the claim, has it.
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
	// previousClaim is the claim of an earlier migration that stays a volume of the pod,
	// beside the one of this migration.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	PreviousClaim string `json:"previousClaim,omitempty"`
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
	// SourceCopied: a complete pass is on the destination, and the next is short.
	SourceCopied  SourcePhase = "Copied"
	SourceSealing SourcePhase = "Sealing"
	// SourceSealed: the copy is complete, and verified and synced on the destination; in
	// mode Frozen the pod stays frozen until its end or until it is thawed.
	SourceSealed SourcePhase = "Sealed"
	// SourceThawed: the pod runs again, the seal is void.
	SourceThawed SourcePhase = "Thawed"
	SourceFailed SourcePhase = "Failed"
)

// ReportNoSpace is the reason of a report that the claim, or the volume of the
// destination, is full.
const ReportNoSpace = "NoSpace"

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
	// manifestDigest is the digest of the sealed manifest. The replacement is released
	// with nothing else.
	// +optional
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	ManifestDigest string `json:"manifestDigest,omitempty"`
	// fingerprint is that of the certificate with which this agent connects to the
	// agent of the destination, SHA-256 of its public key.
	// +optional
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	Fingerprint string `json:"fingerprint,omitempty"`
}

// DestinationPhase is how far the agent of the destination node is.
//
// +kubebuilder:validation:Enum=Receiving;Warm;Stored;Restoring;Restored;Released;Failed
type DestinationPhase string

const (
	// DestinationReceiving: the agent listens at the address for the agent of the source.
	DestinationReceiving DestinationPhase = "Receiving"
	// DestinationWarm: a complete pass is there, and nothing is sealed.
	DestinationWarm DestinationPhase = "Warm"
	// DestinationStored: what was sealed waits on the node for a replacement that starts
	// when the original has ended, synced, and on the claim where there is one.
	DestinationStored DestinationPhase = "Stored"
	// DestinationRestoring: what was sealed is being read from the claim.
	DestinationRestoring DestinationPhase = "Restoring"
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
	// podUID is the pod that the report is about: the replacement, or the placeholder
	// that holds its place.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`
	PodUID types.UID `json:"podUID,omitempty"`
	// address is where the agent listens for the agent of the source, host:port.
	// +optional
	// +kubebuilder:validation:MaxLength=261
	// +kubebuilder:validation:Pattern=`^(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+):[0-9]{1,5}$`
	Address string `json:"address,omitempty"`
	// fingerprint is that of the certificate with which the agent answers there, SHA-256
	// of its public key.
	// +optional
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	Fingerprint string `json:"fingerprint,omitempty"`
	// manifestDigest is the digest of the manifest of what is stored, or restored.
	// +optional
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	ManifestDigest string `json:"manifestDigest,omitempty"`
	// claimSealed says that what is sealed is on the claim too, synced.
	// +optional
	ClaimSealed bool `json:"claimSealed,omitempty"`
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
	// pass is the last complete pass of the source that is there.
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

// DestinationPod is the pod for which the agent of the destination works: the
// replacement as soon as it may have the state, before that the placeholder that holds its
// place; nil where there is neither.
func (m *PodMigration) DestinationPod() *PodReference {
	s := &m.Status
	isStopFirst := s.Handover != nil && s.Handover.Order == OrderStopFirst
	if r := s.Replacement; r != nil && r.UID != "" && r.NodeName != "" && (!isStopFirst || s.Times.OriginalGone != nil || s.Original == nil) {
		return r
	}
	if p := s.Placeholder; isStopFirst && p != nil && p.UID != "" && p.NodeName != "" {
		return p
	}
	return nil
}

// HeldNode is the node where a placeholder holds, or held, the place of the replacement; ""
// where there is none.
func (m *PodMigration) HeldNode() string {
	if p := m.Status.Placeholder; p != nil {
		return p.NodeName
	}
	return ""
}

// StateWaits reports whether a migration whose original stops first has ended after the
// original had, and no replacement has got its state: what was sealed stays in the waiting
// directory of HeldNode until the PodMigration is deleted.
func (m *PodMigration) StateWaits() bool {
	is := func(condition string) bool { return meta.IsStatusConditionTrue(m.Status.Conditions, condition) }
	return m.Status.Phase == PhaseFailed && m.Status.Checkpoint.Carries() && m.HeldNode() != "" &&
		is(ConditionCommitted) && is(ConditionSealed) && !is(ConditionReleased)
}

// WaitingDirectory is where, below the directory of the kubelet, the state of an attempt of a
// migration waits for a replacement that starts when the original has ended.
func WaitingDirectory(migration types.UID, attempt int32) string {
	return path.Join("ai-storage", string(migration), strconv.Itoa(int(attempt)), "volumes")
}
