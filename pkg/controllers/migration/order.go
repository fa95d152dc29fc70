package migration

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
	return v1alpha1.OrderStartFirst, "nothing keeps the replacement from working beside the original"
}

// sharesCheckpoint reports whether two nodes can use the checkpoint claim at once.
func (s *State) sharesCheckpoint() bool {
	if reused := s.reusedClaim(); reused != "" {
		claim, _ := s.Claims(reused)
		return slices.Contains(containers.AccessModes(claim), corev1.ReadWriteMany)
	}
	return s.Migration.Spec.Checkpoint.ClaimAccessMode() == corev1.ReadWriteMany
}

// stopsFirst reports whether the original ends before the replacement starts.
func (s *State) stopsFirst() bool {
	h := s.Migration.Status.Handover
	return h != nil && h.Order == v1alpha1.OrderStopFirst
}

func (s *State) method() v1alpha1.ReplacementMethod {
	if h := s.Migration.Status.Handover; h != nil {
		return h.Method
	}
	return v1alpha1.MethodCreate
}

// holdPlace makes the placeholder of a migration that stops first, and waits
// until it runs. It reports whether the decision is made.
func (st *step) holdPlace() (Decision, bool) {
	p, known := st.placeholder(), st.status().Placeholder
	switch {
	case known.UID == "" && st.Placeholder != nil && p == nil:
		return st.giveUp(ReasonNameTaken, fmt.Sprintf("pod %s exists and belongs to somebody else", st.Placeholder.Name)), true
	case known.UID == "" && p == nil:
		return st.createPlaceholder()
	case p == nil || p.UID != known.UID && known.UID != "" || p.DeletionTimestamp != nil:
		return st.giveUp(ReasonPlaceholderGone, fmt.Sprintf("placeholder %s was removed by somebody else", known.Name)), true
	case known.UID == "":
		known.UID = p.UID
		st.condition(v1alpha1.ConditionPlaced, "False", ReasonPlaceholderCreated, "waiting for the scheduler to find a place")
		st.say("waiting for scheduler %s to place %s, which holds the place of the replacement", v1alpha1.SchedulerName, p.Name)
		return st.decision, true
	case p.Spec.NodeName == "":
		return st.unplaced(p), true
	}
	if wrong := wrongNode(st.Migration, p); wrong != nil {
		return st.giveUp(wrong.Reason, wrong.Message), true
	}
	if known.NodeName == "" {
		known.NodeName = p.Spec.NodeName
		st.status().Times.Placed = st.microNow()
		st.condition(v1alpha1.ConditionPlaced, "True", ReasonPlaced, fmt.Sprintf("placeholder %s holds the place on node %s", p.Name, p.Spec.NodeName))
		st.event(false, st.original(), ReasonPlaced, fmt.Sprintf("Placeholder %s holds a place on node %s", p.Name, p.Spec.NodeName))
	}
	if p.Status.Phase != corev1.PodRunning {
		if d, stuck := st.cannotStart(p); stuck {
			return d, true
		}
		return st.wait(st.untilDeadline(), "waiting for placeholder %s on node %s: %s", p.Name, p.Spec.NodeName, startProgress(p)), true
	}
	return Decision{}, false
}

func (st *step) createPlaceholder() (Decision, bool) {
	replacement, err := containers.BuildReplacement(st.Pod, st.storedVerdicts(), st.replacementOptions())
	if err != nil {
		return st.giveUp(ReasonReplacementRejected, err.Error()), true
	}
	var volumes []*corev1.PersistentVolume
	for _, v := range replacement.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		if _, volume := st.Claims(v.PersistentVolumeClaim.ClaimName); volume != nil {
			volumes = append(volumes, volume)
		}
	}
	placeholder := containers.BuildPlaceholder(replacement, st.status().Placeholder.Name, cmp.Or(st.AgentImage, containers.PauseImage), requestsWithoutOverhead(replacement), volumes)
	return st.do(Action{Type: CreatePlaceholder, Pod: placeholder}), true
}
