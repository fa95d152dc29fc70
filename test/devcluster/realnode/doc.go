// Package realnode runs real Kubernetes nodes on one Linux machine: for each
// node a containerd and a kubelet, with real containers by runc. It needs root.
//
// A node is a mount namespace and a cgroup namespace:
//
//   - In the mount namespace the standard paths (/run, /var/lib/kubelet,
//     /var/log, /var/lib/cni, and /var/lib/ai-storage of the node agent) are the
//     node's own, so the programs run with their defaults, do not meet each
//     other, and socket paths stay short however long the state directory's path is.
//     All mounts of a node (overlays, secrets, network namespaces) end with its
//     last process.
//   - In the cgroup namespace the root is the node's own cgroup, so the kubelet
//     measures the node and not the machine: what the metrics API says about a
//     node is the use of that node's pods and programs. Every process of a node
//     is in that cgroup, which is how Stop finds them all, even after a crash.
//
// The network namespace is the machine's: a node's address is that of its
// bridge, its pods have addresses of the bridge's subnet, and pods of different
// nodes reach each other through the machine's routing. There is no kube-proxy,
// no cluster DNS and no way from pods to the outside. A pod that leaves
// dnsPolicy at ClusterFirst runs, with a MissingClusterDNS event.
//
// All nodes see the machine's whole CPU and memory; the kubelet is set to
// reserve what exceeds the size that a node should have (see nodeSize). Nodes
// together may promise more than the machine has.
//
// The kubelet sets some kernel parameters of the machine (vm.overcommit_memory,
// kernel.panic, kernel.panic_on_oops), as on any node.
//
// The package knows nothing of the control plane but a kubeconfig, and never
// talks to the API server: whether a node is Ready is the caller's to see.
package realnode
