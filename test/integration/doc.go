// Package integration tests our programs against a real API server and etcd.
// It needs the binaries that "make tools" builds; KUBEBUILDER_ASSETS names
// another directory to find them in.
package integration
