package decide

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// preparing are the steps that decide the containers, measure the original and its state,
// and make the claim. A migration returns here when containers have changed.
var preparing = []step{
	{name: RemoveLeftovers, done: func(s *State) bool { return s.replacement() == nil && s.placeholder() == nil }, action: removeLeftovers},
	{name: JudgeContainers, done: func(s *State) bool { return refuseContainers(s) == nil }, record: recordContainers, action: func(b *builder) Decision {
		r := refuseContainers(b.State)
		return beginRollback(b, lateRefusal(r.Reason), r.Message)
	}},
	{name: CheckProcesses, applies: movesProcesses, done: func(s *State) bool { return refuseMemory(s) == nil }, record: recordProcesses, action: func(b *builder) Decision {
		r := refuseMemory(b.State)
		return processesNotMovable(b, r.Reason, r.Message)
	}},
	{name: MeasureBefore, done: func(s *State) bool { return s.Migration.Status.Before != nil }, action: func(b *builder) Decision {
		return b.do(MeasurePod{b.Pod})
	}, settle: measuredBefore},
	{name: MeasureCheckpoint, applies: (*State).carries, done: func(s *State) bool { return s.source() != nil }, action: measureCheckpoint},
	{name: CreateClaim, applies: (*State).needsClaim, done: hasClaim, action: createClaim, settle: claimCreated},
	{name: FinishPreparing, action: finishPreparing},
}

// removeLeftovers removes what was made for containers that have changed since, and is
// recorded. What is not was made by a newer controller: this one is believed dead.
func removeLeftovers(b *builder) Decision {
	for _, made := range []struct {
		what     string
		pod      *corev1.Pod
		recorded *v1alpha1.PodReference
	}{{"replacement", b.replacement(), b.Migration.Status.Replacement}, {"placeholder", b.placeholder(), b.Migration.Status.Placeholder}} {
		switch {
		case made.pod == nil:
			continue
		case made.recorded == nil || made.recorded.UID != made.pod.UID:
			return b.wait(shortPoll, "%s %s was created since this was decided: looking again", made.what, made.pod.Name)
		case made.pod.DeletionTimestamp == nil:
			return b.do(DeleteObject{made.pod})
		}
		return b.wait(shortPoll, "waiting for %s %s to end, to create another one", made.what, made.pod.Name)
	}
	return b.decision
}

func refuseContainers(s *State) *containers.Refusal {
	_, r := containers.Assess(s.Pod, containers.PolicyOf(s.Migration), s.Claims, s.Nodes)
	return r
}

func recordContainers(b *builder) {
	if p := b.newStatus().Placeholder; p != nil {
		*p = v1alpha1.PodReference{Name: p.Name}
	}
	*b.newStatus().Replacement = v1alpha1.PodReference{Name: b.Migration.Status.Replacement.Name}
	b.newStatus().Containers = containers.Judge(b.Pod, containers.PolicyOf(b.Migration)).Containers
}

func movesProcesses(s *State) bool { return s.Migration.CheckpointMode() == v1alpha1.CheckpointProcess }

// refuseMemory returns why the memory of the processes cannot be carried any more.
func refuseMemory(s *State) *containers.Refusal {
	return containers.RefuseProcesses(s.Pod, containers.Judge(s.Pod, containers.PolicyOf(s.Migration)))
}

func recordProcesses(b *builder) {
	b.newStatus().Checkpoint.Processes = containers.MovingProcesses(containers.Judge(b.Pod, containers.PolicyOf(b.Migration)))
}

// measuredBefore takes the sample only if it is of this pod: metrics go by
// name, and an earlier pod may have had it.
func measuredBefore(b *builder, r Result) (Decision, error) {
	sample := r.Sample
	if start := b.Pod.Status.StartTime; start != nil && !sample.startedAfter(start.Time) {
		sample = nil
	}
	b.newStatus().Before = record(originalRequests(b.Pod), sample)
	return b.decision, nil
}

// finishPreparing begins to look for a place.
func finishPreparing(b *builder) Decision {
	sentence := stripSentence(containers.Judge(b.Pod, containers.PolicyOf(b.Migration)))
	b.newStatus().Phase = v1alpha1.PhasePlacing
	b.newStatus().Times.Prepared = b.microNow()
	b.condition(v1alpha1.ConditionPrepared, metav1.ConditionTrue, ReasonPrepared, sentence)
	b.say("placing a replacement: %s", sentence)
	b.event(false, b.Pod, ReasonPrepared, fmt.Sprintf("Prepared the move of pod %s: %s", b.Pod.Name, sentence))
	return b.decision
}

// hasClaim reports whether there is a claim that can be used.
func hasClaim(s *State) bool {
	c := s.claim()
	if s.Migration.Status.Checkpoint.ClaimReused {
		return s.Claim != nil && s.Claim.DeletionTimestamp == nil && !isTooSmall(s)
	}
	return c != nil && c.DeletionTimestamp == nil
}

// createClaim creates the checkpoint claim, unless the pod brought one along.
func createClaim(b *builder) Decision {
	switch {
	case b.Migration.Status.Checkpoint.ClaimReused:
		return refuseReusedClaim(b)
	case b.Claim == nil:
		return b.do(CreateObject{Object: buildClaim(b.State)})
	case b.claim() == nil:
		return beginRollback(b, ReasonNameTaken, fmt.Sprintf("claim %s exists and was not created by this migration", b.Claim.Name))
	}
	return b.wait(PollInterval, "waiting for the old claim %s to be deleted", b.Claim.Name)
}

func claimCreated(b *builder, r Result) (Decision, error) {
	return created(b, r, ReasonClaimRejected, "the checkpoint claim")
}

func refuseReusedClaim(b *builder) Decision {
	name := b.Migration.Status.CheckpointClaim
	if b.Claim == nil || b.Claim.DeletionTimestamp != nil {
		return beginRollback(b, ReasonClaimRejected, fmt.Sprintf("claim %s, which the pod brought along, no longer exists", name))
	}
	capacity, needed := b.Claim.Status.Capacity[corev1.ResourceStorage], claimSize(b.State)
	return beginRollback(b, ReasonClaimTooSmall, fmt.Sprintf("claim %s, which the pod brought along, has %s, and %s are needed", name, capacity.String(), needed.String()))
}

// isTooSmall reports whether a claim that the pod brought along cannot hold its state.
func isTooSmall(s *State) bool {
	capacity := s.Claim.Status.Capacity[corev1.ResourceStorage]
	return s.carries() && !capacity.IsZero() && capacity.Cmp(claimSize(s)) < 0
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
			// Until it holds something it goes with the migration.
			OwnerReferences: []metav1.OwnerReference{ownerReference(s.Migration)},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{spec.ClaimAccessMode()},
			StorageClassName: spec.StorageClassName,
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: claimSize(s)}},
		},
	}
}

// ownerReference makes an object go when the record of its migration goes.
func ownerReference(m *v1alpha1.PodMigration) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "PodMigration", Name: m.Name, UID: m.UID}
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
func measureCheckpoint(b *builder) Decision {
	updated := b.newStatus().Checkpoint
	if updated.Step == "" {
		updated.Step = v1alpha1.StepMeasure
		// Unknown, so that how long the copy waits is counted from when it was asked for.
		b.condition(v1alpha1.ConditionCopied, metav1.ConditionUnknown, ReasonMeasuring, "the node agent measures the volumes")
		b.say("asking the node agent of %s how much is to be carried", b.Migration.Status.Original.NodeName)
		return b.decision
	}
	return awaitAgent(b, b.Migration.Status.Original.NodeName, b.since(v1alpha1.ConditionCopied))
}

// processesNotMovable ends the attempt to move processes. The original is thawed, and
// the migration continues with the volumes alone where it may.
func processesNotMovable(b *builder, reason, why string) Decision {
	message := "the processes of the pod cannot move: " + why
	if b.Migration.Spec.Checkpoint.Fallback != v1alpha1.FallbackFreshStart {
		return beginRollback(b, reason, message)
	}
	restartPreparation(b, reason, message+"; its containers start afresh with its volumes")
	if updated := b.newStatus().Checkpoint; b.newStatus().Phase == v1alpha1.PhasePreparing {
		updated.Mode, updated.Processes, updated.FallbackReason = v1alpha1.CheckpointFrozen, nil, why
	}
	return b.decision
}

// restartPreparation goes back to Preparing: the original has changed, so that the
// replacement would do finished work again or leave out work that has begun, or
// its processes turned out to be immovable.
func restartPreparation(b *builder, reason, message string) Decision {
	if owners.NeedsWebhook(b.method()) && b.Migration.Status.Replacement.UID != "" {
		// Its owner would create another pod at once, before it is known what of.
		return beginRollback(b, reason, message+", which is not possible with a pod that its owner created")
	}
	b.newStatus().Phase = v1alpha1.PhasePreparing
	// Only what is recorded is removed.
	if r := b.replacement(); r != nil {
		b.newStatus().Replacement.UID = r.UID
	}
	if p := b.placeholder(); p != nil {
		b.newStatus().Placeholder.UID = p.UID
	}
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
