package decide

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// A recovery is a migration without an original: it starts the pod of a failed one again,
// from the claim that has the only copy of its state. Everything that it needs is in the
// status of the failed one, which no user may write, and is copied into its own when it
// is accepted. The claim changes hands by its label: of two recoveries one gets it.

// recovers reports whether the migration starts a pod from a kept claim.
func (s *State) recovers() bool { return s.Migration.Spec.RecoverFrom != "" }

// requestingRecovery are the steps until a recovery is accepted. It disrupts nothing, so
// no budget is asked.
var requestingRecovery = []step{
	{name: CheckRecovery, done: func(s *State) bool { return refuseRecovery(s) == nil }, action: func(b *builder) Decision {
		return rejectRecovery(b, refuseRecovery(b.State))
	}},
	{name: AcceptRecovery, action: acceptRecovery},
}

// recovering are the steps of a recovery. Until the pod is Ready the claim is nobody's but
// the recovery's, and is kept whatever ends it.
var recovering = slices.Concat([]step{
	{name: TakeClaim, applies: isToSeal, done: isClaimTaken, action: takeClaim},
	{name: RecordReplacement, applies: hasReplacement, done: isRecorded, action: func(b *builder) Decision { return markCreated(b, b.replacement()) }},
	{name: CreateReplacement, done: isRecorded, action: createRecovered, settle: replacementCreated},
	{name: PlaceReplacement, done: isPlaceRecorded, action: placeReplacement},
	{name: BeginHandover, done: isHandingOver, action: beginRestoring},
	{name: RestoreCheckpoint, applies: isToSeal, action: restoreKept},
	{name: StartReplacement, done: func(s *State) bool { return s.isTrue(v1alpha1.ConditionReplacementReady) && isReady(s.replacement()) }, action: startStopped},
}, ending)

// recoveryRules check a recovery against what exists, the most telling first.
var recoveryRules = []func(*State) *containers.Refusal{
	failedExists, copyIsKept, claimIsThere, noOtherRecovery, originalIsGone, claimIsFree, ownerHasPod, podNameIsFree, copyIsComplete, targetExists,
}

// refuseRecovery returns why the pod cannot be recovered as requested; nil when it can.
func refuseRecovery(s *State) *containers.Refusal {
	return firstRefusal(s, recoveryRules)
}

func failedExists(s *State) *containers.Refusal {
	if s.Failed == nil {
		return refusal(ReasonMigrationNotFound, "PodMigration %s does not exist in namespace %s", s.Migration.Spec.RecoverFrom, s.Migration.Namespace)
	}
	return nil
}

func copyIsKept(s *State) *containers.Refusal {
	status := &s.Failed.Status
	kept := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionCheckpointKept)
	switch {
	case s.Failed.StateWaits() && status.CheckpointClaim == "":
		return refusal(ReasonNothingKept, "PodMigration %s had no checkpoint claim: a disk of node %s alone has what the pod kept, in directory %s of its kubelet (/var/lib/kubelet), and it has to be copied from there by hand",
			s.Failed.Name, s.Failed.HeldNode(), v1alpha1.WaitingDirectory(s.Failed.UID, status.Checkpoint.Attempt))
	case !status.Phase.IsFinished():
		return refusal(ReasonNothingKept, "PodMigration %s has not ended: phase %s", s.Failed.Name, s.Failed.CurrentPhase())
	case kept == nil:
		return refusal(ReasonNothingKept, "PodMigration %s ended as %s, and its claim does not have the only copy of what the pod kept: nothing was sealed, or the original or its replacement continued", s.Failed.Name, status.Phase)
	case kept.Status == metav1.ConditionTrue:
		return nil
	}
	return refusal(kept.Reason, "PodMigration %s keeps nothing any more: %s", s.Failed.Name, kept.Message)
}

func claimIsThere(s *State) *containers.Refusal {
	name := s.Failed.Status.CheckpointClaim
	switch c := s.Claim; {
	case c == nil:
		return refusal(ReasonClaimDeleted, "claim %s no longer exists", name)
	case c.DeletionTimestamp != nil:
		return refusal(ReasonClaimDeleted, "claim %s is being deleted, and no pod can be placed with it: its content can only be copied by hand", name)
	case !v1alpha1.OwnedBy(c.Labels, s.Failed.UID):
		return refusal(ReasonAlreadyRecovered, "claim %s belongs to the PodMigration with UID %s by now, which recovers from it or has done so", name, c.Labels[v1alpha1.MigrationUIDLabel])
	}
	return nil
}

// noOtherRecovery lets one recovery at a time have a claim. Acceptance is serial.
func noOtherRecovery(s *State) *containers.Refusal {
	for i := range s.Others {
		other := &s.Others[i]
		if other.UID != s.Migration.UID && !other.Status.Phase.IsFinished() && other.Spec.RecoverFrom == s.Migration.Spec.RecoverFrom && (isAccepted(other) || isOlder(other, s.Migration)) {
			return refusal(ReasonAlreadyMigrating, "PodMigration %s is already recovering from claim %s", other.Name, s.Failed.Status.CheckpointClaim)
		}
	}
	return nil
}

// originalIsGone refuses while the original may still work: there would be two copies.
func originalIsGone(s *State) *containers.Refusal {
	for i := range s.Neighbours {
		if pod := &s.Neighbours[i]; pod.UID == s.Failed.Status.Original.UID && !pods.IsTerminal(pod) {
			return refusal(ReasonOriginalExists, "pod %s, which was moved, still exists on node %s: wait for its end, or delete it with --force when you are certain that its node is down", pod.Name, pod.Spec.NodeName)
		}
	}
	return nil
}

// claimIsFree refuses while a pod uses the claim: it may write to it, and may hold it on
// its node.
func claimIsFree(s *State) *containers.Refusal {
	name := s.Failed.Status.CheckpointClaim
	for i := range s.Neighbours {
		if pod := &s.Neighbours[i]; !pods.IsTerminal(pod) && containers.UsesClaim(pod, name) {
			return refusal(ReasonKeptClaimInUse, "pod %s uses claim %s: delete that pod first, or wait for its end", pod.Name, name)
		}
	}
	return nil
}

func podNameIsFree(s *State) *containers.Refusal {
	if s.Replacement != nil {
		return refusal(ReasonNameTaken, "pod %s exists: name another one for the recovered pod in spec.podName (--pod of kubectl migrate recover)", s.Replacement.Name)
	}
	return nil
}

// ownerHasPod wants a name for a pod that its owner has replaced: it comes back beside the
// owner's, and as nobody's.
func ownerHasPod(s *State) *containers.Refusal {
	h, original := s.Failed.Status.Handover, s.Failed.Status.Original
	if h == nil || h.Owner == nil || s.Migration.Spec.PodName != original.Name {
		return nil
	}
	return refusal(ReasonOwnerReplacesPod, "pod %s belonged to %s %s, which creates its pods itself: name another one in spec.podName (--pod of kubectl migrate recover). It is started beside the owner's pods, without their labels and without an owner",
		original.Name, h.Owner.Kind, h.Owner.Name)
}

// copyIsComplete wants all that a pod is started from.
func copyIsComplete(s *State) *containers.Refusal {
	c := s.Failed.Status.Checkpoint
	switch {
	case c == nil || c.Source == nil || c.Source.ManifestDigest == "" || c.Manifest == "":
		return refusal(ReasonManifestMissing, "PodMigration %s has no record of the pod, or of what was sealed: the pod was too large for one, or an older version has written it", s.Failed.Name)
	case len(c.Processes) > 0 && s.Migration.Spec.Checkpoint.Fallback != v1alpha1.FallbackFreshStart:
		return refusal(ReasonProcessNotMovable, "the memory of containers %s was carried, and can no longer be restored: with spec.checkpoint.fallback FreshStart the volumes are restored, and the containers start afresh", strings.Join(c.Processes, ", "))
	case len(c.Volumes) == 0:
		return refusal(ReasonProcessNotMovable, "only the memory of processes was carried, which can no longer be restored")
	case s.AgentImage == "":
		return refusal(ReasonNodeAgentMissing, "what is on the claim has to be restored, and there is no node agent: see --node-agent-image of the rebalancer")
	}
	return nil
}

// rejectRecovery ends a recovery that has changed nothing.
func rejectRecovery(b *builder, r *containers.Refusal) Decision {
	b.condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, r.Reason, r.Message)
	b.event(true, nil, r.Reason, fmt.Sprintf("Not recovering pod %s: %s", b.Migration.Spec.PodName, r.Message))
	return b.finish(v1alpha1.PhaseFailed, r.Message)
}

// acceptRecovery copies what the failed migration knows, so that it need not exist any
// longer.
func acceptRecovery(b *builder) Decision {
	failed, status := b.Failed.DeepCopy(), b.newStatus()
	original, from := failed.Status.Original, failed.Status.Checkpoint
	// The node of the original is as good as any other, and its agent has nothing to do.
	status.Original = &v1alpha1.PodReference{Name: original.Name, UID: original.UID}
	status.Replacement = &v1alpha1.PodReference{Name: b.Migration.Spec.PodName}
	status.Containers, status.CheckpointClaim = failed.Status.Containers, failed.Status.CheckpointClaim
	status.Handover = &v1alpha1.Handover{
		Method: v1alpha1.MethodCreate, Order: v1alpha1.OrderStartFirst,
		Reason: fmt.Sprintf("the original is gone: the pod is recovered from what PodMigration %s has kept", failed.Name),
	}
	source := from.Source
	source.Phase, source.Attempt, source.Reason, source.Message = v1alpha1.SourceSealed, 1, "", ""
	status.Checkpoint = &v1alpha1.CheckpointStatus{
		Mode: from.Mode, Volumes: from.Volumes, Manifest: from.Manifest, Step: v1alpha1.StepSeal, Attempt: 1, Source: source,
		PreviousClaim: from.PreviousClaim, RecoveredFrom: failed.UID, SealedBy: failed.CheckpointUID(),
	}
	if len(from.Processes) > 0 {
		status.Checkpoint.Mode = v1alpha1.CheckpointFrozen
		status.Checkpoint.FallbackReason = "a recovery restores volumes alone"
	}
	status.Phase = v1alpha1.PhasePlacing
	status.Times.Started, status.Times.Prepared = b.microNow(), b.microNow()
	b.condition(v1alpha1.ConditionAccepted, metav1.ConditionTrue, ReasonRecovering, "the pod can be recovered")
	b.condition(v1alpha1.ConditionSealed, metav1.ConditionTrue, ReasonSealed, fmt.Sprintf("%d bytes in %d files, manifest %s", source.Bytes, source.Files, source.ManifestDigest))
	message := fmt.Sprintf("recovering pod %s from claim %s, which PodMigration %s has kept", b.Migration.Spec.PodName, status.CheckpointClaim, failed.Name)
	b.say("%s", message)
	b.event(false, nil, ReasonRecovering, message+because(b.Migration.Spec.Reason))
	return b.decision
}

// isClaimTaken reports whether the claim is the recovery's, and stays until it is done.
func isClaimTaken(s *State) bool {
	c := s.claim()
	return c != nil && hasClaimFinalizer(c) && !slices.ContainsFunc(c.OwnerReferences, mayGo)
}

// takeClaim puts the mark of the recovery on the claim. Another one may have been faster.
func takeClaim(b *builder) Decision {
	c := b.Claim
	if c.DeletionTimestamp != nil {
		return beginRollback(b, ReasonClaimDeleted, fmt.Sprintf("claim %s is being deleted by another client", c.Name))
	}
	if b.claim() == nil && !v1alpha1.OwnedBy(c.Labels, b.Migration.Status.Checkpoint.RecoveredFrom) {
		return beginRollback(b, ReasonAlreadyRecovered, fmt.Sprintf("claim %s belongs to the PodMigration with UID %s by now", c.Name, c.Labels[v1alpha1.MigrationUIDLabel]))
	}
	taken := c.DeepCopy()
	taken.Labels[v1alpha1.MigrationUIDLabel] = string(b.Migration.UID)
	taken.OwnerReferences = slices.DeleteFunc(taken.OwnerReferences, mayGo)
	if !hasClaimFinalizer(taken) {
		taken.Finalizers = append(taken.Finalizers, v1alpha1.CheckpointFinalizer)
	}
	return b.do(ChangeObject{c, taken})
}

// createRecovered creates the pod as its manifest says, with the gate that holds its
// containers until their state is restored. The API server admits it as any new pod.
func createRecovered(b *builder) Decision {
	if b.Replacement != nil {
		return beginRollback(b, ReasonNameTaken, fmt.Sprintf("pod %s exists and was not created by this migration", b.Replacement.Name))
	}
	pod, err := recoveredPod(b)
	if err != nil {
		return beginRollback(b, ReasonReplacementRejected, err.Error())
	}
	return b.do(CreateObject{Object: pod})
}

func recoveredPod(b *builder) (*unstructured.Unstructured, error) {
	stored, original := map[string]any{}, &corev1.Pod{}
	if err := utiljson.Unmarshal([]byte(b.Migration.Status.Checkpoint.Manifest), &stored); err != nil {
		return nil, fmt.Errorf("reading status.checkpoint.manifest: %w", err)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(stored, original); err != nil {
		return nil, fmt.Errorf("reading status.checkpoint.manifest: %w", err)
	}
	pod, err := containers.BuildReplacement(original, b.storedVerdicts(), replacementOptions(b))
	if err != nil {
		return nil, err
	}
	// Owners that are gone would take the pod along.
	pod.OwnerReferences = nil
	fields, err := containers.KeepUnknownFields(stored, original, pod)
	if err != nil {
		return nil, err
	}
	return &unstructured.Unstructured{Object: fields}, nil
}

// beginRestoring waits no longer for a place.
func beginRestoring(b *builder) Decision {
	b.newStatus().Phase = v1alpha1.PhaseHandingOver
	b.newStatus().Times.HandingOver = b.microNow()
	b.say("pod %s is placed on node %s, waiting for its state", b.Migration.Spec.PodName, b.replacement().Spec.NodeName)
	return b.decision
}

// restoreKept waits for the node agent to restore and verify what was sealed.
func restoreKept(b *builder) Decision {
	if isRestoredByDestination(b.State) {
		return release(b)
	}
	r := b.replacement()
	if d, decided := cannotStart(b, r); decided {
		return d
	}
	since := gateSince(r)
	switch d := b.destination(); {
	case since == nil:
		return b.wait(b.untilDeadline(), "waiting for pod %s on node %s: %s", r.Name, r.Spec.NodeName, startProgress(r))
	case d == nil:
		return awaitAgent(b, r.Spec.NodeName, b.waited(*since))
	default:
		return b.wait(b.untilDeadline(), "restoring and verifying the checkpoint on node %s: %d bytes in %d files", r.Spec.NodeName, d.Bytes, d.Files)
	}
}

// maxManifest bounds the manifest of a pod in the status, in bytes. API servers refuse
// objects of more than 1.5 MiB.
const maxManifest = 256 << 10

// manifestOf is the original as it can be started again: without what says where it was,
// and what it belonged to. "" where it is not known, or too large.
func manifestOf(s *State) string {
	if s.Stored == nil {
		return ""
	}
	pod := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(s.Stored)}
	delete(pod.Object, "status")
	unstructured.RemoveNestedField(pod.Object, "spec", "nodeName")
	pod.SetManagedFields(nil)
	pod.SetOwnerReferences(nil)
	pod.SetFinalizers(nil)
	pod.SetResourceVersion("")
	if h := s.Migration.Status.Handover; h != nil && h.Owner != nil {
		// Neither the owner nor a Service may take it for one of the owner's pods.
		pod.SetLabels(nil)
	}
	encoded, err := json.Marshal(pod.Object)
	if err != nil || len(encoded) > maxManifest {
		return ""
	}
	return string(encoded)
}

// markKept writes down that the claim has the only copy, and returns what is added to the
// message of a migration that ends: where that is, "" where no copy is left over.
func markKept(b *builder) string {
	if node := waitsOn(b.State); node != "" && b.IsCommitted() && b.DestinationDown != NodeGone {
		return fmt.Sprintf("; what was carried waits on node %s, in directory %s of its kubelet (/var/lib/kubelet), until PodMigration %s is deleted",
			node, v1alpha1.WaitingDirectory(b.Migration.UID, b.Migration.Status.Checkpoint.Attempt), b.Migration.Name)
	}
	if !b.holdsOnlyCopy() {
		return ""
	}
	message := keptCopy(b)
	if c := keptClaim(b.State); c != nil {
		b.condition(v1alpha1.ConditionCheckpointKept, metav1.ConditionTrue, ReasonCheckpointKept, message)
		if c.DeletionTimestamp == nil {
			b.event(true, nil, ReasonCheckpointKept, fmt.Sprintf("Claim %s has the only copy of what pod %s kept: kubectl migrate recover %s starts the pod again with it", c.Name, b.Migration.Status.Original.Name, b.Migration.Name))
		}
	}
	return "; " + message
}

// checkKeptClaim writes down that a finished migration keeps nothing any more.
func checkKeptClaim(b *builder) Decision {
	reason, message := ReasonClaimDeleted, fmt.Sprintf("claim %s no longer exists", b.Migration.Status.CheckpointClaim)
	if b.Claim != nil {
		reason = ReasonAlreadyRecovered
		message = fmt.Sprintf("claim %s was taken by the PodMigration with UID %s", b.Claim.Name, cmp.Or(b.Claim.Labels[v1alpha1.MigrationUIDLabel], "(none)"))
	}
	b.condition(v1alpha1.ConditionCheckpointKept, metav1.ConditionFalse, reason, message)
	b.newStatus().Checkpoint.Manifest = ""
	return b.decision
}
