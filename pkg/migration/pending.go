package migration

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/containers"
)

// pending checks the request, then asks for a place in the budget.
func (st *step) pending() Decision {
	for _, rule := range requestRules {
		if r := rule(st.State); r != nil {
			return st.reject(r)
		}
	}
	verdicts, refusal := containers.Assess(st.Pod, st.Migration.Spec.Waiting, st.Claims)
	st.status().Containers = verdicts.Containers
	if refusal != nil {
		return st.reject(refusal)
	}
	st.status().Phase = v1alpha1.PhasePending
	return st.do(Action{Type: AskBudget, Pod: st.Pod})
}

// reject ends a migration that has changed nothing.
func (st *step) reject(r *containers.Refusal) Decision {
	st.condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, r.Reason, r.Message)
	st.event(true, st.Pod, r.Reason, fmt.Sprintf("Not migrating pod %s: %s", st.Migration.Spec.PodName, r.Message))
	return st.finish(v1alpha1.PhaseFailed, r.Message)
}

// accept records the original once the budget has a place for it.
func (st *step) accept() Decision {
	st.status().Original = &v1alpha1.PodReference{Name: st.Pod.Name, UID: st.Pod.UID, NodeName: st.Pod.Spec.NodeName}
	root, uid, created := containers.RootName(st.Pod), st.Migration.UID, st.Migration.CreationTimestamp.Time
	// Written down before anything is made, so that what was made is found even
	// when the original is gone. A replacement without a UID does not exist yet.
	st.status().Replacement = &v1alpha1.PodReference{Name: containers.ReplacementName(root, uid, created)}
	st.status().CheckpointClaim = containers.ClaimName(root, uid, created)
	st.status().Phase = v1alpha1.PhasePreparing
	st.status().Times.Started = st.microNow()
	st.condition(v1alpha1.ConditionAccepted, metav1.ConditionTrue, ReasonAccepted, "the pod can be moved and has a place in the budget")
	st.say("preparing to move pod %s away from node %s", st.Pod.Name, st.Pod.Spec.NodeName)
	st.event(false, st.Pod, ReasonAccepted, fmt.Sprintf("Moving pod %s away from node %s%s", st.Pod.Name, st.Pod.Spec.NodeName, because(st.Migration.Spec.Reason)))
	return st.decision
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// requestRules check a request against what exists, the most telling first.
var requestRules = []func(*State) *containers.Refusal{
	podExists, podIsTheOneMeant, podIsOnSource, noOtherMigration, targetIsUsable,
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
