package v1alpha1

// Condition types of a PodMigration, in the order in which they become true.
const (
	// ConditionAccepted: the pod can be moved and has a place in the budget.
	ConditionAccepted = "Accepted"
	// ConditionPrepared: verdicts, measured use and the checkpoint claim exist.
	ConditionPrepared = "Prepared"
	// ConditionCopied: a complete copy of the pod's volumes is on the claim.
	ConditionCopied = "Copied"
	// ConditionReplacementPending: the next fitting pod of the owner is to become the
	// replacement. The admission webhook rewrites pods only while this is true.
	ConditionReplacementPending = "ReplacementPending"
	// ConditionPlaced: the scheduler bound the replacement, or the placeholder
	// that holds its place, to a node.
	ConditionPlaced = "Placed"
	// ConditionSealed: the checkpoint is committed, that is complete, and verified.
	ConditionSealed = "Sealed"
	// ConditionCommitted: the migration can only go forward, and a cancellation changes
	// nothing. It is written before the first thing that cannot be undone. It becomes
	// false again where that did not happen, and can no longer: the original is held by
	// a budget, for example.
	ConditionCommitted = "Committed"
	// ConditionReleased: the containers of the replacement may start with the carried
	// state.
	ConditionReleased = "Released"
	// ConditionReplacementReady: the replacement is Ready.
	ConditionReplacementReady = "ReplacementReady"
	// ConditionHandedOver: the original is gone.
	ConditionHandedOver = "HandedOver"
	// ConditionRolledBack: what the migration made has been removed.
	ConditionRolledBack = "RolledBack"
	// ConditionCheckpointKept: the migration has failed, and its claim has the only copy
	// of the state. It becomes false when the claim is gone, or another migration
	// recovers from it.
	ConditionCheckpointKept = "CheckpointKept"
	// ConditionMeasured: the use of the replacement was measured, or could not be.
	ConditionMeasured = "Measured"
)
