package nodeview

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// Where what nodes use comes from.
const (
	SourceMetricsAPI  = "metrics.k8s.io"
	SourceUnavailable = "Unavailable"
)

// Node is one node at one moment.
type Node struct {
	Name string `json:"name"`
	// Ready is what the node's condition says.
	Ready bool `json:"ready"`
	// Schedulable reports whether new pods may come: Ready and not cordoned.
	Schedulable bool `json:"schedulable"`
	// Skipped says why the rebalancer moves no pod from or to the node; empty
	// where it may, and where nobody has said (Judge).
	Skipped string `json:"skipped"`
	// Overutilized reports that the rebalancer found the node above a threshold.
	Overutilized bool `json:"overutilized"`
	// Pods that hold a place on the node.
	Pods int `json:"pods"`
	// CPU is in millicores.
	CPU Resource `json:"cpu"`
	// Memory is in bytes.
	Memory Resource `json:"memory"`
	// Extended resources, such as nvidia.com/gpu, by name; never nil.
	Extended map[corev1.ResourceName]Extended `json:"extended"`
	// MeasuredAt is the end of the measurement; nil without one.
	MeasuredAt *metav1.Time `json:"measured_at"`
}

// Resource is CPU or memory of a node.
type Resource struct {
	// Allocatable is what pods may request.
	Allocatable int64 `json:"allocatable"`
	// Requested is what the scheduler counts for the pods of the node.
	Requested int64 `json:"requested"`
	// Used was measured; nil without a measurement.
	Used *int64 `json:"used"`
	// Reclaimable is the part of Requested of containers that have
	// finished for good while their pod runs on.
	Reclaimable int64 `json:"reclaimable"`
}

// Extended is a resource that nobody measures, in its own unit.
type Extended struct {
	Allocatable int64 `json:"allocatable"`
	Requested   int64 `json:"requested"`
	Reclaimable int64 `json:"reclaimable"`
}

// Of looks at nodes by the pods on them and the last measurement of each, and
// returns them sorted by name. Nodes without a measurement have no use.
func Of(nodes []corev1.Node, all []corev1.Pod, usage []metricsv1beta1.NodeMetrics) []Node {
	loads := map[string]*load{}
	for i := range all {
		if pod := &all[i]; pods.HoldsPlace(pod) {
			at(loads, pod.Spec.NodeName).add(pod)
		}
	}
	latest := latestOf(usage)
	views := make([]Node, 0, len(nodes))
	for i := range nodes {
		view := viewOf(&nodes[i], at(loads, nodes[i].Name))
		if m, measured := latest[nodes[i].Name]; measured {
			view.measure(m)
		}
		views = append(views, view)
	}
	slices.SortFunc(views, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return views
}

// Judge writes down what the rebalancer said of the nodes: why it skips some, and
// which are overutilized.
func Judge(views []Node, skipped map[string]string, overutilized map[string]bool) {
	for i := range views {
		views[i].Skipped, views[i].Overutilized = skipped[views[i].Name], overutilized[views[i].Name]
	}
}

// Source names where the use of these nodes comes from.
func Source(views []Node) string {
	if slices.ContainsFunc(views, func(n Node) bool { return n.MeasuredAt != nil }) {
		return SourceMetricsAPI
	}
	return SourceUnavailable
}

// load is what the pods of one node request.
type load struct {
	pods                   int
	requested, reclaimable cluster.Resources
}

func at(loads map[string]*load, node string) *load {
	if loads[node] == nil {
		loads[node] = &load{}
	}
	return loads[node]
}

func (l *load) add(pod *corev1.Pod) {
	requested := cluster.ResourcesOf(pods.Requests(pod))
	l.pods++
	l.requested = l.requested.Add(requested)
	l.reclaimable = l.reclaimable.Add(reclaimable(pod, requested))
}

func viewOf(node *corev1.Node, l *load) Node {
	allocatable := cluster.ResourcesOf(node.Status.Allocatable)
	ready := isReady(node)
	view := Node{
		Name: node.Name, Pods: l.pods, Ready: ready,
		Schedulable: ready && !node.Spec.Unschedulable && node.DeletionTimestamp == nil,
		CPU:         Resource{Allocatable: allocatable.MilliCPU, Requested: l.requested.MilliCPU, Reclaimable: l.reclaimable.MilliCPU},
		Memory:      Resource{Allocatable: allocatable.Memory, Requested: l.requested.Memory, Reclaimable: l.reclaimable.Memory},
		Extended:    map[corev1.ResourceName]Extended{},
	}
	for _, amounts := range []cluster.Resources{allocatable, l.requested} {
		for name := range amounts.Scalar {
			if isExtended(name) {
				view.Extended[name] = Extended{allocatable.Scalar[name], l.requested.Scalar[name], l.reclaimable.Scalar[name]}
			}
		}
	}
	return view
}

func (n *Node) measure(m *metricsv1beta1.NodeMetrics) {
	used := cluster.ResourcesOf(m.Usage)
	if _, given := m.Usage[corev1.ResourceCPU]; given {
		n.CPU.Used = &used.MilliCPU
	}
	if _, given := m.Usage[corev1.ResourceMemory]; given {
		n.Memory.Used = &used.Memory
	}
	n.MeasuredAt = m.Timestamp.DeepCopy()
}

// latestOf keeps the last measurement of each node.
func latestOf(usage []metricsv1beta1.NodeMetrics) map[string]*metricsv1beta1.NodeMetrics {
	latest := make(map[string]*metricsv1beta1.NodeMetrics, len(usage))
	for i := range usage {
		m := &usage[i]
		if known := latest[m.Name]; known == nil || known.Timestamp.Before(&m.Timestamp) {
			latest[m.Name] = m
		}
	}
	return latest
}

func isReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// isExtended separates devices from what Kubernetes itself gives, which has no
// domain or its own (k8s.io/kubernetes/pkg/apis/core/v1/helper.IsExtendedResourceName).
func isExtended(name corev1.ResourceName) bool {
	return strings.Contains(string(name), "/") && !strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}
