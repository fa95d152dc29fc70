package checkpointvolume

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/util"
)

// EventsToRegister names what can make a rejected pod schedulable: a new node,
// or a driver on a node; and for a placeholder what can change the answer of any filter
// about its replacement. A pod held back by a failed attach, by a reserved claim
// or by a checkpoint that is not sealed is activated when that ends; there is no
// event of PodMigrations here, since the scheduler would not start in a cluster
// that does not know them. A pod that waits for the end of another with the same
// ReadWriteOncePod claim is brought back by VolumeRestrictions, which rejected it.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{
			Event:          fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add},
			QueueingHintFn: hintAfterNodeAdded,
		},
		{
			Event:          fwk.ClusterEvent{Resource: fwk.CSINode, ActionType: fwk.Add | fwk.Update},
			QueueingHintFn: p.hintAfterDriverChange,
		},
		{
			Event:          fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeAllocatable | fwk.UpdateNodeLabel | fwk.UpdateNodeTaint},
			QueueingHintFn: hintForPlaceholder,
		},
		{
			Event:          fwk.ClusterEvent{Resource: fwk.Pod, ActionType: fwk.Add | fwk.Delete | fwk.UpdatePodLabel | fwk.UpdatePodScaleDown},
			QueueingHintFn: hintForPlaceholder,
		},
	}, nil
}

// hintForPlaceholder lets a placeholder be tried again: which filter kept its
// replacement away is not asked, since there are few placeholders.
func hintForPlaceholder(_ klog.Logger, pod *corev1.Pod, _, _ any) (fwk.QueueingHint, error) {
	if isPlaceholder(pod) {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}

func hintAfterNodeAdded(_ klog.Logger, pod *corev1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	_, node, err := util.As[*corev1.Node](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	if node.Name == sourceNode(pod) {
		return fwk.QueueSkip, nil
	}
	return fwk.Queue, nil
}

func (p *Plugin) hintAfterDriverChange(_ klog.Logger, pod *corev1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	before, after, err := util.As[*storagev1.CSINode](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	if after.Name == sourceNode(pod) {
		return fwk.QueueSkip, nil
	}
	for _, key := range claimsOf(pod) {
		driver, err := p.driverOf(key)
		if err != nil {
			return fwk.Queue, err
		}
		if driver != "" && hasDriver(after, driver) && (before == nil || !hasDriver(before, driver)) {
			return fwk.Queue, nil
		}
	}
	return fwk.QueueSkip, nil
}
