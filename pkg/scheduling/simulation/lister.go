package simulation

import (
	"fmt"

	fwk "k8s.io/kube-scheduler/framework"
)

// lister is what the plugins know of nodes and pods. They were given it when
// they were made, so it passes every question on to the session at work.
type lister struct{ session *Session }

var (
	_ fwk.SharedLister      = (*lister)(nil)
	_ fwk.NodeInfoLister    = (*lister)(nil)
	_ fwk.StorageInfoLister = (*lister)(nil)
)

func (l *lister) NodeInfos() fwk.NodeInfoLister       { return l }
func (l *lister) StorageInfos() fwk.StorageInfoLister { return l }

// List returns all nodes in order of their names.
func (l *lister) List() ([]fwk.NodeInfo, error) { return l.session.ordered, nil }

// HavePodsWithAffinityList returns the nodes that have a pod with affinity.
func (l *lister) HavePodsWithAffinityList() ([]fwk.NodeInfo, error) {
	return l.nodesWith(func(node fwk.NodeInfo) bool { return len(node.GetPodsWithAffinity()) > 0 })
}

// HavePodsWithRequiredAntiAffinityList returns the nodes that have a pod which
// keeps others away. While PreFilter plugins of the scheduler's own ask, nodes
// are left out on which no such pod concerns the pod in question.
func (l *lister) HavePodsWithRequiredAntiAffinityList() ([]fwk.NodeInfo, error) {
	if l.session.asked != nil && l.session.repellers != nil {
		var found []fwk.NodeInfo
		for _, i := range l.session.repellers.concerning(l.session.asked) {
			if node := l.session.ordered[i]; len(node.GetPodsWithRequiredAntiAffinity()) > 0 {
				found = append(found, node)
			}
		}
		return found, nil
	}
	return l.nodesWith(func(node fwk.NodeInfo) bool { return len(node.GetPodsWithRequiredAntiAffinity()) > 0 })
}

func (l *lister) nodesWith(has func(fwk.NodeInfo) bool) ([]fwk.NodeInfo, error) {
	var found []fwk.NodeInfo
	for _, node := range l.session.ordered {
		if has(node) {
			found = append(found, node)
		}
	}
	return found, nil
}

// Get returns one node.
func (l *lister) Get(name string) (fwk.NodeInfo, error) {
	if i, ok := l.session.index[name]; ok {
		return l.session.ordered[i], nil
	}
	return nil, fmt.Errorf("node %q is not in the snapshot", name)
}

// IsPVCUsedByPods reports whether a pod on a node uses the claim, given as
// namespace/name.
func (l *lister) IsPVCUsedByPods(key string) bool {
	for _, node := range l.session.ordered {
		if node.GetPVCRefCounts()[key] > 0 {
			return true
		}
	}
	return false
}
