// Package containers decides which containers of a pod move with it, and
// builds the pod that takes over. Every decision is a pure function of the pod
// and comes with a reason.
//
// What is carried to another node decides a lot here, and the mode of the migration
// decides what is carried: the persistent volumes of the pod in every mode; with
// Frozen, Live and Process the content of its emptyDirs as well, but for huge pages
// and volumes that may be lost. What is not carried stays behind. So
//
//   - a finished init container whose product is in a volume that stays behind and
//     that a kept container uses is kept, and runs again;
//   - a pod is refused when a finished container left a product in such a volume:
//     leaving the container out would lose the product, keeping it would do the work
//     twice;
//   - a pod is refused when a container that moves may have written to a volume that
//     stays behind.
//
// The author of a pod can name volumes that may be lost with the annotation
// migration.ai-storage/discardable-volumes (or the autoscaler's
// cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes). Where emptyDirs are
// not carried, one in memory counts as scratch space of running containers, as it
// does for the cluster autoscaler.
//
// It must not call an API server, read a clock or log.
package containers
