package simulation

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// base is what a Simulator keeps from one session to the next: the framework's
// view of every node. From one cycle to the next most nodes hold the same pods,
// and to add up what pods request is most of the work. Objects of informers are
// never changed, only replaced, so the same pointer means the same content.
//
// The views are shared by sessions, which copy a node before they change it.
type base struct {
	nodes map[string]*baseNode
}

type baseNode struct {
	node *corev1.Node
	pods []*corev1.Pod
	view *framework.NodeInfo
	// repels are the labels that anti-affinity terms of its pods select.
	repels []labelPair
}

// update brings the base to a snapshot and returns its nodes, in their order.
func (b *base) update(snapshot *cluster.Snapshot) []*baseNode {
	residents := residentsOf(snapshot)
	nodes := make(map[string]*baseNode, len(snapshot.Nodes))
	ordered := make([]*baseNode, len(snapshot.Nodes))
	for i, node := range snapshot.Nodes {
		ordered[i] = b.nodes[node.Name].renewed(node.Object, residents[i])
		nodes[node.Name] = ordered[i]
	}
	b.nodes = nodes
	return ordered
}

// residentsOf groups the pods by the index of their node. The scheduler does
// not count pods on nodes that are gone, either.
func residentsOf(snapshot *cluster.Snapshot) [][]*corev1.Pod {
	index := make(map[string]int, len(snapshot.Nodes))
	for i, node := range snapshot.Nodes {
		index[node.Name] = i
	}
	residents := make([][]*corev1.Pod, len(snapshot.Nodes))
	for _, pod := range snapshot.Pods {
		if i, known := index[pod.NodeName]; known {
			residents[i] = append(residents[i], pod.Object)
		}
	}
	return residents
}

// renewed returns the node with the given pods: itself when nothing changed,
// else a new one that takes over what is known of pods that stayed. The old one
// may be nil.
func (n *baseNode) renewed(node *corev1.Node, pods []*corev1.Pod) *baseNode {
	if n != nil && slices.Equal(n.pods, pods) {
		if n.node == node {
			return n
		}
		view := n.view.SnapshotConcrete()
		view.SetNode(node)
		return &baseNode{node: node, pods: pods, view: view, repels: n.repels}
	}
	view := framework.NewNodeInfo()
	view.SetNode(node)
	for _, pod := range pods {
		if known := n.known(pod); known != nil {
			view.AddPodInfo(known)
		} else {
			view.AddPod(withUID(pod))
		}
	}
	return &baseNode{node: node, pods: pods, view: view, repels: repelled(view.GetPodsWithRequiredAntiAffinity())}
}

func (n *baseNode) known(pod *corev1.Pod) fwk.PodInfo {
	if n == nil {
		return nil
	}
	for _, info := range n.view.Pods {
		if info.GetPod() == pod {
			return info
		}
	}
	return nil
}
