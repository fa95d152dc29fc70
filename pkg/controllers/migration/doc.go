// Package migration carries out one PodMigration: it decides the next step
// from what exists, and takes it. This version moves pods without a
// controller.
//
// Next is pure: it reads a State (the PodMigration, the original, the
// replacement, the claim, the time) and returns a Decision, at most one action
// and the new status. The reconciler gathers the state with live reads, takes
// the action and writes the status once. What cannot be undone is written down
// before it is done: the phase HandingOver is in the status before the
// original is evicted, and a rollback is in the status before anything is
// removed. So a controller that is killed at any moment goes on where it was.
//
// Objects are found by names that depend on the PodMigration alone, and are
// believed only when they carry its UID; they are removed by their own UID.
//
// Rules that are easy to miss:
//
//   - Before the handover, a container of the original that finishes, or one
//     that was left out and starts, makes the replacement wrong: the controller
//     goes back to Preparing and builds another one. The eviction carries the
//     resourceVersion that was judged, so a container cannot finish unseen.
//   - An original that finishes by itself, or that its user deletes, ends the
//     migration as Cancelled, and the replacement is removed. But when others
//     evict it (a drain, node pressure) while a replacement exists, the
//     replacement is the only copy left: it stays, and the migration goes on.
//   - Once the original is gone there is no way back; cancel and deletion then
//     wait for the end.
//
// It must not plan, choose nodes or call the kubelet.
package migration
