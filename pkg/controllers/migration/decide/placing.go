package decide

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// placing creates the replacement and watches it until it is ready.
func (b *builder) placing() Decision {
	if !b.IsCommitted() {
		if d, decided := b.beforeHandover(); decided {
			return d
		}
	}
	if b.stopsFirst() && !b.IsCommitted() {
		if d, decided := b.holdPlace(); decided {
			return d
		}
	}
	r := b.replacement()
	if recorded := b.Migration.Status.Replacement; recorded.UID == "" {
		switch {
		case b.method() == v1alpha1.MethodRecreate:
			return b.beginStop()
		case b.method() == v1alpha1.MethodRelease && !b.IsCommitted():
			return b.releaseOriginal(r)
		}
		return b.createReplacement(r)
	} else if d, decided := b.replacementFailed(r); decided {
		return d
	}
	if b.stopsFirst() {
		return b.beginStop()
	}
	if r.Spec.NodeName == "" {
		return b.unplaced(r)
	}
	if wrong := wrongNode(b.Migration, r); wrong != nil && !b.IsCommitted() {
		return b.beginRollback(wrong.Reason, wrong.Message)
	}
	if !b.isTrue(v1alpha1.ConditionPlaced) {
		b.markPlaced(r)
	}
	if d, decided := b.cannotStart(r); decided {
		return d
	}
	if b.carries() {
		if !b.isWarm() {
			return b.awaitWarm(r)
		}
		if d, decided := b.imagesDiffer(r); decided {
			return d
		}
		b.beginHandover()
		b.say("the first copy is restored on node %s, handing over", r.Spec.NodeName)
		return b.decision
	}
	if !isReady(r) {
		return b.wait(b.untilDeadline(), "waiting for replacement %s on node %s: %s", r.Name, r.Spec.NodeName, startProgress(r))
	}
	b.beginHandover()
	b.markReplacementReady(r)
	return b.decision
}

func (b *builder) beginHandover() {
	b.newStatus().Phase = v1alpha1.PhaseHandingOver
	b.newStatus().Times.HandingOver = b.microNow()
}

// beginStop begins the handover of a migration whose original has to stop.
func (b *builder) beginStop() Decision {
	b.beginHandover()
	b.say("the place on node %s is held, handing over", b.newStatus().Placeholder.NodeName)
	return b.decision
}

func (b *builder) createReplacement(existing *corev1.Pod) Decision {
	switch {
	case existing != nil:
		return b.markCreated(existing)
	case b.Replacement != nil:
		return b.beginRollback(ReasonNameTaken, fmt.Sprintf("pod %s exists and was not created by this migration", b.Replacement.Name))
	case b.IsCommitted():
		// Another client evicted the original, and the replacement was deleted before
		// it was recorded.
		return b.failPermanently(ReasonReplacementDeleted, "the original and its replacement were both deleted by other clients")
	}
	pod, err := containers.BuildReplacement(b.Pod, b.storedVerdicts(), b.replacementOptions())
	if err != nil {
		return b.beginRollback(ReasonReplacementRejected, err.Error())
	}
	if b.adopts() {
		if r := owners.Refuse(b.Pod, b.Owner); r != nil {
			return b.beginRollback(r.Reason, r.Message)
		}
		pod = owners.Unmatched(pod, b.Owner)
	}
	return b.do(Action{Type: CreateReplacement, Pod: pod})
}

func (b *builder) replacementOptions() containers.ReplacementOptions {
	return ReplacementOptions(b.Migration, b.AgentImage)
}

// ReplacementOptions are what the replacement of an accepted migration is bound to.
func ReplacementOptions(m *v1alpha1.PodMigration, agentImage string) containers.ReplacementOptions {
	options := containers.ReplacementOptions{
		Name: m.Status.Replacement.Name, MigrationUID: m.UID, ClaimName: m.Status.CheckpointClaim,
		TargetNode: m.Spec.TargetNode, PlannedNode: m.Spec.PlannedNode,
		WaitForOriginal: m.Status.Handover != nil && m.Status.Handover.Order == v1alpha1.OrderStopFirst,
	}
	if m.Status.Checkpoint.Carries() {
		options.GateImage = agentImage
	}
	return options
}

func (b *builder) markCreated(r *corev1.Pod) Decision {
	b.newStatus().Replacement = &v1alpha1.PodReference{Name: r.Name, UID: r.UID, NodeName: r.Spec.NodeName}
	b.condition(v1alpha1.ConditionPlaced, metav1.ConditionFalse, ReasonCreated, "waiting for the scheduler")
	b.say("waiting for scheduler %s to place replacement %s", r.Spec.SchedulerName, r.Name)
	b.event(false, b.original(), ReasonCreated, fmt.Sprintf("Created replacement %s; pod %s keeps running until it is ready", r.Name, b.Migration.Spec.PodName))
	return b.decision
}

func (b *builder) markPlaced(r *corev1.Pod) {
	b.newStatus().Replacement.NodeName = r.Spec.NodeName
	b.newStatus().Times.Placed = b.microNow()
	b.condition(v1alpha1.ConditionPlaced, metav1.ConditionTrue, ReasonPlaced, "bound to node "+r.Spec.NodeName)
	b.event(false, b.original(), ReasonPlaced, fmt.Sprintf("Replacement %s was placed on node %s", r.Name, r.Spec.NodeName))
}

// markReplacementReady records that the replacement is ready.
func (b *builder) markReplacementReady(r *corev1.Pod) {
	b.newStatus().Times.ReplacementReady = b.microNow()
	b.newStatus().Downtime = b.downtime()
	b.markRestored()
	b.condition(v1alpha1.ConditionReplacementReady, metav1.ConditionTrue, ReasonReady, "the replacement is ready on node "+r.Spec.NodeName)
	b.say("replacement %s is ready on node %s, handing over", r.Name, r.Spec.NodeName)
	note := fmt.Sprintf("Replacement %s is ready on node %s", r.Name, r.Spec.NodeName)
	if o := b.original(); o != nil && o.DeletionTimestamp == nil {
		note += "; evicting the original"
	}
	b.event(false, r, ReasonReady, note)
}

// cannotStart rolls back when a container of the replacement cannot be started,
// for a reason that seldom passes.
func (b *builder) cannotStart(r *corev1.Pod) (_ Decision, decided bool) {
	reason := startFailure(r)
	scheduled := pods.Condition(r, corev1.PodScheduled)
	if reason == "" || b.IsCommitted() || scheduled == nil || b.Now.Sub(scheduled.LastTransitionTime.Time) < b.Limits.StartGrace {
		return Decision{}, false
	}
	return b.beginRollback(ReasonCannotStart, fmt.Sprintf("replacement %s cannot start on node %s: %s", r.Name, r.Spec.NodeName, reason)), true
}

// unplaced waits for the scheduler, and rolls back when it has found no place
// for longer than the grace. While a node is nominated, pods are being preempted;
// and provisioning the volume of a claim can take longer than the grace.
func (b *builder) unplaced(r *corev1.Pod) Decision {
	scheduled := pods.Condition(r, corev1.PodScheduled)
	if scheduled == nil || scheduled.Status != corev1.ConditionFalse {
		return b.wait(b.untilDeadline(), "waiting for scheduler %s to place replacement %s", r.Spec.SchedulerName, r.Name)
	}
	b.condition(v1alpha1.ConditionPlaced, metav1.ConditionFalse, cmp.Or(scheduled.Reason, ReasonUnschedulable), scheduled.Message)
	if scheduled.Reason != corev1.PodReasonUnschedulable || r.Status.NominatedNodeName != "" ||
		b.IsCommitted() || b.volumeIsComing(scheduled.Message) {
		return b.wait(b.untilDeadline(), "the scheduler has not placed replacement %s yet: %s", r.Name, scheduled.Message)
	}
	why := scheduled.Message
	if b.Migration.CheckpointMode() == v1alpha1.CheckpointProcess {
		why += fmt.Sprintf(" (its processes can only be restored on nodes with the label %s=true, by their node agents)", v1alpha1.ProcessNodeLabel)
	}
	givesUpAt := scheduled.LastTransitionTime.Add(b.Limits.UnschedulableGrace)
	if b.Now.Before(givesUpAt) {
		return b.wait(min(givesUpAt.Sub(b.Now), b.untilDeadline()), "the scheduler finds no place for replacement %s: %s", r.Name, why)
	}
	return b.beginRollback(ReasonUnschedulable, "the scheduler found no place for the replacement: "+why)
}

// unboundClaim is how plugin VolumeBinding says that a claim of binding mode
// Immediate has no volume yet (k8s.io/kubernetes/pkg/scheduler/framework/plugins/volumebinding).
const unboundClaim = "unbound immediate PersistentVolumeClaims"

// volumeIsComing reports whether the scheduler waits for the checkpoint claim,
// and the claim has a class that provisions its volume.
func (b *builder) volumeIsComing(refusal string) bool {
	c := b.claim()
	return strings.Contains(refusal, unboundClaim) && c != nil && ptr.Deref(c.Spec.StorageClassName, "") != ""
}

func wrongNode(m *v1alpha1.PodMigration, r *corev1.Pod) *containers.Refusal {
	node := r.Spec.NodeName
	if node == m.Status.Original.NodeName {
		return &containers.Refusal{Reason: ReasonLandedOnSource, Message: fmt.Sprintf("replacement %s was placed on %s, the node that it should leave", r.Name, node)}
	}
	if m.Spec.TargetNode != "" && node != m.Spec.TargetNode {
		return &containers.Refusal{Reason: ReasonLandedElsewhere, Message: fmt.Sprintf("replacement %s was placed on %s, not on %s", r.Name, node, m.Spec.TargetNode)}
	}
	return nil
}

// holdPlace creates the placeholder of a migration that stops first, and waits
// until it runs.
func (b *builder) holdPlace() (_ Decision, decided bool) {
	p, recorded, updated := b.placeholder(), b.Migration.Status.Placeholder, b.newStatus().Placeholder
	switch {
	case recorded.UID == "" && b.Placeholder != nil && p == nil:
		return b.beginRollback(ReasonNameTaken, fmt.Sprintf("pod %s exists and was not created by this migration", b.Placeholder.Name)), true
	case recorded.UID == "" && p == nil:
		return b.createPlaceholder()
	case p == nil || p.UID != recorded.UID && recorded.UID != "" || p.DeletionTimestamp != nil:
		return b.beginRollback(ReasonPlaceholderDeleted, fmt.Sprintf("placeholder %s was deleted by another client", recorded.Name)), true
	case recorded.UID == "":
		updated.UID = p.UID
		b.condition(v1alpha1.ConditionPlaced, metav1.ConditionFalse, ReasonPlaceholderCreated, "waiting for the scheduler to find a place")
		b.say("waiting for scheduler %s to place %s, which holds the place of the replacement", v1alpha1.SchedulerName, p.Name)
		return b.decision, true
	case p.Spec.NodeName == "":
		return b.unplaced(p), true
	}
	if wrong := wrongNode(b.Migration, p); wrong != nil {
		return b.beginRollback(wrong.Reason, wrong.Message), true
	}
	if recorded.NodeName == "" {
		updated.NodeName = p.Spec.NodeName
		b.newStatus().Times.Placed = b.microNow()
		b.condition(v1alpha1.ConditionPlaced, metav1.ConditionTrue, ReasonPlaced, fmt.Sprintf("placeholder %s holds the place on node %s", p.Name, p.Spec.NodeName))
		b.event(false, b.original(), ReasonPlaced, fmt.Sprintf("Placeholder %s holds a place on node %s", p.Name, p.Spec.NodeName))
	}
	if p.Status.Phase != corev1.PodRunning {
		if d, decided := b.cannotStart(p); decided {
			return d, true
		}
		return b.wait(b.untilDeadline(), "waiting for placeholder %s on node %s: %s", p.Name, p.Spec.NodeName, startProgress(p)), true
	}
	return Decision{}, false
}

func (b *builder) createPlaceholder() (_ Decision, decided bool) {
	replacement, err := containers.BuildReplacement(b.Pod, b.storedVerdicts(), b.replacementOptions())
	if err != nil {
		return b.beginRollback(ReasonReplacementRejected, err.Error()), true
	}
	var volumes []*corev1.PersistentVolume
	for _, v := range replacement.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		if _, volume := b.Claims(v.PersistentVolumeClaim.ClaimName); volume != nil {
			volumes = append(volumes, volume)
		}
	}
	placeholder := containers.BuildPlaceholder(replacement, b.newStatus().Placeholder.Name, cmp.Or(b.AgentImage, containers.PauseImage), requestsWithoutOverhead(replacement), volumes)
	return b.do(Action{Type: CreatePlaceholder, Pod: placeholder}), true
}
