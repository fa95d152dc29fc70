package rebalance

import (
	"context"
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"
	"k8s.io/utils/clock"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/config/validation"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

// Name of the plugin in a scheduler configuration.
const Name = config.RebalanceName

const (
	// costUnit turns the planner's cost into a whole number, as scores are.
	costUnit = 1e6
	// smallestSpread is the difference in cost that makes a full difference in
	// score. Nodes that are closer than that are nearly alike, and another
	// plugin may decide.
	smallestSpread = int64(planner.MoveCost * costUnit)
	// bestUnplannedScore leaves the upper half to the planned node.
	bestUnplannedScore = fwk.MaxNodeScore / 2
)

// Plugin scores nodes by what they would cost with the pod on them.
type Plugin struct {
	objective    planner.Objective
	measurements *measurements
}

var (
	_ fwk.PreScorePlugin  = (*Plugin)(nil)
	_ fwk.ScorePlugin     = (*Plugin)(nil)
	_ fwk.ScoreExtensions = (*Plugin)(nil)
	_ fwk.SignPlugin      = (*Plugin)(nil)
)

// New validates the arguments, starts to poll the metrics API until ctx ends,
// and returns the plugin.
func New(ctx context.Context, object runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
	args, ok := object.(*config.RebalanceArgs)
	if !ok {
		return nil, fmt.Errorf("want arguments of type RebalanceArgs, got %T", object)
	}
	if errs := validation.ValidateRebalanceArgs(nil, args); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	plugin := &Plugin{
		objective:    planner.Objective{Thresholds: thresholdsOf(args.Thresholds)},
		measurements: newMeasurements(clock.RealClock{}, args.MetricsMaxAge.Duration),
	}
	if handle.KubeConfig() == nil {
		return plugin, nil
	}
	// The metrics API need not speak protobuf, which the scheduler's own
	// configuration asks for.
	kubeConfig := rest.CopyConfig(handle.KubeConfig())
	kubeConfig.AcceptContentTypes, kubeConfig.ContentType = "", runtime.ContentTypeJSON
	client, err := metricsclient.NewForConfig(kubeConfig)
	if err != nil {
		return nil, fmt.Errorf("making a client of the metrics API: %w", err)
	}
	go plugin.measurements.run(klog.NewContext(ctx, klog.LoggerWithName(klog.FromContext(ctx), Name)), client.MetricsV1beta1().NodeMetricses())
	return plugin, nil
}

// thresholdsOf the arguments. A score knows one node at a time, so that there is
// no mean to deviate from: then only the square of the load counts, which draws
// pods to the emptier nodes.
func thresholdsOf(args config.UtilizationThresholds) cluster.Utilization {
	if args.Mode == config.ThresholdsDeviation {
		return cluster.Utilization{CPU: 1, Memory: 1}
	}
	return cluster.Percent(args.CPU, args.Memory)
}

// Name returns the name of the plugin.
func (p *Plugin) Name() string { return Name }

const stateKey fwk.StateKey = Name

// podState is what Score asks of the pod.
type podState struct{ requests cluster.Resources }

func (s *podState) Clone() fwk.StateData { return s }

// PreScore adds up the requests of the pod once for all nodes.
func (p *Plugin) PreScore(_ context.Context, state fwk.CycleState, pod *corev1.Pod, _ []fwk.NodeInfo) *fwk.Status {
	state.Write(stateKey, &podState{requests: requestsOf(pod)})
	return nil
}

// Score returns the cost of the node with the pod on it; NormalizeScore turns
// it round.
func (p *Plugin) Score(_ context.Context, state fwk.CycleState, _ *corev1.Pod, info fwk.NodeInfo) (int64, *fwk.Status) {
	data, err := state.Read(stateKey)
	if err != nil {
		return 0, fwk.AsStatus(fmt.Errorf("reading what PreScore found: %w", err))
	}
	asked := data.(*podState).requests
	requested := amountsOf(info.GetRequested()).Add(asked)
	cost := p.objective.NodeCost(planner.NodeState{
		Allocatable: amountsOf(info.GetAllocatable()),
		Used:        p.load(info).Add(asked),
		Requested:   requested,
		Evictable:   requested,
	})
	return int64(math.Round(cost * costUnit)), nil
}

// load is what the node uses: measured, plus the requests of pods that are too
// young for the measurement to show them. Without that, every pod of a burst
// would go to the node that was idle before it. A node without a fresh
// measurement is taken at its requests.
func (p *Plugin) load(info fwk.NodeInfo) cluster.Resources {
	measured, ok := p.measurements.fresh(info.Node().Name)
	if !ok {
		return amountsOf(info.GetRequested())
	}
	used := measured.used
	for _, podInfo := range info.GetPods() {
		pod := podInfo.GetPod()
		if pod.Status.StartTime == nil || pod.Status.StartTime.After(measured.from) {
			used = used.Add(requestsOf(pod))
		}
	}
	return used
}

// ScoreExtensions returns the plugin itself.
func (p *Plugin) ScoreExtensions() fwk.ScoreExtensions { return p }

// NormalizeScore turns costs into scores: the cheapest node gets the most. The
// planned node, if the pod has one and it passed the filters, gets the best
// score and the others share the lower half.
func (p *Plugin) NormalizeScore(_ context.Context, _ fwk.CycleState, pod *corev1.Pod, scores fwk.NodeScoreList) *fwk.Status {
	if len(scores) == 0 {
		return nil
	}
	planned := plannedIndex(pod, scores)
	best := fwk.MaxNodeScore
	if planned >= 0 {
		best = bestUnplannedScore
	}
	cheapest, mostExpensive := scores[0].Score, scores[0].Score
	for _, score := range scores {
		cheapest, mostExpensive = min(cheapest, score.Score), max(mostExpensive, score.Score)
	}
	spread := max(mostExpensive-cheapest, smallestSpread)
	for i := range scores {
		scores[i].Score = best - (scores[i].Score-cheapest)*best/spread
	}
	if planned >= 0 {
		scores[planned].Score = fwk.MaxNodeScore
	}
	return nil
}

// plannedIndex finds the node that a migration names, or returns -1.
func plannedIndex(pod *corev1.Pod, scores fwk.NodeScoreList) int {
	planned := pod.Labels[v1alpha1.TargetNodeLabel]
	if planned == "" {
		return -1
	}
	for i := range scores {
		if v1alpha1.LabelValue(scores[i].Name) == planned {
			return i
		}
	}
	return -1
}

// SignPod names what the score depends on in a pod, so that pods alike may
// share a scheduling result (KEP-5598).
func (p *Plugin) SignPod(_ context.Context, pod *corev1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	requests := requestsOf(pod)
	return []fwk.SignFragment{
		{Key: Name + ".Requests()", Value: []int64{requests.MilliCPU, requests.Memory}},
		{Key: Name + ".PlannedNode()", Value: pod.Labels[v1alpha1.TargetNodeLabel]},
	}, nil
}

func amountsOf(r fwk.Resource) cluster.Resources {
	return cluster.Resources{MilliCPU: r.GetMilliCPU(), Memory: r.GetMemory()}
}

// requestsOf are the CPU and memory that a pod requests, counted as the scheduler
// counts them in what a node's pods request together: otherwise a young pod that
// is being resized would count for less in the one than in the other. Other
// resources have no part in the score.
func requestsOf(pod *corev1.Pod) cluster.Resources {
	requests := pods.Requests(pod)
	return cluster.Resources{MilliCPU: requests.Cpu().MilliValue(), Memory: requests.Memory().Value()}
}
