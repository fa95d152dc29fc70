// Package controlplane runs the control plane of a local cluster as processes
// on loopback: etcd, kube-apiserver, kube-controller-manager and
// metrics-server, with authentication, RBAC, the Node authorizer, the
// aggregation layer and an audit log, as a real cluster has them.
//
// It knows nothing of nodes and of our own components, and it does not stop
// what it started: everything is a process of the state directory.
package controlplane
