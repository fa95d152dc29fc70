// Package containers decides which containers of a pod move with it, and
// builds the pod that takes over. Every decision is a pure function of the pod
// and comes with a reason.
//
// What is carried to another node decides a lot here. In this version it is
// the persistent volumes of the pod and nothing else: the content of an
// emptyDir stays behind. So
//
//   - a finished init container whose product is in an emptyDir that a kept
//     container uses is kept, and runs again;
//   - a pod is refused when a finished container left a product in an emptyDir
//     that a kept container uses: leaving the container out would lose the
//     product, keeping it would do the work twice;
//   - a pod is refused when a container that moves has a writable emptyDir on
//     disk, since what it wrote would be lost.
//
// The author of a pod can name volumes that may be lost with the annotation
// migration.ai-storage/discardable-volumes (or the autoscaler's
// cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes). An emptyDir
// in memory counts as scratch space of running containers, as it does for the
// cluster autoscaler.
//
// It must not call an API server, read a clock or log.
package containers
