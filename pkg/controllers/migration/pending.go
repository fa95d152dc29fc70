package migration

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// pending checks the request, then asks for a place in the budget.
func (st *step) pending() Decision {
	for _, rule := range requestRules {
		if r := rule(st.State); r != nil {
			return st.reject(r)
		}
	}
	verdicts, refusal := containers.Assess(st.Pod, containers.PolicyOf(st.Migration), st.Claims)
	st.status().Containers = verdicts.Containers
	if refusal != nil {
		return st.reject(refusal)
	}
	if r := owners.Refuse(st.Pod, st.Owner); r != nil {
		return st.reject(r)
	}
	if r := checkpointPossible(st.State, verdicts); r != nil {
		return st.reject(r)
	}
	if _, r := plannedMode(st.State, verdicts); r != nil && st.Migration.Spec.Checkpoint.Fallback != v1alpha1.FallbackFreshStart {
		return st.reject(r)
	}
	st.status().Phase = v1alpha1.PhasePending
	if reason := owners.InFlight(st.Owner); reason != "" {
		return st.waitForOwner(reason)
	}
	return st.do(Action{Type: AskBudget, Pod: st.Pod})
}

// reject ends a migration that has changed nothing.
func (st *step) reject(r *containers.Refusal) Decision {
	st.condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, r.Reason, r.Message)
	st.event(true, st.Pod, r.Reason, fmt.Sprintf("Not migrating pod %s: %s", st.Migration.Spec.PodName, r.Message))
	return st.finish(v1alpha1.PhaseFailed, r.Message)
}

// waitForOwner waits until a rollout or a scaling is over, as long as the
// migration may take.
func (st *step) waitForOwner(reason string) Decision {
	if st.Now.After(st.Migration.CreationTimestamp.Add(time.Duration(st.Migration.Spec.TimeoutSeconds) * time.Second)) {
		return st.reject(&containers.Refusal{Reason: ReasonTimedOut, Message: fmt.Sprintf("not begun within %d s: %s", st.Migration.Spec.TimeoutSeconds, reason)})
	}
	st.condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, ReasonWaitingForOwner, reason)
	return st.wait(pollInterval, "waiting: %s", reason)
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

// reusedClaim is the checkpoint claim that the pod brought along, which is used
// again: the application may have written to it. One whose content may be lost
// is left alone, so that it is in nobody's way where only one node can have it.
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

// accept records the original once the budget has a place for it.
func (st *step) accept() Decision {
	st.status().Original = &v1alpha1.PodReference{Name: st.Pod.Name, UID: st.Pod.UID, NodeName: st.Pod.Spec.NodeName}
	root, uid, created := containers.RootName(st.Pod), st.Migration.UID, st.Migration.CreationTimestamp.Time
	// Written down before anything is made, so that what was made is found even
	// when the original is gone. A replacement without a UID does not exist yet.
	st.status().Replacement = &v1alpha1.PodReference{Name: containers.ReplacementName(root, uid, created)}
	verdicts := containers.Judge(st.Pod, containers.PolicyOf(st.Migration))
	mode, stay := plannedMode(st.State, verdicts)
	order, why := chooseOrder(st.State, verdicts, mode == v1alpha1.CheckpointProcess)
	st.status().Handover = &v1alpha1.Handover{
		Method: owners.Method(st.Owner, order), Order: order, Reason: why, Owner: st.Owner.Reference, Identity: owners.Identity(st.Pod, st.Owner),
	}
	if owners.KindOf(st.Owner.Reference) == owners.KindStatefulSet {
		st.status().Replacement.Name = st.Pod.Name
	}
	if order == v1alpha1.OrderStopFirst {
		st.status().Placeholder = &v1alpha1.PodReference{Name: containers.PlaceholderName(root, uid, created)}
	}
	st.acceptCheckpoint(root, verdicts, mode, stay)
	st.status().Phase = v1alpha1.PhasePreparing
	st.status().Times.Started = st.microNow()
	st.condition(v1alpha1.ConditionAccepted, metav1.ConditionTrue, ReasonAccepted, "the pod can be moved and has a place in the budget")
	st.say("preparing to move pod %s away from node %s", st.Pod.Name, st.Pod.Spec.NodeName)
	st.event(false, st.Pod, ReasonAccepted, fmt.Sprintf("Moving pod %s away from node %s%s", st.Pod.Name, st.Pod.Spec.NodeName, because(st.Migration.Spec.Reason)))
	return st.decision
}

// acceptCheckpoint names the claim, and what is carried on it.
func (st *step) acceptCheckpoint(root string, verdicts containers.Verdicts, mode v1alpha1.CheckpointMode, stay *containers.Refusal) {
	uid, created := st.Migration.UID, st.Migration.CreationTimestamp.Time
	checkpoint := &v1alpha1.CheckpointStatus{
		Mode: mode, Attempt: 1, Volumes: containers.CarriedVolumes(st.Pod, verdicts),
	}
	if mode == v1alpha1.CheckpointProcess {
		checkpoint.Processes = containers.MovingProcesses(verdicts)
	}
	if stay != nil {
		checkpoint.FallbackReason = stay.Message
	}
	st.status().CheckpointClaim = containers.ClaimName(root, uid, created)
	if reused := st.reusedClaim(); reused != "" {
		st.status().CheckpointClaim, checkpoint.ClaimReused = reused, true
	}
	if checkpoint.Carries() {
		checkpoint.Carrier = &v1alpha1.PodReference{Name: containers.CarrierName(root, uid, created), NodeName: st.Pod.Spec.NodeName}
	}
	st.status().Checkpoint = checkpoint
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// requestRules check a request against what exists, the most telling first.
var requestRules = []func(*State) *containers.Refusal{
	podExists, podIsTheOneMeant, podIsOnSource, noOtherMigration, targetIsUsable, oneBudget, applicationHasClaim,
}

func podExists(s *State) *containers.Refusal {
	if s.Pod == nil {
		return &containers.Refusal{Reason: ReasonPodNotFound, Message: fmt.Sprintf("pod %s does not exist in namespace %s", s.Migration.Spec.PodName, s.Migration.Namespace)}
	}
	return nil
}

func podIsTheOneMeant(s *State) *containers.Refusal {
	if want := s.Migration.Spec.PodUID; want != "" && want != s.Pod.UID {
		return &containers.Refusal{Reason: ReasonPodUIDMismatch, Message: fmt.Sprintf("pod %s has UID %s, not %s: it was made anew since the request", s.Pod.Name, s.Pod.UID, want)}
	}
	return nil
}

func podIsOnSource(s *State) *containers.Refusal {
	if want := s.Migration.Spec.SourceNode; want != "" && want != s.Pod.Spec.NodeName {
		return &containers.Refusal{Reason: ReasonSourceNodeMismatch, Message: fmt.Sprintf("pod %s is on node %q, not on %s", s.Pod.Name, s.Pod.Spec.NodeName, want)}
	}
	return nil
}

// noOtherMigration lets one migration at a time have a pod: one that was
// already accepted, else the oldest. Acceptance is serial, so no two pass.
func noOtherMigration(s *State) *containers.Refusal {
	for i := range s.Others {
		other := &s.Others[i]
		if other.UID == s.Migration.UID || other.Status.Phase.IsFinished() {
			continue
		}
		if v1alpha1.OwnedBy(s.Pod.Labels, other.UID) {
			return &containers.Refusal{Reason: ReasonAlreadyMigrating, Message: fmt.Sprintf("pod %s is the replacement of PodMigration %s, which has not finished", s.Pod.Name, other.Name)}
		}
		if other.Spec.PodName == s.Migration.Spec.PodName && (isAccepted(other) || isOlder(other, s.Migration)) {
			return &containers.Refusal{Reason: ReasonAlreadyMigrating, Message: fmt.Sprintf("PodMigration %s is already moving pod %s", other.Name, s.Pod.Name)}
		}
	}
	return nil
}

// applicationHasClaim wants the claim that the application saves to: another one,
// mounted only in the replacement, would be empty.
func applicationHasClaim(s *State) *containers.Refusal {
	if s.Migration.Spec.Checkpoint.Mode != v1alpha1.CheckpointApplication || s.reusedClaim() != "" {
		return nil
	}
	return &containers.Refusal{Reason: ReasonNoApplicationClaim, Message: fmt.Sprintf(
		"spec.checkpoint.mode is Application, but pod %s has no claim to save to: give its template a claim as volume %s, mounted at %s, and name the claim in the annotation %s",
		s.Pod.Name, v1alpha1.CheckpointVolumeName, v1alpha1.CheckpointMountPath, v1alpha1.CheckpointClaimAnnotation)}
}

func isAccepted(m *v1alpha1.PodMigration) bool {
	return m.Status.Phase != "" && m.Status.Phase != v1alpha1.PhasePending
}

func isOlder(a, b *v1alpha1.PodMigration) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	return a.UID < b.UID
}

func targetIsUsable(s *State) *containers.Refusal {
	target := s.Migration.Spec.TargetNode
	switch {
	case target == "":
		return nil
	case !s.TargetNodeExists:
		return &containers.Refusal{Reason: ReasonTargetNodeNotFound, Message: fmt.Sprintf("node %s does not exist", target)}
	case target == s.Pod.Spec.NodeName:
		return &containers.Refusal{Reason: ReasonTargetIsSource, Message: fmt.Sprintf("pod %s is already on node %s", s.Pod.Name, target)}
	}
	return nil
}

// oneBudget refuses what the Eviction API would never evict
// (k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go).
func oneBudget(s *State) *containers.Refusal {
	if len(s.Budgets) < 2 {
		return nil
	}
	return &containers.Refusal{Reason: ReasonSeveralBudgets, Message: fmt.Sprintf(
		"pod %s is covered by %d PodDisruptionBudgets (%s): the Eviction API does not evict such a pod. Leave one of them", s.Pod.Name, len(s.Budgets), strings.Join(s.Budgets, ", "))}
}

// originalLost returns why the original can no longer be moved; nil while it can.
func originalLost(s *State) *containers.Refusal {
	o := s.original()
	switch {
	case o == nil:
		return &containers.Refusal{Reason: ReasonOriginalDeleted, Message: fmt.Sprintf("pod %s was deleted by somebody else", s.Migration.Spec.PodName)}
	case o.Status.Phase == corev1.PodSucceeded:
		return &containers.Refusal{Reason: ReasonOriginalFinished, Message: fmt.Sprintf("pod %s finished its work where it was", o.Name)}
	case o.DeletionTimestamp != nil:
		return &containers.Refusal{Reason: ReasonOriginalDeleted, Message: fmt.Sprintf("pod %s is being deleted by somebody else", o.Name)}
	case o.Status.Phase == corev1.PodFailed:
		return &containers.Refusal{Reason: ReasonOriginalFailed, Message: fmt.Sprintf("pod %s failed by itself: %s", o.Name, podFailure(o))}
	}
	return nil
}
