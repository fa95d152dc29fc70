// Package migration carries out PodMigrations: one step after another, until the
// replacement of a pod has taken over on another node, or everything is rolled
// back.
//
// The reconciler gathers the state of a migration with live reads, asks package
// decide for the next step, takes its action and writes the status once. What
// cannot be undone is written down before it is done, so a controller that is
// killed at any moment continues where it was. The pods of ReplicaSets,
// StatefulSets and Jobs move as well as those without a controller; how each of
// them takes the replacement is in package owners.
//
// Beside that the package has
//
//   - the budget: migrations are accepted one at a time, and wait in phase Pending
//     while too much is being disrupted,
//   - Preflight, by which the REST API and kubectl answer what would become of a
//     request,
//   - the events, metrics and traces of a migration, which come from what was
//     written down and not from memory.
//
// It must not plan, choose nodes or call the kubelet, and it must not decide: what
// is done next is in package decide alone.
package migration
