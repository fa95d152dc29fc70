// Package decide decides what the node agents do for a migration. It is pure: a
// PodMigration, and what the agent knows of the pod on its node, give one task, and the
// same state gives the same task.
//
// Both decisions are tables. The first row that matches counts; without one there is
// nothing to do. The order of the rows carries meaning: what makes two working copies
// impossible stands first.
//
// The package must not call an API server, read a clock or touch the node.
package decide
