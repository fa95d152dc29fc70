package cluster

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
)

// Where the figures of a snapshot come from.
const (
	// SourceMeasured figures were measured.
	SourceMeasured = "Measured"
	// SourceRequests figures are what pods request, since nothing measures them.
	SourceRequests = "Requests"
)

// Snapshot is the cluster at one moment. Nodes and pods are sorted, so that
// the same cluster always gives the same snapshot.
type Snapshot struct {
	// Time at which the snapshot was taken.
	Time time.Time
	// Source of all that is called measured in the snapshot.
	Source string
	// Nodes by name.
	Nodes []*Node
	// Pods that hold a place on a node, by namespace and name.
	Pods []*Pod
}

// NewSnapshot sorts nodes and pods and returns them as a snapshot of measured
// figures.
func NewSnapshot(at time.Time, nodes []*Node, pods []*Pod) *Snapshot {
	s := &Snapshot{Time: at, Source: SourceMeasured, Nodes: slices.Clone(nodes), Pods: slices.Clone(pods)}
	slices.SortFunc(s.Nodes, func(a, b *Node) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Pods, func(a, b *Pod) int { return a.Key().Compare(b.Key()) })
	return s
}

// Node is one node.
type Node struct {
	Name string
	// Allocatable is what pods may request.
	Allocatable Resources
	// Pool is the number of the node pool that the node is in, from 0. Moves stay
	// within a pool.
	Pool int
	// Measured is what the node uses; nil when there is no fresh measurement.
	Measured *Usage
	// Smoothed is the mean of what the node uses, weighted by age. Measured may be
	// above it, since peaks count there. Nil where Measured is nil.
	Smoothed *Usage
	// Stabilizing marks a node that is skipped only because it has not been
	// measured often enough yet.
	Stabilizing bool
	// Schedulable reports whether new pods may come: Ready and not cordoned.
	Schedulable bool
	// Skipped says why no pod is moved from or to the node; empty when pods may
	// be.
	Skipped string
	// Zones is what is free on each NUMA node, where the node tells.
	Zones []Resources
	// Object is the node itself, for rules that read more than amounts.
	Object *corev1.Node
}

// Pod is one pod that holds a place on a node.
type Pod struct {
	Namespace string
	Name      string
	UID       types.UID
	NodeName  string
	// Workload is what the pod belongs to, such as "ReplicaSet/ns/web"; a pod
	// without an owner is a workload of its own, "Pod/ns/name".
	Workload string
	// Requests are the pod's as the scheduler counts them.
	Requests Resources
	// StrippedRequests are those of the replacement, once finished containers
	// are left out.
	StrippedRequests Resources
	// Zones are the NUMA nodes that the pod sits on, evenly; empty when it may be
	// on any or is spread over all.
	Zones []int
	// Measured is what the pod uses; nil when there is no fresh measurement.
	Measured *Usage
	// Immovable says why the loop must not move the pod; empty when it may.
	Immovable string
	// Object is the pod itself.
	Object *corev1.Pod
	// Replacement builds the pod that would take over, before it is named, and
	// returns the same one every time; nil when the pod cannot be moved. Few pods
	// of a large cluster are ever asked for it. It returns nil when it turns out
	// that there can be none.
	Replacement LazyPod
}

// LazyPod builds a pod when it is asked for it.
type LazyPod func() *corev1.Pod

// Equal reports whether both build the same pod.
func (l LazyPod) Equal(other LazyPod) bool {
	if l == nil || other == nil {
		return l == nil && other == nil
	}
	return equality.Semantic.DeepEqual(l(), other())
}

// Key identifies a pod in messages.
func (p *Pod) Key() PodKey { return PodKey{Namespace: p.Namespace, Name: p.Name} }

// PodKey is the namespace and name of a pod.
type PodKey struct{ Namespace, Name string }

// String returns namespace/name.
func (k PodKey) String() string { return k.Namespace + "/" + k.Name }

// Compare orders by namespace, then name.
func (k PodKey) Compare(other PodKey) int {
	return cmp.Or(cmp.Compare(k.Namespace, other.Namespace), cmp.Compare(k.Name, other.Name))
}

// Usage is a measurement.
type Usage struct {
	// MilliCPU is in thousandths of a core, averaged over the window.
	MilliCPU int64
	// Memory is the working set in bytes.
	Memory int64
	// At is the end of the window.
	At time.Time
}
