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
func chooseOrder(s *State, v containers.Verdicts) (v1alpha1.HandoverOrder, string) {
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
	return v1alpha1.OrderStartFirst, "nothing keeps the replacement from running beside the original"
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
	if order, why := chooseOrder(s, v); order != v1alpha1.OrderStartFirst {
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
	if order, _ := chooseOrder(s, v); order == v1alpha1.OrderStartFirst && mode != v1alpha1.CheckpointProcess && len(containers.CarriedVolumes(s.Pod, v)) == 0 {
		return nil
	}
	return &containers.Refusal{Reason: ReasonImagePullSecretMissing, Message: fmt.Sprintf(
		"namespace %s has no Secret %s, by which the kubelet pulls image %s of the pods that hold its place or carry its state: create it there, or change --node-agent-image-pull-secrets of the rebalancer",
		s.Migration.Namespace, strings.Join(s.MissingPullSecrets, ", "), s.AgentImage)}
}

// previousClaims are the checkpoint claim that the pod brought along. One that many nodes
// can use, and the one that an application saves to, is that of this migration too
// (reused). Any other is a volume of the pod's own (own). One whose content may be lost is
// neither.
func (s *State) previousClaims() (reused, own string) {
	previous := containers.PreviousCheckpoint(s.Pod)
	if previous == "" || containers.MayLose(s.Pod, v1alpha1.CheckpointVolumeName) {
		return "", ""
	}
	claim, _ := s.Claims(previous)
	switch {
	case claim == nil || claim.DeletionTimestamp != nil:
		return "", ""
	case s.Migration.CheckpointMode() == v1alpha1.CheckpointApplication || slices.Contains(containers.AccessModes(claim), corev1.ReadWriteMany):
		return previous, ""
	}
	return "", previous
}

// makesClaim reports whether a migration has to make a checkpoint claim.
func makesClaim(s *State, order v1alpha1.HandoverOrder, carries bool) bool {
	reused, own := s.previousClaims()
	if reused != "" || own != "" && !carries {
		return false
	}
	switch s.Migration.Spec.Checkpoint.ClaimPolicy() {
	case v1alpha1.ClaimAlways:
		return true
	case v1alpha1.ClaimNever:
		return false
	}
	return carries && order == v1alpha1.OrderStopFirst
}

// classExists refuses a migration whose claim would wait for a volume for ever.
func classExists(s *State, v containers.Verdicts) *containers.Refusal {
	order, why := chooseOrder(s, v)
	if s.HasStorageClass || !makesClaim(s, order, len(containers.CarriedVolumes(s.Pod, v)) > 0) {
		return nil
	}
	spec, missing := s.Migration.Spec.Checkpoint, "the cluster has no default StorageClass"
	if spec.StorageClassName != nil {
		missing = fmt.Sprintf("StorageClass %s does not exist", *spec.StorageClassName)
	}
	wanted := "spec.checkpoint asks for a checkpoint claim"
	if spec.ClaimPolicy() == v1alpha1.ClaimWhenNeeded {
		wanted = fmt.Sprintf("the pod stops before its replacement starts (%s), so that what is in %s needs a checkpoint claim", why, strings.Join(containers.CarriedVolumes(s.Pod, v), ", "))
	}
	return refusal(ReasonNoStorageClass, "%s, and %s: name a class in spec.checkpoint.storageClassName, or set spec.checkpoint.claim: Never, with which only a disk of the new node has the state between the two pods", wanted, missing)
}
