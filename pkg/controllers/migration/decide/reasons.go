package decide

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
	// ReasonAnnounced, ReasonWebhookAnswers and ReasonReplacementRecorded: the next
	// pod of the owner is to become the replacement, the webhook answers, it has.
	ReasonAnnounced           = "Announced"
	ReasonWebhookAnswers      = "WebhookAnswers"
	ReasonReplacementRecorded = "ReplacementRecorded"
	// ReasonPodsRefused: the API server refuses the next pod of the owner.
	ReasonPodsRefused        = "PodsRefused"
	ReasonPlaceholderCreated = "PlaceholderCreated"
	// ReasonOffered: the ReplicaSet has the replacement and deletes the original.
	ReasonOffered = "OfferedToOwner"
	// ReasonWaitingForOwner: a rollout or a scaling is in flight.
	ReasonWaitingForOwner = "WaitingForOwner"

	// ReasonSeveralBudgets: more than one PodDisruptionBudget matches the pod,
	// which the Eviction API does not evict.
	ReasonSeveralBudgets   = "SeveralDisruptionBudgets"
	ReasonNodeAgentMissing = "NodeAgentMissing"
	// ReasonNodeNotReady: a node that is needed has not been Ready for a while.
	ReasonNodeNotReady = "NodeNotReady"
	// ReasonFrozenTooLong: the original was frozen for the last copy, and the
	// replacement could not continue with it in time.
	ReasonFrozenTooLong = "FrozenTooLong"
	// ReasonProbeEndsFrozen: the kubelet would end a container of the frozen pod at once.
	ReasonProbeEndsFrozen = "ProbeEndsFrozenPod"
	// ReasonProcessNotMovable: the memory of the pod's processes cannot be carried.
	// ReasonProcessNeedsOverlap: it could, were the original not to stop first.
	ReasonProcessNotMovable   = "ProcessNotMovable"
	ReasonProcessNeedsOverlap = "ProcessNeedsOverlap"
	// ReasonNodeWithoutCRIU: the node cannot dump processes.
	ReasonNodeWithoutCRIU = "NodeCannotCheckpoint"
	// ReasonImagePullSecretMissing: a Secret by which the node agent's image is pulled is
	// not in the namespace of the pod.
	ReasonImagePullSecretMissing = "ImagePullSecretMissing"
	// ReasonNoStorageClass: nothing would provision the checkpoint claim.
	ReasonNoStorageClass = "NoStorageClass"
	// ReasonImageDiffers: the destination has another image under the same name.
	ReasonImageDiffers     = "ImageDiffers"
	ReasonClaimTooSmall    = "ClaimTooSmall"
	ReasonCheckpointFailed = "CheckpointFailed"
	ReasonRestoreFailed    = "RestoreFailed"
	ReasonCannotStart      = "ReplacementCannotStart"
	// ReasonWebhookMissing: the admission webhook does not answer.
	// ReasonWebhookMissed: the owner created a pod while it did not.
	ReasonWebhookMissing     = "WebhookMissing"
	ReasonWebhookMissed      = "WebhookMissed"
	ReasonPlaceholderDeleted = "PlaceholderDeleted"

	// ReasonOriginalOrphaned: the owner of the original was deleted without its pods.
	ReasonOriginalOrphaned = "OriginalOrphaned"
	// ReasonOriginalEnded: the owner of the original has finished, or is gone.
	ReasonOriginalEnded = "OriginalEnded"
	// ReasonContainersChanged: a container of the original finished or started,
	// so the replacement has to be rebuilt.
	ReasonContainersChanged = "ContainersChanged"
	// ReasonEvicting: the original is about to be evicted. ReasonWithdrawn: it was, and is
	// not any more.
	ReasonEvicting  = "Evicting"
	ReasonWithdrawn = "Withdrawn"
	// ReasonEvictionBlocked: a PodDisruptionBudget holds the original.
	ReasonEvictionBlocked = "EvictionBlocked"
	// ReasonDisrupted: another client evicted the original while its replacement came up.
	ReasonDisrupted = "OriginalDisrupted"

	ReasonPodNotFound        = "PodNotFound"
	ReasonPodUIDMismatch     = "PodUIDMismatch"
	ReasonSourceNodeMismatch = "SourceNodeMismatch"
	ReasonTargetNodeNotFound = "TargetNodeNotFound"
	// ReasonNoApplicationClaim: the application has nowhere to save its state.
	ReasonNoApplicationClaim = "NoApplicationClaim"
	// ReasonClaimOfUser: state would have to be written into a claim of a user.
	ReasonClaimOfUser      = "ClaimOfUser"
	ReasonTargetIsSource   = "TargetIsSource"
	ReasonAlreadyMigrating = "AlreadyMigrating"

	// ReasonCheckpointKept: the claim has the only copy of the state. ReasonRecovering: a
	// pod is started from such a claim.
	ReasonCheckpointKept = "CheckpointKept"
	ReasonRecovering     = "Recovering"
	// Why a pod is not recovered: the migration does not exist, or keeps nothing, another one
	// has taken the claim, the original still exists, a pod uses the claim, an owner creates the pod itself, or nothing says
	// what the pod was.
	ReasonMigrationNotFound = "MigrationNotFound"
	ReasonNothingKept       = "NothingKept"
	ReasonAlreadyRecovered  = "AlreadyRecovered"
	ReasonOriginalExists    = "OriginalExists"
	ReasonKeptClaimInUse    = "KeptClaimInUse"
	ReasonOwnerReplacesPod  = "OwnerReplacesPod"
	ReasonManifestMissing   = "ManifestMissing"

	ReasonNameTaken           = "NameTaken"
	ReasonClaimRejected       = "ClaimRejected"
	ReasonClaimDeleted        = "ClaimDeleted"
	ReasonReplacementRejected = "ReplacementRejected"
	ReasonUnschedulable       = "Unschedulable"
	ReasonLandedOnSource      = "LandedOnSource"
	ReasonLandedElsewhere     = "LandedElsewhere"
	ReasonReplacementFailed   = "ReplacementFailed"
	ReasonReplacementDeleted  = "ReplacementDeleted"
	ReasonTimedOut            = "TimedOut"
	ReasonOriginalFailed      = "OriginalFailed"

	ReasonCancelled        = "Cancelled"
	ReasonOriginalFinished = "OriginalFinished"
	ReasonOriginalDeleted  = "OriginalDeleted"
)

// isCancellation reports whether a migration ended because a user wanted it, or because
// it became needless, and not because something went wrong.
func isCancellation(reason string) bool {
	return reason == ReasonCancelled || reason == ReasonOriginalFinished || reason == ReasonOriginalDeleted
}
