package decide

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// placingStartFirst are the steps of a replacement that starts beside its original.
var placingStartFirst = slices.Concat(findReplacement, []step{
	{name: PlaceReplacement, done: isPlaced, record: recordPlace, action: unplacedReplacement},
	copying,
	{name: CompareImages, applies: movesProcesses, done: func(s *State) bool { return differingImage(s) == "" }, action: func(b *builder) Decision {
		return processesNotMovable(b, ReasonImageDiffers, differingImage(b.State))
	}},
	{name: StartReplacement, applies: carriesNothing, done: func(s *State) bool { return isReady(s.replacement()) }, action: startReplacement},
	{name: BeginHandover, action: beginHandover},
})

// placingStopFirst are the steps of a replacement that starts when its original has
// ended: a placeholder holds its place, where its state is copied.
var placingStopFirst = slices.Concat(holdPlace, []step{copying}, findReplacement, []step{
	{name: BeginHandover, action: beginStop},
})

// findReplacement are the steps until there is a replacement: created by the
// migration, or by the owner of the original. Where the owner recreates the pod
// only when it is gone, there is none before the handover.
var findReplacement = []step{
	{name: RecordReplacement, applies: hasReplacement, done: isRecorded, action: func(b *builder) Decision { return recordReplacement(b, b.replacement()) }},
	{name: CheckOwner, applies: isToRelease, done: mayRelease, action: checkOwner},
	{name: AnnounceReplacement, applies: isToRelease, done: isAnnounced, action: announceReplacement},
	{name: ProbeWebhook, applies: isToRelease, done: isProbed, action: func(b *builder) Decision { return b.do(ProbeAdmission{Probe: probe(b)}) }, settle: webhookProbed},
	{name: ReleaseOriginal, applies: isToRelease, done: func(s *State) bool { return owners.IsReleased(s.original()) }, action: releaseOriginal},
	{name: AwaitOwnersPod, applies: isToRelease, action: awaitOwnersPod},
	{name: CreateReplacement, applies: isToCreate, action: createReplacement, settle: replacementCreated},
}

func isRecorded(s *State) bool     { return s.Migration.Status.Replacement.UID != "" }
func hasReplacement(s *State) bool { return s.replacement() != nil }
func carriesNothing(s *State) bool { return !s.carries() }
func isPlaced(s *State) bool       { return s.replacement().Spec.NodeName != "" }

// isToCreate reports whether the migration has to create the replacement itself.
func isToCreate(s *State) bool {
	return !isRecorded(s) && !owners.NeedsWebhook(s.method())
}

// isToRelease reports whether the owner has to create the replacement beside the
// original.
func isToRelease(s *State) bool {
	return !isRecorded(s) && s.method() == v1alpha1.MethodRelease && s.original() != nil
}

// recordPlace writes down where the replacement was placed.
func recordPlace(b *builder) {
	if r := b.replacement(); !b.isTrue(v1alpha1.ConditionPlaced) || b.newStatus().Replacement.NodeName != r.Spec.NodeName {
		markPlaced(b, r)
	}
}

func unplacedReplacement(b *builder) Decision { return unplaced(b, b.replacement()) }

// startReplacement waits until the replacement is ready.
func startReplacement(b *builder) Decision {
	r := b.replacement()
	if d, decided := cannotStart(b, r); decided {
		return d
	}
	return b.wait(b.untilDeadline(), "waiting for replacement %s on node %s: %s", r.Name, r.Spec.NodeName, startProgress(r))
}

// beginHandover begins to replace the original.
func beginHandover(b *builder) Decision {
	r := b.replacement()
	b.newStatus().Phase = v1alpha1.PhaseHandingOver
	b.newStatus().Times.HandingOver = b.microNow()
	if b.carries() {
		b.say("the first copy is on node %s, handing over", r.Spec.NodeName)
	} else {
		markReplacementReady(b, r)
	}
	return b.decision
}

// beginStop begins the handover of a migration whose original has to stop.
func beginStop(b *builder) Decision {
	b.newStatus().Phase = v1alpha1.PhaseHandingOver
	b.newStatus().Times.HandingOver = b.microNow()
	b.say("the place on node %s is held, handing over", b.newStatus().Placeholder.NodeName)
	return b.decision
}

func createReplacement(b *builder) Decision {
	if b.Replacement != nil {
		return beginRollback(b, ReasonNameTaken, fmt.Sprintf("pod %s exists and was not created by this migration", b.Replacement.Name))
	}
	pod, err := containers.BuildReplacement(b.Pod, b.storedVerdicts(), replacementOptions(b))
	if err != nil {
		return beginRollback(b, ReasonReplacementRejected, err.Error())
	}
	if b.adopts() {
		if r := owners.Refuse(b.Pod, b.Owner); r != nil {
			return beginRollback(b, r.Reason, r.Message)
		}
		pod = owners.Unmatched(pod, b.Owner)
	}
	return b.do(CreateObject{Object: pod, CopyOf: b.Pod})
}

func replacementCreated(b *builder, r Result) (Decision, error) {
	return created(b, r, ReasonReplacementRejected, "the replacement")
}

// created reads the answer to the creation of an object. One that exists already is
// looked at with the next state: it may be of another client. refused is the reason
// of a rollback when the API server does not admit the object.
func created(b *builder, r Result, refused, what string) (Decision, error) {
	switch {
	case r.Err == nil && r.Created != nil && b.decision.Step == CreateReplacement:
		return markCreated(b, r.Created), nil
	case r.Err == nil, apierrors.IsAlreadyExists(r.Err):
		return b.decision, nil
	case isRejected(r.Err):
		return beginRollback(b, refused, what+" was refused: "+r.Err.Error()), nil
	default:
		return b.decision, r.Err
	}
}

// isRejected reports whether the API server will say the same next time: the
// object is invalid, a quota or an admission rule is against it.
func isRejected(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err)
}

func replacementOptions(b *builder) containers.ReplacementOptions {
	o := containers.OptionsOf(b.Migration, b.AgentImage)
	o.PullSecrets, o.DropAnnotationPrefixes = b.PullSecrets, b.DropAnnotations
	return o
}

func markCreated(b *builder, r *corev1.Pod) Decision {
	b.newStatus().Replacement = &v1alpha1.PodReference{Name: r.Name, UID: r.UID, NodeName: r.Spec.NodeName}
	b.condition(v1alpha1.ConditionPlaced, metav1.ConditionFalse, ReasonCreated, "waiting for the scheduler")
	b.say("waiting for scheduler %s to place replacement %s", r.Spec.SchedulerName, r.Name)
	if b.recovers() {
		b.event(false, r, ReasonCreated, fmt.Sprintf("Created pod %s again; it waits for its state", r.Name))
		return b.decision
	}
	b.event(false, b.original(), ReasonCreated, fmt.Sprintf("Created replacement %s; pod %s keeps running until it is ready", r.Name, b.Migration.Spec.PodName))
	return b.decision
}

func markPlaced(b *builder, r *corev1.Pod) {
	b.newStatus().Replacement.NodeName = r.Spec.NodeName
	b.newStatus().Times.Placed = b.microNow()
	b.condition(v1alpha1.ConditionPlaced, metav1.ConditionTrue, ReasonPlaced, "bound to node "+r.Spec.NodeName)
	b.event(false, b.original(), ReasonPlaced, fmt.Sprintf("Replacement %s was placed on node %s", r.Name, r.Spec.NodeName))
}

// markReplacementReady records that the replacement is ready.
func markReplacementReady(b *builder, r *corev1.Pod) {
	b.newStatus().Times.ReplacementReady = b.microNow()
	b.newStatus().Downtime = downtime(b)
	markRestored(b)
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
func cannotStart(b *builder, r *corev1.Pod) (_ Decision, decided bool) {
	reason := startFailure(r)
	scheduled := pods.Condition(r, corev1.PodScheduled)
	if reason == "" || b.IsCommitted() || scheduled == nil || b.waited(scheduled.LastTransitionTime) < b.Limits.StartGrace {
		return Decision{}, false
	}
	return beginRollback(b, ReasonCannotStart, fmt.Sprintf("replacement %s cannot start on node %s: %s", r.Name, r.Spec.NodeName, reason)), true
}

// unplaced waits for the scheduler, and rolls back when it has found no place
// for longer than the grace. While a node is nominated, pods are being preempted;
// provisioning the volume of a claim can take longer than the grace, and so can a node
// that an autoscaler makes: for these the timeout of the migration is the bound.
func unplaced(b *builder, r *corev1.Pod) Decision {
	scheduled := pods.Condition(r, corev1.PodScheduled)
	if scheduled == nil || scheduled.Status != corev1.ConditionFalse {
		return b.wait(b.untilDeadline(), "waiting for scheduler %s to place replacement %s", r.Spec.SchedulerName, r.Name)
	}
	b.condition(v1alpha1.ConditionPlaced, metav1.ConditionFalse, cmp.Or(scheduled.Reason, ReasonUnschedulable), scheduled.Message)
	gates := strings.Join(owners.ForeignGates(r), ", ")
	if scheduled.Reason != corev1.PodReasonUnschedulable && gates == "" || r.Status.NominatedNodeName != "" ||
		b.IsCommitted() || volumeIsComing(b, scheduled.Message) {
		why := scheduled.Message
		if node := waitsOn(b.State); node != "" {
			why += fmt.Sprintf(" (what was carried is on node %s alone)", node)
		}
		return b.wait(b.untilDeadline(), "the scheduler has not placed replacement %s yet: %s", r.Name, why)
	}
	why := scheduled.Message
	if gates != "" {
		why = fmt.Sprintf("another controller holds it with scheduling gate %s; %s", gates, why)
	}
	if b.Migration.CheckpointMode() == v1alpha1.CheckpointProcess {
		why += fmt.Sprintf(" (its processes can only be restored on nodes with the label %s=true, by their node agents)", v1alpha1.ProcessNodeLabel)
	}
	if left := b.Limits.UnschedulableGrace - b.waited(scheduled.LastTransitionTime); left > 0 {
		return b.wait(min(left, b.untilDeadline()), "the scheduler finds no place for replacement %s: %s", r.Name, why)
	}
	if b.ComingNode != "" && gates == "" {
		return b.wait(min(autoscalerPoll, b.untilDeadline()), "waiting for a node that an autoscaler makes for pod %s (%s): %s", r.Name, b.ComingNode, why)
	}
	return beginRollback(b, ReasonUnschedulable, "the scheduler found no place for the replacement: "+why)
}

// autoscalerPoll is how often the events of an autoscaler are read while it makes a node.
// The watch of pods reports when the pod has its place.
const autoscalerPoll = 10 * time.Second

// unboundClaim is how plugin VolumeBinding says that a claim of binding mode
// Immediate has no volume yet (k8s.io/kubernetes/pkg/scheduler/framework/plugins/volumebinding).
const unboundClaim = "unbound immediate PersistentVolumeClaims"

// volumeIsComing reports whether the scheduler waits for the checkpoint claim,
// and the claim has a class that provisions its volume.
func volumeIsComing(b *builder, refusal string) bool {
	c := b.claim()
	return strings.Contains(refusal, unboundClaim) && c != nil && ptr.Deref(c.Spec.StorageClassName, "") != ""
}

func wrongNode(m *v1alpha1.PodMigration, r *corev1.Pod) *containers.Refusal {
	node := r.Spec.NodeName
	if node == m.Status.Original.NodeName {
		return refusal(ReasonLandedOnSource, "replacement %s was placed on %s, the node that it should leave", r.Name, node)
	}
	if m.Spec.TargetNode != "" && node != m.Spec.TargetNode {
		return refusal(ReasonLandedElsewhere, "replacement %s was placed on %s, not on %s", r.Name, node, m.Spec.TargetNode)
	}
	return nil
}

// holdPlace are the steps of the pod that holds the place of the replacement. While
// the original continues they are looked at again and again.
var holdPlace = []step{
	{name: CreatePlaceholder, done: func(s *State) bool { return s.placeholder() != nil && isPlaceholderRecorded(s) }, action: createPlaceholder, settle: placeholderCreated},
	{name: PlacePlaceholder, done: isPlaceHeld, record: recordPlaceholder, action: placePlaceholder},
}

func isPlaceholderRecorded(s *State) bool { return s.Migration.Status.Placeholder.UID != "" }

// isPlaceHeld reports whether the placeholder runs on a node that the replacement may use.
func isPlaceHeld(s *State) bool {
	p := s.placeholder()
	return p.Spec.NodeName != "" && wrongNode(s.Migration, p) == nil && p.Status.Phase == corev1.PodRunning
}

// recordPlaceholder writes down where the place is held.
func recordPlaceholder(b *builder) {
	p := b.placeholder()
	if b.Migration.Status.Placeholder.NodeName != "" {
		return
	}
	b.newStatus().Placeholder.NodeName = p.Spec.NodeName
	b.newStatus().Times.Placed = b.microNow()
	b.condition(v1alpha1.ConditionPlaced, metav1.ConditionTrue, ReasonPlaced, fmt.Sprintf("placeholder %s holds the place on node %s", p.Name, p.Spec.NodeName))
	b.event(false, b.original(), ReasonPlaced, fmt.Sprintf("Placeholder %s holds a place on node %s", p.Name, p.Spec.NodeName))
}

// placePlaceholder waits until the placeholder runs.
func placePlaceholder(b *builder) Decision {
	p := b.placeholder()
	if p.Spec.NodeName == "" {
		return unplaced(b, p)
	}
	if wrong := wrongNode(b.Migration, p); wrong != nil {
		return beginRollback(b, wrong.Reason, wrong.Message)
	}
	recordPlaceholder(b)
	if d, decided := cannotStart(b, p); decided {
		return d
	}
	return b.wait(b.untilDeadline(), "waiting for placeholder %s on node %s: %s", p.Name, p.Spec.NodeName, startProgress(p))
}

// createPlaceholder creates the placeholder, and writes its UID down.
func createPlaceholder(b *builder) Decision {
	if p := b.placeholder(); p != nil {
		b.newStatus().Placeholder.UID = p.UID
		b.condition(v1alpha1.ConditionPlaced, metav1.ConditionFalse, ReasonPlaceholderCreated, "waiting for the scheduler to find a place")
		b.say("waiting for scheduler %s to place %s, which holds the place of the replacement", v1alpha1.SchedulerName, p.Name)
		return b.decision
	}
	if b.Placeholder != nil {
		return beginRollback(b, ReasonNameTaken, fmt.Sprintf("pod %s exists and was not created by this migration", b.Placeholder.Name))
	}
	replacement, err := containers.BuildReplacement(b.Pod, b.storedVerdicts(), replacementOptions(b))
	if err != nil {
		return beginRollback(b, ReasonReplacementRejected, err.Error())
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
	if b.AgentImage != "" {
		placeholder.Spec.ImagePullSecrets = containers.WithPullSecrets(placeholder.Spec.ImagePullSecrets, b.PullSecrets)
	}
	if c := b.Migration.Status.Checkpoint; b.needsClaim() && (b.carries() || !c.ClaimReused) {
		containers.HoldClaim(placeholder, b.Migration.Status.CheckpointClaim)
	}
	placeholder.OwnerReferences = []metav1.OwnerReference{ownerReference(b.Migration)}
	return b.do(CreateObject{Object: placeholder})
}

func placeholderCreated(b *builder, r Result) (Decision, error) {
	return created(b, r, ReasonReplacementRejected, "the placeholder")
}
