// Package decide decides the steps of one migration. It is pure: it reads what
// it is given, changes nothing of it, and the same state gives the same decision.
//
// Next reads a State (the PodMigration, the original, the replacement, the claim,
// the owner, the time) and returns a Decision: at most one Action, the new
// status, the events, and when to look again. Settle completes a decision with
// the answer of the API server to its action. Request decides a request before it
// is stored.
//
// The phases are in files of their names: pending.go (with order.go: which pod
// starts first, and how state is carried), preparing.go, placing.go. HandingOver
// is in startfirst.go and stopfirst.go, by the order of the handover; ending.go
// has what both end with, recreated.go what is needed where the owner of the
// original creates the replacement, checkpoint.go what is asked of the node agents
// and waited for. What ends a migration before it is committed is in next.go, and
// rollback.go undoes it.
//
// Rules that are easy to miss:
//
//   - Nothing is done that cannot be undone before it is in the status: the phase
//     HandingOver is written before the original is evicted, a rollback before
//     anything is removed.
//   - Objects are found by names that depend on the PodMigration alone, and are
//     believed only when they carry its UID; they are deleted by their own UID.
//   - Before a migration is committed, a container of the original that finishes,
//     or one that was left out and starts, makes the replacement wrong: the
//     migration returns to Preparing. Where the owner has created the replacement
//     it is rolled back instead. The eviction carries the resourceVersion that was
//     judged, so a container cannot finish unseen.
//   - An original that finishes by itself, or is deleted, ends the migration as
//     Cancelled, and the replacement is deleted. But when another client evicts it
//     (a drain, node pressure) while a replacement exists that starts first and
//     needs no state, the replacement is the only copy left: it stays, and the
//     migration continues.
//   - A migration is committed when the original is lost to it, or the replacement
//     has begun to work with the carried state. Cancelling it, deleting it and its
//     deadline then change nothing.
//   - A committed migration whose state is sealed, but was not given to a
//     replacement, keeps its claim when it fails: it holds the only copy.
//
// The package must not call an API server, read a clock or log.
package decide
