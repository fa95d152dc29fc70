// Package simnode runs simulated nodes: Node objects whose pods kwok brings
// through their life, without root and without containers. Their use is
// served on a kubelet's metrics endpoint, so metrics-server reads it as it
// reads that of real nodes.
//
// What a pod's containers do is said by annotations on the pod, so it moves
// with the pod:
//
//	cpu.usage.devcluster/<container>: "350m"      use while the container runs
//	memory.usage.devcluster/<container>: "512Mi"
//	finish-after.devcluster/<container>: "20"     seconds from its start until it exits with 0
//
// A container without them uses 1m and 1Mi and runs until it is deleted.
// kwok does not mount volumes; claims are bound by the controller manager.
package simnode
