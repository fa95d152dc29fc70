// Package agent does on a node what the migration controller requests in the status of
// a PodMigration: it copies what an original keeps, its emptyDirs and, where its
// processes move, their memory and the writable layers of its containers, to the
// checkpoint PVC, freezes the pod for the last copy, and restores the copy into the
// replacement.
//
// It remembers nothing but which pods it has frozen and which checkpoints wait to be
// restored, in a directory of the node. All else follows from the status, so that an
// agent may be killed at any moment. Reports are written under the guard of the
// resourceVersion: an agent cannot thaw a pod whose replacement is being released at
// the same moment.
//
// The package must not decide whether, or when, a pod moves.
package agent
