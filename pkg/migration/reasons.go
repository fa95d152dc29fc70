package migration

// Reasons of conditions, events and metrics. Refusals of a pod have theirs in
// package containers.
const (
	ReasonAccepted         = "Accepted"
	ReasonWaitingForBudget = "WaitingForBudget"
	ReasonPrepared         = "Prepared"
	ReasonPlaced           = "Placed"
	ReasonReady            = "ReplacementReady"
	ReasonHandedOver       = "HandedOver"
	ReasonSucceeded        = "Succeeded"
	ReasonMeasured         = "Measured"
	ReasonUnavailable      = "MeasurementUnavailable"
	ReasonCreated          = "ReplacementCreated"

	ReasonMeasuring = "Measuring"
	ReasonCopying   = "Copying"
	ReasonCopied    = "Copied"
	ReasonSealing   = "Sealing"
	ReasonSealed    = "Sealed"
	ReasonReleased  = "Released"
	// ReasonOffered: the ReplicaSet has the replacement and deletes the original.
	ReasonOffered = "OfferedToOwner"
	// ReasonWaitingForOwner: a rollout or a scaling is in flight.
	ReasonWaitingForOwner = "WaitingForOwner"

	// ReasonSeveralBudgets: more than one PodDisruptionBudget matches the pod,
	// which the Eviction API does not evict.
	ReasonSeveralBudgets = "SeveralDisruptionBudgets"
	// ReasonSharedClaimNeeded: state is carried, and the checkpoint claim could
	// not be mounted on both nodes at once.
	ReasonSharedClaimNeeded = "SharedCheckpointNeeded"
	ReasonNodeAgentMissing  = "NodeAgentMissing"
	ReasonClaimTooSmall     = "ClaimTooSmall"
	ReasonCheckpointFailed  = "CheckpointFailed"
	ReasonRestoreFailed     = "RestoreFailed"
	ReasonCannotStart       = "ReplacementCannotStart"

	// ReasonContainersChanged: a container of the original finished or started,
	// so the replacement has to be built anew.
	ReasonContainersChanged = "ContainersChanged"
	// ReasonEvictionBlocked: a PodDisruptionBudget holds the original.
	ReasonEvictionBlocked = "EvictionBlocked"
	// ReasonDisrupted: others evicted the original while its replacement came up.
	ReasonDisrupted = "OriginalDisrupted"

	ReasonPodNotFound        = "PodNotFound"
	ReasonPodUIDMismatch     = "PodUIDMismatch"
	ReasonSourceNodeMismatch = "SourceNodeMismatch"
	ReasonTargetNodeNotFound = "TargetNodeNotFound"
	ReasonTargetIsSource     = "TargetIsSource"
	ReasonAlreadyMigrating   = "AlreadyMigrating"

	ReasonNameTaken           = "NameTaken"
	ReasonClaimRejected       = "ClaimRejected"
	ReasonReplacementRejected = "ReplacementRejected"
	ReasonUnschedulable       = "Unschedulable"
	ReasonLandedOnSource      = "LandedOnSource"
	ReasonLandedElsewhere     = "LandedElsewhere"
	ReasonReplacementFailed   = "ReplacementFailed"
	ReasonReplacementGone     = "ReplacementGone"
	ReasonTimedOut            = "TimedOut"
	ReasonOriginalFailed      = "OriginalFailed"

	ReasonCancelled        = "Cancelled"
	ReasonOriginalFinished = "OriginalFinished"
	ReasonOriginalDeleted  = "OriginalDeleted"
)

// isCancellation tells apart what somebody wanted, or what made the migration
// needless, from what went wrong.
func isCancellation(reason string) bool {
	return reason == ReasonCancelled || reason == ReasonOriginalFinished || reason == ReasonOriginalDeleted
}
