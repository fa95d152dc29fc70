package observe

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// Options decide what the loop may touch.
type Options struct {
	// SchedulerName that pods opt in with.
	SchedulerName string
	// Nodes selects the nodes that pods may move between.
	Nodes labels.Selector
	// Pools divide these nodes: a node is in the first pool that selects it. None
	// is one pool of all.
	Pools []labels.Selector
	// MetricsMaxAge is the age from which a measurement does not count.
	MetricsMaxAge time.Duration
	// MinimumSamples is how often a node must have been measured since it last
	// changed; 0 counts as 1.
	MinimumSamples int
	// MinimumPodAge keeps younger pods where they are.
	MinimumPodAge time.Duration
	// Cooldown keeps a workload where it is after a migration of it ended. It
	// doubles up to MaxCooldown while migrations follow each other.
	Cooldown, MaxCooldown time.Duration
	// PriorityCeiling is the highest priority that moves.
	PriorityCeiling int32
	// CarriesState reports that scratch volumes and memory can move along.
	CarriesState bool
	// MetricsHistory has recorded the observation; nil knows the observation alone.
	MetricsHistory *MetricsHistory
	// Assessments are kept from cycle to cycle; nil assesses every pod anew.
	Assessments *Assessments
}

// Observation is everything that was read of a cluster at one moment.
type Observation struct {
	At time.Time
	// Source is cluster.SourceRequests where nothing measures the cluster; empty
	// counts as cluster.SourceMeasured.
	Source  string
	Nodes   []*corev1.Node
	Pods    []*corev1.Pod
	Budgets []*policyv1.PodDisruptionBudget
	// Claims finds the claims of a namespace and the volumes they are bound to.
	Claims func(namespace string) containers.ClaimLookup
	// Owner finds the controller of a pod, and what controls that. Of a controller
	// that does not exist the reference is there alone.
	Owner      func(pod *corev1.Pod) owners.Owner
	Migrations []v1alpha1.PodMigration
	// NodeMetrics and PodMetrics may hold several measurements of one node or pod.
	NodeMetrics []metricsv1beta1.NodeMetrics
	PodMetrics  []metricsv1beta1.PodMetrics
	// Zones is what is free on each NUMA node, by node, where the node tells.
	Zones map[string][]cluster.Resources
}

// Build makes the snapshot of an observation. Its loads come from the measurements, or
// from the requests where the observation says so.
func Build(observation *Observation, options Options) *cluster.Snapshot {
	if options.MetricsHistory == nil {
		options.MetricsHistory = NewMetricsHistory(MetricsHistoryOptions{Percentile: 100})
		options.MetricsHistory.Record(observation)
	}
	options.Assessments.begin()
	history := newMigrationHistory(observation.Migrations)
	placed := make([]*cluster.Pod, 0, len(observation.Pods))
	users := claimUsersOf(observation.Pods)
	requested := map[string]cluster.Resources{}
	for _, pod := range observation.Pods {
		if !pods.HoldsPlace(pod) {
			continue
		}
		requests := options.Assessments.requests(pod)
		placed = append(placed, buildPod(pod, requests, observation, history, users, options))
		if observation.usesRequests() {
			requested[pod.Spec.NodeName] = requested[pod.Spec.NodeName].Add(requests)
		}
	}
	nodes := make([]*cluster.Node, 0, len(observation.Nodes))
	for _, node := range observation.Nodes {
		nodes = append(nodes, buildNode(node, requested[node.Name], observation, history, options))
	}
	snapshot := cluster.NewSnapshot(observation.At, nodes, placed)
	if observation.usesRequests() {
		snapshot.Source = cluster.SourceRequests
	}
	return snapshot
}

func (r *Observation) usesRequests() bool { return r.Source == cluster.SourceRequests }

func buildNode(node *corev1.Node, requested cluster.Resources, observation *Observation, history migrationHistory, options Options) *cluster.Node {
	n := &cluster.Node{
		Name:        node.Name,
		Allocatable: cluster.ResourcesOf(node.Status.Allocatable),
		Pool:        poolOf(node, options.Pools),
		Schedulable: isSchedulable(node),
		Zones:       observation.Zones[node.Name],
		Object:      node,
	}
	if observation.usesRequests() {
		n.Measured = usageOf(requested, observation.At)
		n.Smoothed = n.Measured
		n.Skipped = skipped(n, history, options)
		return n
	}
	usable, last := options.MetricsHistory.node(node.Name, history.lastChange[node.Name])
	isStale := last == nil || observation.At.Sub(last.at) > options.MetricsMaxAge
	switch {
	case isStale:
	case len(usable) > 0:
		n.Measured, n.Smoothed = options.MetricsHistory.load(usable)
	default:
		n.Measured, n.Smoothed = options.MetricsHistory.load([]sample{*last})
	}
	if n.Skipped = skipped(n, history, options); n.Skipped != "" {
		return n
	}
	switch {
	case last == nil:
		n.Skipped = "the node has no measurement"
	case isStale:
		n.Skipped = fmt.Sprintf("the last measurement of the node is %s old", observation.At.Sub(last.at).Round(time.Second))
	case len(usable) == 0:
		n.Skipped = "the node was last measured before its last migration ended"
	case len(usable) < options.MinimumSamples:
		n.Skipped = fmt.Sprintf("the node has been measured %d of %d times since it changed, or since the rebalancer started", len(usable), options.MinimumSamples)
		n.Stabilizing = true
	}
	return n
}

// skipped says why no pod is moved from or to a node, whatever its load.
//
// A node is measured over a window. While a migration has changed the node since
// that window began, the figure is of another cluster than this one, so it is
// not used either.
func skipped(n *cluster.Node, history migrationHistory, options Options) string {
	switch {
	case !options.Nodes.Matches(labels.Set(n.Object.Labels)):
		return "the node is outside of the node selector"
	case n.Pool < 0:
		return "the node is in no node pool"
	case history.inFlight[n.Name]:
		return "a migration from or to the node is in flight"
	}
	return ""
}

// poolOf is the number of the pool of a node; -1 when no pool selects it.
func poolOf(node *corev1.Node, pools []labels.Selector) int {
	if len(pools) == 0 {
		return 0
	}
	return slices.IndexFunc(pools, func(pool labels.Selector) bool { return pool.Matches(labels.Set(node.Labels)) })
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

func usageOf(r cluster.Resources, at time.Time) *cluster.Usage {
	s := newSample(at, 0, r)
	return &cluster.Usage{MilliCPU: s.milliCPU, Memory: s.memory, At: at}
}

// podUsage is what a pod uses; nil without a fresh measurement. Without anything
// that measures, it is what the pod requests.
func podUsage(pod *corev1.Pod, requests cluster.Resources, observation *Observation, options Options) *cluster.Usage {
	if observation.usesRequests() {
		return usageOf(requests, observation.At)
	}
	usage, _ := options.MetricsHistory.load(options.MetricsHistory.pod(pod))
	if usage == nil || observation.At.Sub(usage.At) > options.MetricsMaxAge {
		return nil
	}
	return usage
}
