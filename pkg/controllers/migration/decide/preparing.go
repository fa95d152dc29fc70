package decide

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// preparing decides the containers, measures the original and creates the claim.
// A migration returns here when containers have changed.
func (b *builder) preparing() Decision {
	if r := refuseOriginal(b.State); r != nil {
		return b.beginRollback(r.Reason, r.Message)
	}
	if d, decided := b.timedOut(); decided {
		return d
	}
	if d, decided := b.nodeDown(); decided {
		return d
	}
	if r := b.replacement(); r != nil {
		if r.DeletionTimestamp == nil {
			return b.do(Action{Type: DeleteReplacement, Pod: r})
		}
		return b.wait(PollInterval, "waiting for replacement %s to end, to build another one", r.Name)
	}
	if p := b.placeholder(); p != nil {
		if p.DeletionTimestamp == nil {
			return b.do(Action{Type: DeletePlaceholder, Pod: p})
		}
		return b.wait(shortPoll, "waiting for placeholder %s to end, to create another one", p.Name)
	}
	if p := b.newStatus().Placeholder; p != nil {
		*p = v1alpha1.PodReference{Name: p.Name}
	}
	*b.newStatus().Replacement = v1alpha1.PodReference{Name: b.Migration.Status.Replacement.Name}
	verdicts, refusal := containers.Assess(b.Pod, containers.PolicyOf(b.Migration), b.Claims)
	if refusal != nil {
		return b.beginRollback(lateRefusal(refusal.Reason), refusal.Message)
	}
	b.newStatus().Containers = verdicts.Containers
	if d, decided := b.recheckProcesses(verdicts); decided {
		return d
	}
	if b.newStatus().Before == nil {
		return b.do(Action{Type: MeasureBefore, Pod: b.Pod})
	}
	if b.carries() {
		if d, decided := b.measureCheckpoint(); decided {
			return d
		}
	}
	if d, decided := b.createClaim(); decided {
		return d
	}
	if b.carries() {
		if d, decided := b.copyCheckpoint(); decided {
			return d
		}
	}
	b.newStatus().Phase = v1alpha1.PhasePlacing
	b.newStatus().Times.Prepared = b.microNow()
	b.condition(v1alpha1.ConditionPrepared, metav1.ConditionTrue, ReasonPrepared, stripSentence(verdicts))
	b.say("placing a replacement: %s", stripSentence(verdicts))
	b.event(false, b.Pod, ReasonPrepared, fmt.Sprintf("Prepared the move of pod %s: %s", b.Pod.Name, stripSentence(verdicts)))
	return b.decision
}

// createClaim creates the checkpoint claim, unless the pod brought one along.
func (b *builder) createClaim() (_ Decision, decided bool) {
	if c := b.Migration.Status.Checkpoint; c != nil && c.ClaimReused {
		return b.checkReusedClaim()
	}
	switch {
	case b.Claim == nil:
		return b.do(Action{Type: CreateClaim, Claim: buildClaim(b.State)}), true
	case b.claim() == nil:
		return b.beginRollback(ReasonNameTaken, fmt.Sprintf("claim %s exists and was not created by this migration", b.Claim.Name)), true
	case b.Claim.DeletionTimestamp != nil:
		return b.wait(PollInterval, "waiting for the old claim %s to be deleted", b.Claim.Name), true
	}
	return Decision{}, false
}

func (b *builder) checkReusedClaim() (_ Decision, decided bool) {
	if b.Claim == nil || b.Claim.DeletionTimestamp != nil {
		return b.beginRollback(ReasonClaimRejected, fmt.Sprintf("claim %s, which the pod brought along, no longer exists", b.Migration.Status.CheckpointClaim)), true
	}
	capacity, needed := b.Claim.Status.Capacity[corev1.ResourceStorage], claimSize(b.State)
	if b.carries() && !capacity.IsZero() && capacity.Cmp(needed) < 0 {
		return b.beginRollback(ReasonClaimTooSmall, fmt.Sprintf("claim %s, which the pod brought along, has %s, and %s are needed", b.Claim.Name, capacity.String(), needed.String())), true
	}
	return Decision{}, false
}

// defaultClaimSize is used where the API server did not fill in the default.
var defaultClaimSize = resource.MustParse("1Gi")

// buildClaim returns the checkpoint claim. It has no owner until the original
// is gone: before, the replacement may have to be rebuilt.
func buildClaim(s *State) *corev1.PersistentVolumeClaim {
	spec, root := s.Migration.Spec.Checkpoint, containers.RootName(s.Pod)
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Migration.Namespace,
			Name:      s.Migration.Status.CheckpointClaim,
			Labels: map[string]string{
				v1alpha1.AppLabel:          v1alpha1.AppLabelValue,
				v1alpha1.ComponentLabel:    v1alpha1.ComponentLabelValue,
				v1alpha1.OriginalPodLabel:  v1alpha1.LabelValue(root),
				v1alpha1.MigrationUIDLabel: string(s.Migration.UID),
			},
			Annotations: map[string]string{v1alpha1.OriginalPodLabel: root},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{spec.ClaimAccessMode()},
			StorageClassName: spec.StorageClassName,
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: claimSize(s)}},
		},
	}
}

// Space on the claim beyond what was measured: the pod continues writing, and a
// file system needs some of its own.
const (
	growthPercent = 25
	growthBytes   = 64 << 20
)

// claimSize is what was asked for, or more when the pod holds more.
func claimSize(s *State) resource.Quantity {
	size := defaultClaimSize
	if wanted := s.Migration.Spec.Checkpoint.Size; wanted != nil {
		size = *wanted
	}
	if source := s.source(); source != nil && s.carries() {
		const mebibyte = 1 << 20
		needed := source.Bytes + source.Bytes*growthPercent/100 + growthBytes
		needed = (needed + mebibyte - 1) / mebibyte * mebibyte
		if size.CmpInt64(needed) < 0 {
			size = *resource.NewQuantity(needed, resource.BinarySI)
		}
	}
	return size
}

// lateRefusal names what happened when a pod that could be moved no longer
// can: when no container is left, its work is done.
func lateRefusal(reason string) string {
	switch reason {
	case containers.RefusalNothingRemains, containers.RefusalOnlySidecars, containers.RefusalFinished:
		return ReasonOriginalFinished
	}
	return reason
}

// measureCheckpoint asks the agent of the source node how much there is to carry.
func (b *builder) measureCheckpoint() (_ Decision, decided bool) {
	updated := b.newStatus().Checkpoint
	if updated.Step == "" {
		updated.Step = v1alpha1.StepMeasure
		b.condition(v1alpha1.ConditionCopied, metav1.ConditionFalse, ReasonMeasuring, "the node agent measures the volumes")
		b.say("asking the node agent of %s how much is to be carried", b.Migration.Status.Original.NodeName)
		return b.decision, true
	}
	if d, decided := b.sourceFailed(); decided {
		return d, true
	}
	if b.source() == nil {
		return b.awaitAgent(b.Migration.Status.Original.NodeName, b.since(v1alpha1.ConditionCopied)), true
	}
	return Decision{}, false
}

// copyCheckpoint creates the carrier and waits for a complete copy, while the pod runs.
func (b *builder) copyCheckpoint() (_ Decision, decided bool) {
	updated := b.newStatus().Checkpoint
	if b.isTrue(v1alpha1.ConditionCopied) {
		return Decision{}, false
	}
	carrier := b.carrier()
	switch {
	case carrier == nil && b.Carrier != nil:
		return b.beginRollback(ReasonNameTaken, fmt.Sprintf("pod %s exists and was not created by this migration", b.Carrier.Name)), true
	case carrier == nil && updated.Carrier.UID != "":
		return b.beginRollback(ReasonCheckpointFailed, fmt.Sprintf("carrier %s was deleted by another client", updated.Carrier.Name)), true
	case carrier == nil:
		return b.do(Action{Type: CreateCarrier, Pod: containers.BuildCarrier(b.Pod, updated.Carrier.Name, b.Migration.Status.CheckpointClaim, b.Migration.UID, b.AgentImage)}), true
	case updated.Carrier.UID != carrier.UID || updated.Step == v1alpha1.StepMeasure:
		updated.Carrier.UID, updated.Step = carrier.UID, v1alpha1.StepCopy
		b.condition(v1alpha1.ConditionCopied, metav1.ConditionFalse, ReasonCopying, "the node agent copies the volumes while the pod runs")
		b.say("copying %d bytes while the pod runs", updated.Source.Bytes)
		return b.decision, true
	}
	if d, decided := b.sourceFailed(); decided {
		return d, true
	}
	if s := b.source(); s != nil && s.Phase == v1alpha1.SourceCopied {
		b.newStatus().Times.Copied = b.microNow()
		b.condition(v1alpha1.ConditionCopied, metav1.ConditionTrue, ReasonCopied, fmt.Sprintf("%d bytes in %d files, %d passes", s.Bytes, s.Files, s.Pass))
		return Decision{}, false
	}
	return b.awaitCopy(carrier), true
}

func (b *builder) awaitCopy(carrier *corev1.Pod) Decision {
	if carrier.Status.Phase != corev1.PodRunning {
		if scheduled := pods.Condition(carrier, corev1.PodScheduled); scheduled != nil && scheduled.Status == corev1.ConditionFalse {
			return b.wait(b.untilDeadline(), "the carrier cannot be placed on node %s: %s", b.Migration.Status.Original.NodeName, scheduled.Message)
		}
		return b.wait(b.untilDeadline(), "waiting for carrier %s to mount claim %s: %s", carrier.Name, b.Migration.Status.CheckpointClaim, startProgress(carrier))
	}
	s := b.source()
	return b.wait(b.untilDeadline(), "copying while the pod runs: pass %d, %d bytes in %d files", s.Pass, s.Bytes, s.Files)
}

// recheckProcesses looks again at a pod whose processes are to move: before the
// first attempt, and before another one.
func (b *builder) recheckProcesses(v containers.Verdicts) (_ Decision, decided bool) {
	updated := b.newStatus().Checkpoint
	if updated == nil || updated.Mode != v1alpha1.CheckpointProcess {
		return Decision{}, false
	}
	if r := containers.RefuseProcesses(b.Pod, v); r != nil {
		return b.processesNotMovable(r.Reason, r.Message), true
	}
	updated.Processes = containers.MovingProcesses(v)
	return Decision{}, false
}

// processesNotMovable ends the attempt to move processes. The original is thawed, and
// the migration continues with the volumes alone where it may.
func (b *builder) processesNotMovable(reason, why string) Decision {
	message := "the processes of the pod cannot move: " + why
	if b.Migration.Spec.Checkpoint.Fallback != v1alpha1.FallbackFreshStart {
		return b.beginRollback(reason, message)
	}
	b.restartPreparation(reason, message+"; its containers start afresh with its volumes")
	if updated := b.newStatus().Checkpoint; b.newStatus().Phase == v1alpha1.PhasePreparing {
		updated.Mode, updated.Processes, updated.FallbackReason = v1alpha1.CheckpointFrozen, nil, why
	}
	return b.decision
}

// restartPreparation goes back to Preparing: the original has changed, so that the
// replacement would do finished work again or leave out work that has begun, or
// its processes turned out to be immovable.
func (b *builder) restartPreparation(reason, message string) Decision {
	if owners.NeedsWebhook(b.method()) && b.Migration.Status.Replacement.UID != "" {
		// Its owner would create another pod at once, before it is known what of.
		return b.beginRollback(reason, message+", which is not possible with a pod that its owner created")
	}
	b.newStatus().Phase = v1alpha1.PhasePreparing
	times := &b.newStatus().Times
	times.Prepared, times.Copied, times.Placed, times.HandingOver, times.ReplacementReady = nil, nil, nil, nil, nil
	if b.carries() {
		// Reports about the attempt before are void; the agent of the source thaws.
		updated := b.newStatus().Checkpoint
		updated.Attempt, updated.Step, updated.Source, updated.Destination = updated.Attempt+1, "", nil, nil
	}
	for _, kind := range []string{v1alpha1.ConditionPrepared, v1alpha1.ConditionCopied, v1alpha1.ConditionPlaced, v1alpha1.ConditionReplacementReady} {
		b.condition(kind, metav1.ConditionFalse, reason, message)
	}
	if b.conditionReason(v1alpha1.ConditionSealed) != "" {
		// Not false: how long the next last copy takes is counted from then.
		b.condition(v1alpha1.ConditionSealed, metav1.ConditionUnknown, reason, message)
	}
	b.event(false, b.original(), reason, "Restarting the preparation: "+message)
	b.say("%s", message)
	return b.decision
}
