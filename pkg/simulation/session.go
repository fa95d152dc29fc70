package simulation

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/cluster"
)

// Session is a copy of a snapshot to try placements on. It is not for
// concurrent use; several sessions of one Simulator are.
type Session struct {
	simulator *Simulator
	nodes     map[string]*framework.NodeInfo
	ordered   []fwk.NodeInfo
	pods      map[cluster.PodKey]placement
	// unnamed counts the names given to pods that have none.
	unnamed int
	// last is what PreFilter said, for as long as pod and placements stay the
	// same: it is asked once for all nodes, as in the scheduler.
	last *preFiltered
}

type placement struct {
	pod  *corev1.Pod
	node *framework.NodeInfo
}

type preFiltered struct {
	asked   *corev1.Pod
	pod     *corev1.Pod
	state   fwk.CycleState
	result  *fwk.PreFilterResult
	status  *fwk.Status
	plugins sets.Set[string]
}

// Verdict is the answer to whether a pod fits.
type Verdict struct {
	Fits bool
	// Plugin and Reason are the scheduler's: the plugin that rejected the node
	// and its own words. Both are empty when the pod fits.
	Plugin string
	Reason string
}

// Session starts from the pods and nodes of a snapshot, which stays as it is.
// Every pod and node in it must have its Object.
func (s *Simulator) Session(snapshot *cluster.Snapshot) *Session {
	session := &Session{
		simulator: s,
		nodes:     make(map[string]*framework.NodeInfo, len(snapshot.Nodes)),
		ordered:   make([]fwk.NodeInfo, 0, len(snapshot.Nodes)),
		pods:      make(map[cluster.PodKey]placement, len(snapshot.Pods)),
	}
	for _, node := range snapshot.Nodes {
		info := framework.NewNodeInfo()
		info.SetNode(node.Object)
		session.nodes[node.Name] = info
		session.ordered = append(session.ordered, info)
	}
	for _, pod := range snapshot.Pods {
		// The scheduler does not count pods on nodes that are gone, either.
		if info, ok := session.nodes[pod.NodeName]; ok {
			session.add(pod.Key(), pod.Object, info)
		}
	}
	return session
}

// Fits asks the scheduler's PreFilter and Filter plugins whether the pod may go
// to the node, with everything in its place that was placed and not removed. An
// error means that there is no answer. The pod must not be changed between calls.
//
// A checkpoint claim that is not there yet is left out: a migration makes it
// later, and where a new volume may come is for the scheduler to say then.
func (s *Session) Fits(ctx context.Context, pod *corev1.Pod, nodeName string) (Verdict, error) {
	node, ok := s.nodes[nodeName]
	if !ok {
		return Verdict{}, fmt.Errorf("node %q is not in the snapshot", nodeName)
	}
	s.simulator.mu.Lock()
	defer s.simulator.mu.Unlock()
	s.simulator.lister.session = s
	before, err := s.preFilter(ctx, pod)
	if err != nil {
		return Verdict{}, err
	}
	if !before.status.IsSuccess() {
		verdict, err := verdictOf(before.status)
		if verdict.Plugin == "" {
			verdict.Plugin = strings.Join(sets.List(before.plugins), ",")
		}
		return verdict, err
	}
	if !before.result.AllNodes() && !before.result.NodeNames.Has(nodeName) {
		return Verdict{
			Plugin: strings.Join(sets.List(before.plugins), ","),
			Reason: "node is filtered out by the prefilter result",
		}, nil
	}
	status := s.simulator.framework.RunFilterPlugins(ctx, before.state, before.pod, node)
	if ctx.Err() != nil {
		// A plugin that was cut short says no.
		return Verdict{}, context.Cause(ctx)
	}
	return verdictOf(status)
}

func (s *Session) preFilter(ctx context.Context, pod *corev1.Pod) (*preFiltered, error) {
	if s.last != nil && s.last.asked == pod {
		return s.last, nil
	}
	unbound, err := s.unbound(pod)
	if err != nil {
		return nil, err
	}
	before := &preFiltered{asked: pod, pod: unbound, state: framework.NewCycleState()}
	before.result, before.status, before.plugins = s.simulator.framework.RunPreFilterPlugins(ctx, before.state, unbound)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.last = before
	return before, nil
}

// unbound is the pod as the scheduler would see it: on no node, and without a
// checkpoint claim that does not exist yet.
func (s *Session) unbound(pod *corev1.Pod) (*corev1.Pod, error) {
	unbound := pod.DeepCopy()
	unbound.Spec.NodeName = ""
	var failure error
	unbound.Spec.Volumes = slices.DeleteFunc(unbound.Spec.Volumes, func(volume corev1.Volume) bool {
		if volume.Name != v1alpha1.CheckpointVolumeName || volume.PersistentVolumeClaim == nil {
			return false
		}
		_, err := s.simulator.claims.PersistentVolumeClaims(pod.Namespace).Get(volume.PersistentVolumeClaim.ClaimName)
		if err != nil && !apierrors.IsNotFound(err) {
			failure = fmt.Errorf("reading the checkpoint claim: %w", err)
		}
		return apierrors.IsNotFound(err)
	})
	return unbound, failure
}

func verdictOf(status *fwk.Status) (Verdict, error) {
	switch {
	case status.IsSuccess():
		return Verdict{Fits: true}, nil
	case status.IsRejected():
		return Verdict{Plugin: status.Plugin(), Reason: status.Message()}, nil
	default:
		return Verdict{}, fmt.Errorf("asking the scheduler's filters: %w", status.AsError())
	}
}

// Place makes the pod hold room on the node, whether it fits or not. A pod
// without a name, or with one that is taken, is given one.
func (s *Session) Place(pod *corev1.Pod, nodeName string) error {
	node, ok := s.nodes[nodeName]
	if !ok {
		return fmt.Errorf("node %q is not in the snapshot", nodeName)
	}
	placed := pod.DeepCopy()
	placed.Spec.NodeName = nodeName
	key := cluster.PodKey{Namespace: pod.Namespace, Name: pod.Name}
	if _, taken := s.pods[key]; taken || key.Name == "" {
		s.unnamed++
		// Not a valid name of a pod, so that it can never be taken.
		key.Name = fmt.Sprintf("%s#%d", pod.Name, s.unnamed)
		placed.Name, placed.UID = key.Name, ""
	}
	s.add(key, placed, node)
	return nil
}

// Remove takes a pod of the snapshot, or one that was placed, off its node.
func (s *Session) Remove(namespace, name string) error {
	key := cluster.PodKey{Namespace: namespace, Name: name}
	found, ok := s.pods[key]
	if !ok {
		return fmt.Errorf("pod %s is not on any node of the snapshot", key)
	}
	if err := found.node.RemovePod(klog.Background(), found.pod); err != nil {
		return fmt.Errorf("removing pod %s: %w", key, err)
	}
	delete(s.pods, key)
	s.last = nil
	return nil
}

// add puts a pod on a node. The framework tells pods apart by UID.
func (s *Session) add(key cluster.PodKey, pod *corev1.Pod, node *framework.NodeInfo) {
	if pod.UID == "" {
		pod = pod.DeepCopy()
		pod.UID = types.UID("simulated/" + key.String())
	}
	node.AddPod(pod)
	s.pods[key] = placement{pod: pod, node: node}
	s.last = nil
}
