// Package nodeagent does on a node what the migration controller asks for in the
// status of a PodMigration: it copies the emptyDirs of an original to the
// checkpoint claim, lets the pod stand still for the last copy, and restores the
// copy into the emptyDirs of the replacement.
//
// It remembers nothing but which pods it has frozen, in a directory of the node. All
// else follows from the status, so that an agent may be killed at any moment.
// Reports are written under the guard of the resourceVersion: an agent cannot let
// a pod go on whose replacement is being released at the same moment.
//
// The package must not decide whether, or when, a pod moves.
package agent
