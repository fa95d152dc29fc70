package observe

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	resourcehelper "k8s.io/component-helpers/resource"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/cluster"
	"github.com/ai-storage/orchestrator/pkg/containers"
)

// Options decide what the loop may touch.
type Options struct {
	// SchedulerName that pods opt in with.
	SchedulerName string
	// Nodes selects the nodes that pods may move between.
	Nodes labels.Selector
	// MetricsMaxAge is the age from which a measurement does not count.
	MetricsMaxAge time.Duration
	// MinimumPodAge keeps younger pods where they are.
	MinimumPodAge time.Duration
	// Cooldown keeps a pod where it is after a migration of it ended.
	Cooldown time.Duration
	// PriorityCeiling is the highest priority that moves.
	PriorityCeiling int32
	// Assessments are kept from cycle to cycle; nil assesses every pod anew.
	Assessments *Assessments
}

// Reading is everything that was read of a cluster at one moment.
type Reading struct {
	At      time.Time
	Nodes   []*corev1.Node
	Pods    []*corev1.Pod
	Budgets []*policyv1.PodDisruptionBudget
	// Claims finds the claims of a namespace and the volumes they are bound to.
	Claims      func(namespace string) containers.ClaimLookup
	Migrations  []v1alpha1.PodMigration
	NodeMetrics []metricsv1beta1.NodeMetrics
	PodMetrics  []metricsv1beta1.PodMetrics
}

// Build makes the snapshot of a reading.
func Build(reading *Reading, options Options) *cluster.Snapshot {
	options.Assessments.begin()
	history := newHistory(reading.Migrations)
	nodes := make([]*cluster.Node, 0, len(reading.Nodes))
	nodeMetrics := map[string]*metricsv1beta1.NodeMetrics{}
	for i := range reading.NodeMetrics {
		nodeMetrics[reading.NodeMetrics[i].Name] = &reading.NodeMetrics[i]
	}
	for _, node := range reading.Nodes {
		nodes = append(nodes, buildNode(node, nodeMetrics[node.Name], history, reading.At, options))
	}

	usage := podUsage(reading, options.MetricsMaxAge)
	var pods []*cluster.Pod
	for _, pod := range reading.Pods {
		if holdsPlace(pod) {
			pods = append(pods, buildPod(pod, usage[cluster.PodKey{Namespace: pod.Namespace, Name: pod.Name}], reading, history, options))
		}
	}
	return cluster.NewSnapshot(reading.At, nodes, pods)
}

func holdsPlace(pod *corev1.Pod) bool {
	return pod.Spec.NodeName != "" && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

func buildNode(node *corev1.Node, measured *metricsv1beta1.NodeMetrics, history history, now time.Time, options Options) *cluster.Node {
	n := &cluster.Node{
		Name:        node.Name,
		Allocatable: cluster.ResourcesOf(node.Status.Allocatable),
		Schedulable: isSchedulable(node),
		Object:      node,
	}
	if measured != nil && isFresh(measured.Timestamp, now, options.MetricsMaxAge) {
		n.Measured = usageOf(measured.Usage, measured.Timestamp)
	}
	n.LeftAlone = leftAlone(n, measured, history, now, options)
	return n
}

// leftAlone says why no pod is moved from or to a node. A node is measured over
// a window; while a migration has changed the node since that window began, the
// figure is of another cluster than this one.
func leftAlone(n *cluster.Node, measured *metricsv1beta1.NodeMetrics, history history, now time.Time, options Options) string {
	switch {
	case !options.Nodes.Matches(labels.Set(n.Object.Labels)):
		return "the node is outside of the node selector"
	case measured == nil:
		return "the node has no measurement"
	case n.Measured == nil:
		return fmt.Sprintf("the last measurement of the node is %s old", now.Sub(measured.Timestamp.Time).Round(time.Second))
	case history.inFlight[n.Name]:
		return "a migration from or to the node is in flight"
	case history.lastChange[n.Name].After(measured.Timestamp.Add(-measured.Window.Duration)):
		return "the node was last measured before its last migration ended"
	}
	return ""
}

func isSchedulable(node *corev1.Node) bool {
	if node.Spec.Unschedulable || node.DeletionTimestamp != nil {
		return false
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func isFresh(at metav1.Time, now time.Time, maxAge time.Duration) bool {
	return now.Sub(at.Time) <= maxAge
}

func usageOf(list corev1.ResourceList, at metav1.Time) *cluster.Usage {
	r := cluster.ResourcesOf(list)
	return &cluster.Usage{MilliCPU: r.MilliCPU, Memory: r.Memory, At: at.Time}
}

// podUsage adds up the containers of every freshly measured pod.
func podUsage(reading *Reading, maxAge time.Duration) map[cluster.PodKey]*cluster.Usage {
	usage := make(map[cluster.PodKey]*cluster.Usage, len(reading.PodMetrics))
	for _, measured := range reading.PodMetrics {
		if !isFresh(measured.Timestamp, reading.At, maxAge) {
			continue
		}
		var sum cluster.Resources
		for _, container := range measured.Containers {
			sum = sum.Add(cluster.ResourcesOf(container.Usage))
		}
		usage[cluster.PodKey{Namespace: measured.Namespace, Name: measured.Name}] =
			&cluster.Usage{MilliCPU: sum.MilliCPU, Memory: sum.Memory, At: measured.Timestamp.Time}
	}
	return usage
}

// requestsOf is what the scheduler counts for a pod.
func requestsOf(pod *corev1.Pod) cluster.Resources {
	return cluster.ResourcesOf(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{
		UseStatusResources: true,
	}))
}
