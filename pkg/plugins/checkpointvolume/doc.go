// Package checkpointvolume is the scheduler plugin that brings the checkpoint
// claim of a replacement to the node chosen for it, before the pod is bound. A
// volume that cannot be attached so sends the pod to another node, instead of
// leaving it stuck in ContainerCreating. It also keeps a replacement off the
// node that its original is moved away from.
//
// It must not decide which node is best, nor whether a checkpoint is complete,
// and a pod without a checkpoint claim must pass at no cost.
package checkpointvolume
