// Package decide decides the steps of one migration. It is pure: it reads what
// it is given, changes nothing of it, and the same state gives the same decision.
//
// Next reads a State (the PodMigration, the original, the replacement, the claim,
// the owner, the time) and returns a Decision: the step that is taken, at most one
// Action, the new status, the events, and when to look again. Settle completes a
// decision with the answer of the API server to its action. Request decides a
// request before it is stored.
//
// A migration is tables of steps (step.go), one for each phase and order. A step says
// whether it applies, whether it is done, what makes it so, and what the answer
// means; the first that is not done is taken. Guards come before the steps:
// guards.go has what ends or restarts a migration that is not committed, commit.go
// what a committed one can still do when something goes wrong. Actions (action.go)
// are what is done to a cluster.
//
// The phases are in files of their names: pending.go (with order.go: which pod
// starts first, and how state is carried), preparing.go, placing.go. HandingOver
// is in startfirst.go and stopfirst.go, by the order of the handover; ending.go
// has what both end with, recreated.go what is needed where the owner of the
// original creates the replacement, checkpoint.go what is asked of the node agents
// and waited for, and rollback.go undoes all of it.
//
// Rules that are easy to miss:
//
//   - Nothing is done that cannot be undone before it is in the status: condition
//     Committed is written before the original is evicted, a rollback before
//     anything is removed. Nobody guesses whether a migration is committed.
//   - A leader that is believed dead may still act on what it has read. So every
//     change has the resourceVersion, and every deletion the UID, of what was judged;
//     a rollback, or an eviction that is withdrawn, first writes the barrier on the
//     original, which makes all such writes fail; nothing is deleted by what a
//     status that may be old does not name; and what is created late is removed.
//   - Objects are found by names that depend on the PodMigration alone, and are
//     believed only when they carry its UID; they are deleted by their own UID.
//   - Before a migration is committed, a container of the original that finishes,
//     or one that was left out and starts, makes the replacement wrong: the
//     migration returns to Preparing. Where the owner has created the replacement
//     it is rolled back instead. The eviction carries the resourceVersion that was
//     judged, so a container cannot finish unseen.
//   - An original that finishes by itself, or is deleted, ends the migration as
//     Cancelled, and the replacement is deleted. But when another client evicts it
//     (a drain, node pressure) while a replacement exists that needs no state, or the
//     state is sealed, the replacement is the only copy left: it stays, and the
//     migration continues.
//   - An original whose released replacement is lost continues only when that is gone
//     for certain.
//   - A committed migration whose state is sealed, but was not given to a
//     replacement, keeps its claim when it fails: it holds the only copy. Without a claim
//     a disk of the node does where the place was held: no replacement goes elsewhere.
//   - What is sealed is what both agents name by one digest, on the destination's disk, and
//     on the claim where there is one. Nothing that only one of them says counts.
//   - The clock of this process may be minutes off. What another clock wrote only bounds
//     how long is waited (State.waited). Pods are distinguished by moments of the API server
//     alone (status.handover.probedAt).
//
// The package must not call an API server, read a clock or log.
package decide
