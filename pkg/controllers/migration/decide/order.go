package decide

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// chooseOrder says whether original and replacement may overlap, and why.
func chooseOrder(s *State, v containers.Verdicts, processes bool) (v1alpha1.HandoverOrder, string) {
	if s.Migration.Spec.ForceRestart {
		return v1alpha1.OrderStopFirst, "the request asks for a restart (spec.forceRestart)"
	}
	if why := owners.StopsFirst(s.Owner); why != "" {
		return v1alpha1.OrderStopFirst, why
	}
	if why := containers.Exclusive(s.Pod, v, s.Claims); why != "" {
		return v1alpha1.OrderStopFirst, why
	}
	if s.Migration.CheckpointMode() == v1alpha1.CheckpointApplication {
		return v1alpha1.OrderStopFirst, "the application saves its state when it is asked to end"
	}
	if carried := containers.CarriedVolumes(s.Pod, v); len(carried) > 0 && !s.sharesCheckpoint() {
		return v1alpha1.OrderStopFirst, fmt.Sprintf("what is in %s is carried on a claim that two nodes cannot use at once: a class that offers ReadWriteMany spares the stop (spec.checkpoint.accessMode)", strings.Join(carried, ", "))
	}
	if processes && !s.sharesCheckpoint() {
		return v1alpha1.OrderStopFirst, "the memory of its processes is carried on a claim that two nodes cannot use at once: a class that offers ReadWriteMany spares the stop (spec.checkpoint.accessMode)"
	}
	return v1alpha1.OrderStartFirst, "nothing keeps the replacement from running beside the original"
}

// sharesCheckpoint reports whether two nodes can use the checkpoint claim at once.
func (s *State) sharesCheckpoint() bool {
	if reused := s.reusedClaim(); reused != "" {
		claim, _ := s.Claims(reused)
		return slices.Contains(containers.AccessModes(claim), corev1.ReadWriteMany)
	}
	return s.Migration.Spec.Checkpoint.ClaimAccessMode() == corev1.ReadWriteMany
}

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
		return refusal(ReasonNodeWithoutCRIU,
			"node %s cannot dump processes: its node agent did not give it the label %s=true (annotation %s reports what it found)", s.Pod.Spec.NodeName, v1alpha1.ProcessNodeLabel, v1alpha1.ProcessVersionsAnnotation)
	}
	if order, why := chooseOrder(s, v, true); order != v1alpha1.OrderStartFirst {
		return refusal(ReasonProcessNeedsOverlap,
			"processes are restored while the original can still continue, but it would have to stop first: %s", why)
	}
	return nil
}

// checkpointPossible returns why what the pod keeps cannot be carried.
func checkpointPossible(s *State, v containers.Verdicts) *containers.Refusal {
	carried := containers.CarriedVolumes(s.Pod, v)
	if len(carried) == 0 {
		return nil
	}
	what := "what is in " + strings.Join(carried, ", ")
	if s.AgentImage == "" {
		return &containers.Refusal{Reason: ReasonNodeAgentMissing, Message: what + " would have to be carried, and there is no node agent: see --node-agent-image of the rebalancer"}
	}
	return nil
}

// pullSecretsExist refuses a pod beside which the image of the node agent has to run, in a
// namespace that lacks a Secret by which it is pulled. That a node has the image already
// does not help: from Kubernetes 1.35 the kubelet asks for the credentials of those who
// use an image that was pulled with some (KEP-2535).
func pullSecretsExist(s *State, v containers.Verdicts) *containers.Refusal {
	if s.AgentImage == "" || len(s.MissingPullSecrets) == 0 {
		return nil
	}
	mode, _ := plannedMode(s, v)
	processes := mode == v1alpha1.CheckpointProcess
	if order, _ := chooseOrder(s, v, processes); order == v1alpha1.OrderStartFirst && !processes && len(containers.CarriedVolumes(s.Pod, v)) == 0 {
		return nil
	}
	return &containers.Refusal{Reason: ReasonImagePullSecretMissing, Message: fmt.Sprintf(
		"namespace %s has no Secret %s, by which the kubelet pulls image %s of the pods that hold its place or carry its state: create it there, or change --node-agent-image-pull-secrets of the rebalancer",
		s.Migration.Namespace, strings.Join(s.MissingPullSecrets, ", "), s.AgentImage)}
}

// reusedClaim is the checkpoint claim that the pod brought along, which is used
// again: the application may have written to it. One whose content may be lost
// is not used, since only one node may be able to mount it.
func (s *State) reusedClaim() string {
	previous := containers.PreviousCheckpoint(s.Pod)
	if previous == "" || containers.MayLose(s.Pod, v1alpha1.CheckpointVolumeName) {
		return ""
	}
	// A claim for one pod could not be mounted by the carrier beside the original.
	carried := s.Migration.CheckpointMode().CarriesVolumes()
	if claim, _ := s.Claims(previous); claim == nil || claim.DeletionTimestamp != nil || carried && slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod) {
		return ""
	}
	return previous
}
