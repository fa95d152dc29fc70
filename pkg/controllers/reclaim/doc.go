// Package reclaim carries out what package decide decides: as soon as a
// container of a running pod has finished for good, its requests are shrunk
// through the pod's resize subresource, so that a pod that waits for room finds
// it without anything being moved. It acts at once rather than when a pod is
// already waiting: to shrink costs nothing, and to wait costs the waiting pod.
package reclaim
