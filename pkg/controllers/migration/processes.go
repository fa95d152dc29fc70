package migration

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// plannedMode is how state would be carried. Where processes were to move and
// cannot, it is Frozen, and the refusal says why.
func plannedMode(s *State, v containers.Verdicts) (v1alpha1.CheckpointMode, *containers.Refusal) {
	mode := cmp.Or(s.Migration.Spec.Checkpoint.Mode, v1alpha1.CheckpointFrozen)
	if mode != v1alpha1.CheckpointProcess {
		return mode, nil
	}
	if r := refuseProcesses(s, v); r != nil {
		return v1alpha1.CheckpointFrozen, r
	}
	return mode, nil
}

// refuseProcesses returns the first reason why the processes of a pod cannot move.
func refuseProcesses(s *State, v containers.Verdicts) *containers.Refusal {
	if r := containers.RefuseProcesses(s.Pod, v); r != nil {
		return r
	}
	if s.AgentImage == "" {
		return &containers.Refusal{Reason: ReasonNodeAgentMissing, Message: "the memory of its processes would have to be carried, and there is no node agent: see --node-agent-image of the rebalancer"}
	}
	if !s.CarriesProcesses {
		return &containers.Refusal{Reason: ReasonNodeWithoutCRIU, Message: fmt.Sprintf(
			"node %s cannot dump processes: its node agent did not give it the label %s=true (annotation %s tells what it found)", s.Pod.Spec.NodeName, v1alpha1.ProcessNodeLabel, v1alpha1.ProcessVersionsAnnotation)}
	}
	if order, why := chooseOrder(s, v, true); order != v1alpha1.OrderStartFirst {
		return &containers.Refusal{Reason: ReasonProcessNeedsOverlap, Message: fmt.Sprintf(
			"processes are restored while the original can still go on, but it would have to stop first: %s", why)}
	}
	return nil
}

// recheckProcesses looks again at a pod whose processes are to move: before the
// first attempt, and before another one.
func (st *step) recheckProcesses(v containers.Verdicts) (Decision, bool) {
	c := st.status().Checkpoint
	if c == nil || c.Mode != v1alpha1.CheckpointProcess {
		return Decision{}, false
	}
	if r := containers.RefuseProcesses(st.Pod, v); r != nil {
		return st.processesStay(r.Reason, r.Message), true
	}
	c.Processes = containers.MovingProcesses(v)
	return Decision{}, false
}

// processesStay ends the attempt to move processes: the original goes on, and the
// migration with the volumes alone where it may.
func (st *step) processesStay(reason, why string) Decision {
	message := "the processes of the pod cannot move: " + why
	if st.Migration.Spec.Checkpoint.Fallback != v1alpha1.FallbackFreshStart {
		return st.giveUp(reason, message)
	}
	d := st.startOver(reason, message+"; its containers start afresh with its volumes")
	if c := st.status().Checkpoint; st.status().Phase == v1alpha1.PhasePreparing {
		c.Mode, c.Processes, c.FallbackReason = v1alpha1.CheckpointFrozen, nil, why
	}
	d.Status = st.decision.Status
	return d
}

// goesOn reports whether a released replacement works. To the kubelet restored
// processes that still stand are Ready where nothing probes them.
func (st *step) goesOn(r *corev1.Pod) bool {
	c := st.status().Checkpoint
	if c != nil && len(c.Processes) > 0 && (c.Destination == nil || c.Destination.Phase != v1alpha1.DestinationReleased) {
		return false
	}
	return isWorking(r)
}

// imagesDiffer gives up when the destination has another image than the original
// under the same name: the programs in memory would not be those on disk. The
// containers that pulled the images early tell.
func (st *step) imagesDiffer(r *corev1.Pod) (Decision, bool) {
	if st.Migration.CheckpointMode() != v1alpha1.CheckpointProcess {
		return Decision{}, false
	}
	pulled := map[string]string{}
	for _, c := range r.Spec.InitContainers {
		for _, s := range r.Status.InitContainerStatuses {
			if s.Name == c.Name && v1alpha1.IsGateContainer(c.Name) && s.ImageID != "" {
				pulled[c.Image] = s.ImageID
			}
		}
	}
	for _, s := range slices.Concat(st.Pod.Status.InitContainerStatuses, st.Pod.Status.ContainerStatuses) {
		image := imageOf(st.Pod, s.Name)
		if there := pulled[image]; slices.Contains(st.Migration.Status.Checkpoint.Processes, s.Name) && there != "" && s.ImageID != "" && there != s.ImageID {
			return st.processesStay(ReasonImageDiffers, fmt.Sprintf("container %s runs image %s as %s, and node %s has %s", s.Name, image, s.ImageID, r.Spec.NodeName, there)), true
		}
	}
	return Decision{}, false
}

func imageOf(pod *corev1.Pod, container string) string {
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.Name == container {
			return c.Image
		}
	}
	return ""
}

// restored records what the replacement went on with.
func (st *step) restored() {
	c := st.status().Checkpoint
	switch {
	case !c.Carries():
	case len(c.Processes) > 0:
		c.Restored = v1alpha1.RestoredProcesses
	default:
		c.Restored = v1alpha1.RestoredVolumes
	}
}
