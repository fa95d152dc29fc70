package decide

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// pending are the steps until a migration is accepted.
var pending = []step{
	{name: CheckRequest, done: func(s *State) bool { return refuseRequest(s) == nil }, action: func(b *builder) Decision {
		if b.Pod != nil {
			b.newStatus().Containers = containers.Judge(b.Pod, containers.PolicyOf(b.Migration)).Containers
		}
		return reject(b, refuseRequest(b.State))
	}, record: func(b *builder) {
		b.newStatus().Containers = containers.Judge(b.Pod, containers.PolicyOf(b.Migration)).Containers
		b.newStatus().Phase = v1alpha1.PhasePending
	}},
	{name: AwaitOwner, done: func(s *State) bool { return owners.InFlight(s.Owner) == "" }, action: func(b *builder) Decision {
		return waitForOwner(b, owners.InFlight(b.Owner))
	}},
	{name: AskBudget, action: func(b *builder) Decision { return b.do(TakePlace{b.Pod}) }, settle: budgetAnswered},
}

func refusal(reason, format string, arguments ...any) *containers.Refusal {
	return &containers.Refusal{Reason: reason, Message: fmt.Sprintf(format, arguments...)}
}

// firstRefusal is that of the first rule that has one; nil where none has.
func firstRefusal(s *State, rules []func(*State) *containers.Refusal) *containers.Refusal {
	for _, rule := range rules {
		if r := rule(s); r != nil {
			return r
		}
	}
	return nil
}

// refuseRequest returns why the pod cannot be moved as requested; nil when it can.
func refuseRequest(s *State) *containers.Refusal {
	if r := firstRefusal(s, requestRules); r != nil {
		return r
	}
	verdicts, r := containers.Assess(s.Pod, containers.PolicyOf(s.Migration), s.Claims, s.Nodes)
	if r != nil {
		return r
	}
	for _, r := range []*containers.Refusal{
		containers.SharedClaim(s.Pod, s.Neighbours, s.Claims),
		containers.RefuseUnknownVolumes(s.Stored, s.Pod, verdicts),
		owners.Refuse(s.Pod, s.Owner),
	} {
		if r != nil {
			return r
		}
	}
	if s.Migration.CheckpointMode().CarriesVolumes() {
		if r := containers.RefuseSandbox(s.Pod, verdicts, s.Handler); r != nil {
			return r
		}
		if r := freezePossible(s, verdicts); r != nil {
			return r
		}
	}
	for _, rule := range []func(*State, containers.Verdicts) *containers.Refusal{checkpointPossible, pullSecretsExist, classExists} {
		if r := rule(s, verdicts); r != nil {
			return r
		}
	}
	if _, r := plannedMode(s, verdicts); r != nil && s.Migration.Spec.Checkpoint.Fallback != v1alpha1.FallbackFreshStart {
		return r
	}
	return nil
}

// budgetAnswered accepts the migration once the budget has a place for it.
func budgetAnswered(b *builder, r Result) (Decision, error) {
	if r.Err != nil {
		return b.decision, r.Err
	}
	if r.Admitted {
		return accept(b), nil
	}
	b.condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, ReasonWaitingForBudget, r.Reason)
	return b.wait(PollInterval, "waiting for a place in the budget: %s", r.Reason), nil
}

// reject ends a migration that has changed nothing.
func reject(b *builder, r *containers.Refusal) Decision {
	b.condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, r.Reason, r.Message)
	b.event(true, b.Pod, r.Reason, fmt.Sprintf("Not migrating pod %s: %s", b.Migration.Spec.PodName, r.Message))
	return b.finish(v1alpha1.PhaseFailed, r.Message)
}

// waitForOwner waits until a rollout or a scaling is over, as long as the
// migration may take since it first had to wait.
func waitForOwner(b *builder, reason string) Decision {
	if b.since(v1alpha1.ConditionAccepted) > time.Duration(b.Migration.Spec.TimeoutSeconds)*time.Second {
		return reject(b, &containers.Refusal{Reason: ReasonTimedOut, Message: fmt.Sprintf("not begun within %d s: %s", b.Migration.Spec.TimeoutSeconds, reason)})
	}
	b.condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, ReasonWaitingForOwner, reason)
	return b.wait(PollInterval, "waiting: %s", reason)
}

// accept records the original once the budget has a place for it.
func accept(b *builder) Decision {
	b.newStatus().Original = &v1alpha1.PodReference{Name: b.Pod.Name, UID: b.Pod.UID, NodeName: b.Pod.Spec.NodeName}
	root, uid, created := containers.RootName(b.Pod), b.Migration.UID, b.Migration.CreationTimestamp.Time
	// Written down before anything is created, so that it is found even
	// when the original is gone. A replacement without a UID does not exist yet.
	b.newStatus().Replacement = &v1alpha1.PodReference{Name: containers.ReplacementName(root, uid, created)}
	verdicts := containers.Judge(b.Pod, containers.PolicyOf(b.Migration))
	mode, stay := plannedMode(b.State, verdicts)
	order, why := chooseOrder(b.State, verdicts)
	b.newStatus().Handover = &v1alpha1.Handover{
		Method: owners.Method(b.Owner, order), Order: order, Reason: why, Owner: b.Owner.Reference, Identity: owners.Identity(b.Pod, b.Owner),
	}
	if owners.KindOf(b.Owner.Reference) == owners.KindStatefulSet {
		b.newStatus().Replacement.Name = b.Pod.Name
	}
	if order == v1alpha1.OrderStopFirst {
		b.newStatus().Placeholder = &v1alpha1.PodReference{Name: containers.PlaceholderName(root, uid, created)}
	}
	acceptCheckpoint(b, root, verdicts, mode, stay)
	b.newStatus().Phase = v1alpha1.PhasePreparing
	b.newStatus().Times.Started = b.microNow()
	b.condition(v1alpha1.ConditionAccepted, metav1.ConditionTrue, ReasonAccepted, "the pod can be moved and has a place in the budget")
	b.say("preparing to move pod %s away from node %s", b.Pod.Name, b.Pod.Spec.NodeName)
	b.event(false, b.Pod, ReasonAccepted, fmt.Sprintf("Moving pod %s away from node %s%s", b.Pod.Name, b.Pod.Spec.NodeName, because(b.Migration.Spec.Reason)))
	return b.decision
}

// acceptCheckpoint names the claim, and what is carried on it.
func acceptCheckpoint(b *builder, root string, verdicts containers.Verdicts, mode v1alpha1.CheckpointMode, stay *containers.Refusal) {
	uid, created := b.Migration.UID, b.Migration.CreationTimestamp.Time
	checkpoint := &v1alpha1.CheckpointStatus{
		Mode: mode, Attempt: 1, Volumes: containers.CarriedVolumes(b.Pod, verdicts),
	}
	if mode == v1alpha1.CheckpointProcess {
		checkpoint.Processes = containers.MovingProcesses(verdicts)
	}
	if stay != nil {
		checkpoint.FallbackReason = stay.Message
	}
	reused, own := b.previousClaims()
	checkpoint.ClaimReused, checkpoint.PreviousClaim = reused != "", own
	b.newStatus().CheckpointClaim = reused
	if makesClaim(b.State, b.newStatus().Handover.Order, checkpoint.Carries()) {
		b.newStatus().CheckpointClaim = containers.ClaimName(root, uid, created)
	}
	b.newStatus().Checkpoint = checkpoint
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// requestRules check a request against what exists, the most telling first.
var requestRules = []func(*State) *containers.Refusal{
	podExists, podIsTheOneMeant, podIsOnSource, noOtherMigration, targetExists, targetIsAnother, oneBudget, applicationHasClaim, claimIsOurs,
}

func podExists(s *State) *containers.Refusal {
	if s.Pod == nil {
		return refusal(ReasonPodNotFound, "pod %s does not exist in namespace %s", s.Migration.Spec.PodName, s.Migration.Namespace)
	}
	return nil
}

func podIsTheOneMeant(s *State) *containers.Refusal {
	if want := s.Migration.Spec.PodUID; want != "" && want != s.Pod.UID {
		return refusal(ReasonPodUIDMismatch, "pod %s has UID %s, not %s: it was recreated since the request", s.Pod.Name, s.Pod.UID, want)
	}
	return nil
}

func podIsOnSource(s *State) *containers.Refusal {
	if want := s.Migration.Spec.SourceNode; want != "" && want != s.Pod.Spec.NodeName {
		return refusal(ReasonSourceNodeMismatch, "pod %s is on node %q, not on %s", s.Pod.Name, s.Pod.Spec.NodeName, want)
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
			return refusal(ReasonAlreadyMigrating, "pod %s is the replacement of PodMigration %s, which has not finished", s.Pod.Name, other.Name)
		}
		if other.Spec.PodName == s.Migration.Spec.PodName && (isAccepted(other) || isOlder(other, s.Migration)) {
			return refusal(ReasonAlreadyMigrating, "PodMigration %s is already moving pod %s", other.Name, s.Pod.Name)
		}
	}
	return nil
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

func targetExists(s *State) *containers.Refusal {
	if target := s.Migration.Spec.TargetNode; target != "" && !s.TargetNodeExists {
		return refusal(ReasonTargetNodeNotFound, "node %s does not exist", target)
	}
	return nil
}

func targetIsAnother(s *State) *containers.Refusal {
	if target := s.Migration.Spec.TargetNode; target != "" && target == s.Pod.Spec.NodeName {
		return refusal(ReasonTargetIsSource, "pod %s is already on node %s", s.Pod.Name, target)
	}
	return nil
}

// oneBudget refuses what the Eviction API would never evict
// (k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go).
func oneBudget(s *State) *containers.Refusal {
	if len(s.Budgets) < 2 {
		return nil
	}
	return refusal(ReasonSeveralBudgets,
		"pod %s is covered by %d PodDisruptionBudgets (%s): the Eviction API does not evict such a pod. Leave one of them", s.Pod.Name, len(s.Budgets), strings.Join(s.Budgets, ", "))
}

// applicationHasClaim wants the claim that the application saves to: another one,
// mounted only in the replacement, would be empty.
func applicationHasClaim(s *State) *containers.Refusal {
	if reused, _ := s.previousClaims(); s.Migration.Spec.Checkpoint.Mode != v1alpha1.CheckpointApplication || reused != "" {
		return nil
	}
	return &containers.Refusal{Reason: ReasonNoApplicationClaim, Message: fmt.Sprintf(
		"spec.checkpoint.mode is Application, but pod %s has no claim to save to: give its template a claim as volume %s, mounted at %s, and name the claim in the annotation %s",
		s.Pod.Name, v1alpha1.CheckpointVolumeName, v1alpha1.CheckpointMountPath, v1alpha1.CheckpointClaimAnnotation)}
}

// claimIsOurs refuses to carry the state of a pod whose checkpoint volume is a claim of a
// user: it would be written into, and no other volume can have that name.
func claimIsOurs(s *State) *containers.Refusal {
	previous := containers.PreviousCheckpoint(s.Pod)
	if previous == "" || !s.Migration.CheckpointMode().CarriesVolumes() || containers.MayLose(s.Pod, v1alpha1.CheckpointVolumeName) {
		return nil
	}
	if claim, _ := s.Claims(previous); claim == nil || claim.Labels[v1alpha1.ComponentLabel] == v1alpha1.ComponentLabelValue {
		return nil
	}
	return &containers.Refusal{Reason: ReasonClaimOfUser, Message: fmt.Sprintf(
		"volume %s of pod %s is claim %s, which no migration made: no state is written into it. Use spec.checkpoint.mode Application, to which it belongs, or None",
		v1alpha1.CheckpointVolumeName, s.Pod.Name, previous)}
}

// freezePossible refuses to freeze a pod whose probes would end one of its containers at
// once.
func freezePossible(s *State, v containers.Verdicts) *containers.Refusal {
	if s.Migration.CheckpointMode() == v1alpha1.CheckpointLive || len(containers.CarriedVolumes(s.Pod, v)) == 0 {
		return nil
	}
	bound, container := containers.FreezeBound(s.Pod)
	if container == "" || bound > 0 {
		return nil
	}
	return refusal(ReasonProbeEndsFrozen,
		"the pod has to be frozen for a moment, and the kubelet would end container %s for it: its startup probe has not succeeded yet, or its liveness probe has failureThreshold 1. Wait, raise the threshold, or use spec.checkpoint.mode Live", container)
}
