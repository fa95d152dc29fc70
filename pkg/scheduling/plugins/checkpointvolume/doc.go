// Package checkpointvolume is the scheduler plugin that brings the volumes of a
// replacement, its checkpoint claim first of all, to the node chosen for it
// before the pod is bound: it waits until the original has released what only
// one node may have, and attaches. A volume that cannot be attached so sends
// the pod to another node, instead of leaving it stuck in ContainerCreating. It
// also keeps a replacement off the node that its original is moved away from,
// and out of the queue until the state of an original that stops first is sealed.
// And it lets a placeholder have only a node that the filters of the profile would let
// the replacement have, which does not exist yet.
//
// It must not decide which node is best, nor whether a checkpoint is complete,
// and a pod that is not part of a migration must pass at no cost.
package checkpointvolume
