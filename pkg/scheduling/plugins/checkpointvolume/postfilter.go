package checkpointvolume

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"
)

// ReasonNoPreemption explains why no room is made for a replacement.
const ReasonNoPreemption = "a migration never preempts other pods"

// PostFilter keeps the plugins after it from preempting pods for a replacement or its
// placeholder: the original still runs, and no budget allows
// for the pods that would go. With a ReadWriteOncePod claim, the original itself
// would go. It must be enabled before DefaultPreemption. Other pods are passed on.
func (p *Plugin) PostFilter(_ context.Context, _ fwk.CycleState, pod *corev1.Pod, _ fwk.NodeToStatusReader) (*fwk.PostFilterResult, *fwk.Status) {
	if !isMadeByMigration(pod) {
		return nil, fwk.NewStatus(fwk.Unschedulable)
	}
	return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, ReasonNoPreemption)
}
