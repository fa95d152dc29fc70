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
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// Session is a copy of a snapshot to try placements on. It is not for
// concurrent use; several sessions of one Simulator are. It does nothing until
// it is asked, and copies only the nodes that change.
type Session struct {
	simulator *Simulator
	snapshot  *cluster.Snapshot
	// index finds a node in ordered; both are nil until the first question.
	index   map[string]int
	ordered []fwk.NodeInfo
	// own tells which nodes are the session's own and may be changed.
	own []bool
	// repellers narrow down the question that asked is in PreFilter with.
	repellers *repellers
	asked     *corev1.Pod
	// removed are pods of the snapshot that are off their nodes, placed those
	// that were put somewhere.
	removed map[cluster.PodKey]bool
	placed  map[cluster.PodKey]placement
	// keys are those under which pods were placed.
	keys map[*corev1.Pod]cluster.PodKey
	// unnamed counts the names given to pods that have none.
	unnamed int
	// known is what PreFilter said of pods: it is asked once for all nodes, as in
	// the scheduler, and notified of changes.
	known map[*corev1.Pod]*preFiltered
}

type placement struct {
	pod  *corev1.Pod
	node string
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
	return &Session{
		simulator: s, snapshot: snapshot,
		removed: map[cluster.PodKey]bool{}, placed: map[cluster.PodKey]placement{}, keys: map[*corev1.Pod]cluster.PodKey{},
		known: map[*corev1.Pod]*preFiltered{},
	}
}

// begin makes the framework's view of the snapshot, once.
func (s *Session) begin() {
	if s.index != nil {
		return
	}
	nodes := s.simulator.nodes(s.snapshot)
	s.index = make(map[string]int, len(nodes))
	s.ordered, s.own = make([]fwk.NodeInfo, len(nodes)), make([]bool, len(nodes))
	for i, node := range nodes {
		s.index[s.snapshot.Nodes[i].Name] = i
		s.ordered[i] = node.view
	}
	if s.simulator.follows {
		s.repellers = newRepellers(nodes)
	}
}

// nodeAt finds a node by name.
func (s *Session) nodeAt(name string) (int, error) {
	s.begin()
	i, ok := s.index[name]
	if !ok {
		return 0, fmt.Errorf("node %q is not in the snapshot", name)
	}
	return i, nil
}

// toChange returns a node that may be changed.
func (s *Session) toChange(i int) *framework.NodeInfo {
	view := s.ordered[i].(*framework.NodeInfo)
	if !s.own[i] {
		view = view.SnapshotConcrete()
		s.ordered[i], s.own[i] = view, true
		if s.repellers != nil {
			s.repellers.changed[i] = true
		}
	}
	return view
}

// Fits asks the scheduler's PreFilter and Filter plugins whether the pod may go
// to the node, with everything in its place that was placed and not removed. An
// error means that there is no answer. The pod must not be changed between calls.
//
// A checkpoint claim that is not there yet is left out: a migration makes it
// later, and where a new volume may come is for the scheduler to say then.
func (s *Session) Fits(ctx context.Context, pod *corev1.Pod, nodeName string) (Verdict, error) {
	at, err := s.nodeAt(nodeName)
	if err != nil {
		return Verdict{}, err
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
	status := s.simulator.framework.RunFilterPlugins(ctx, before.state, before.pod, s.ordered[at])
	if ctx.Err() != nil {
		// A plugin that was cut short says no.
		return Verdict{}, context.Cause(ctx)
	}
	return verdictOf(status)
}

func (s *Session) preFilter(ctx context.Context, pod *corev1.Pod) (*preFiltered, error) {
	if before, ok := s.known[pod]; ok {
		return before, nil
	}
	unbound, err := s.unbound(pod)
	if err != nil {
		return nil, err
	}
	before := &preFiltered{pod: unbound, state: framework.NewCycleState()}
	s.asked = unbound
	defer func() { s.asked = nil }()
	before.result, before.status, before.plugins = s.simulator.framework.RunPreFilterPlugins(ctx, before.state, unbound)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if len(s.known) >= knownPods {
		clear(s.known)
	}
	s.known[pod] = before
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
	at, err := s.nodeAt(nodeName)
	if err != nil {
		return err
	}
	key, placed := cluster.PodKey{Namespace: pod.Namespace, Name: pod.Name}, pod
	if taken := s.isTaken(key); taken || key.Name == "" || pod.Spec.NodeName != nodeName {
		placed = pod.DeepCopy()
		placed.Spec.NodeName = nodeName
		if taken || key.Name == "" {
			s.unnamed++
			// Not a valid name of a pod, so that it can never be taken.
			key.Name = fmt.Sprintf("%s#%d", pod.Name, s.unnamed)
			placed.Name, placed.UID = key.Name, ""
		}
	}
	placed = withUID(placed)
	// As in the scheduler's own view, a term that does not parse counts as absent.
	info, _ := framework.NewPodInfo(placed)
	s.toChange(at).AddPodInfo(info)
	s.change(info, s.ordered[at], 1)
	s.placed[key], s.keys[pod] = placement{pod: placed, node: nodeName}, key
	return nil
}

// isTaken reports whether a pod of that name is on a node.
func (s *Session) isTaken(key cluster.PodKey) bool {
	if _, taken := s.placed[key]; taken {
		return true
	}
	return !s.removed[key] && s.original(key) != nil
}

// original finds a pod of the snapshot that is on one of its nodes.
func (s *Session) original(key cluster.PodKey) *cluster.Pod {
	i, found := slices.BinarySearchFunc(s.snapshot.Pods, key, func(pod *cluster.Pod, key cluster.PodKey) int { return pod.Key().Compare(key) })
	if !found {
		return nil
	}
	if _, known := s.index[s.snapshot.Pods[i].NodeName]; !known {
		return nil
	}
	return s.snapshot.Pods[i]
}

// Remove takes a pod off its node: the latest placement of it, or else the pod
// of that name in the snapshot.
func (s *Session) Remove(pod *corev1.Pod) error {
	s.begin()
	key, wasPlaced := s.keys[pod]
	if !wasPlaced {
		key = cluster.PodKey{Namespace: pod.Namespace, Name: pod.Name}
	}
	found, ok := s.placed[key]
	if !ok {
		original := s.original(key)
		if original == nil || s.removed[key] {
			return fmt.Errorf("pod %s is not on any node of the snapshot", key)
		}
		found = placement{pod: withUID(original.Object), node: original.NodeName}
	}
	at := s.index[found.node]
	if err := s.toChange(at).RemovePod(klog.Background(), found.pod); err != nil {
		return fmt.Errorf("removing pod %s: %w", key, err)
	}
	info, _ := framework.NewPodInfo(found.pod)
	s.change(info, s.ordered[at], -1)
	if ok {
		delete(s.placed, key)
		delete(s.keys, pod)
	} else {
		s.removed[key] = true
	}
	return nil
}

// withUID gives a pod without a UID one: the framework tells pods apart by it.
func withUID(pod *corev1.Pod) *corev1.Pod {
	if pod.UID != "" {
		return pod
	}
	pod = pod.DeepCopy()
	pod.UID = types.UID("simulated/" + pod.Namespace + "/" + pod.Name)
	return pod
}
