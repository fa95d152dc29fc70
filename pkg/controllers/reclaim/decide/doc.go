// Package decide decides which finished containers of a running pod are shrunk
// in place to almost nothing, and which get back what they requested.
//
// The scheduler counts the requests of every container of a pod, finished or
// not. A container that finished with exit code 0 and does not start again
// needs none. Its CPU and memory are resized to 1m and 1Mi:
//
//   - Requests only, where the pod is Burstable: with its limits untouched, a
//     container that starts again after all can work at once. Of a Guaranteed pod
//     requests and limits shrink together. A BestEffort pod requests nothing.
//   - Devices and other extended resources cannot be resized; only a move without
//     the container frees them. Nor can init containers that are no sidecars, pods
//     of static manifests and pods of Windows.
//   - A container whose resizePolicy asks for a restart is skipped.
//   - Pod-level requests shrink by what their containers no longer request. Their
//     limits are shared by all containers and stay, so a pod that is Guaranteed by
//     pod-level resources is skipped.
//   - Where the kubelet reports a figure for the whole pod (status.resources), it
//     looks at that again only when a running container is resized too: the one
//     that requests most gives up 1m.
//
// What was there before is recorded on the pod first, so that a crash loses
// nothing. A container that starts again gets it back at once. Whoever else resizes a
// container that we have resized, to whatever, is left to it: all that is ours is
// restored, and the pod skipped.
//
// The package must not call an API server, read a clock or log.
package decide
