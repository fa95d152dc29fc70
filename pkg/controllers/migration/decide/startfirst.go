package decide

import (
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// handOverStartFirst are the steps of a handover to a replacement that runs beside its
// original. With state to carry the release of the replacement commits the migration,
// else what ends the original.
var handOverStartFirst = slices.Concat(carryOver, []step{
	{name: AwaitReady, done: isReadyOrLate, action: awaitReady},
	{name: KeepPreviousClaim, applies: originalRuns, done: keepsNoPreviousClaim, action: func(b *builder) Decision {
		return b.do(ChangeObject{b.PreviousClaim, withOwner(b.PreviousClaim, b.replacement())})
	}},
	{name: MarkOriginal, applies: offersReplacement, done: func(s *State) bool { return owners.HasLowestDeletionCost(s.original()) }, action: func(b *builder) Decision {
		o := b.original()
		return b.do(ChangeObject{o, owners.WithLowestDeletionCost(o)})
	}},
	commit,
	{name: OfferReplacement, applies: offersReplacement, action: func(b *builder) Decision {
		r := b.replacement()
		return b.do(ChangeObject{r, owners.Offered(r, b.Owner)})
	}},
	{name: AwaitAdoption, applies: awaitsAdoption, done: func(s *State) bool {
		reason := s.conditionReason(v1alpha1.ConditionHandedOver)
		return reason == ReasonEvictionBlocked || reason == ReasonOffered && s.since(v1alpha1.ConditionHandedOver) >= adoptionGrace
	}, action: awaitAdoption},
	evict,
	{name: AwaitOriginalGone, done: (*State).originalEnded, action: func(b *builder) Decision {
		return b.wait(PollInterval, "replacement %s takes over; waiting for pod %s to end", b.Migration.Status.Replacement.Name, b.original().Name)
	}},
	{name: HandOver, done: isHandedOver, action: handOver},
	{name: AwaitTakeover, done: func(s *State) bool { return s.isTrue(v1alpha1.ConditionReplacementReady) }, action: awaitTakeover},
	{name: OfferLate, applies: (*State).adopts, done: func(s *State) bool { return s.Owner.ReplicaSet == nil || s.isOffered(s.replacement()) }, action: offerLate},
}, leaving, []step{unmarkReplacement, lastStep})

// carryOver are the steps that give the replacement its state, while the original is
// frozen.
var carryOver = []step{
	{name: ProtectClaim, applies: isToSeal, done: func(s *State) bool { return isSealAsked(s) || isClaimProtected(s) }, action: protectClaim},
	{name: UntrackReplacement, applies: func(s *State) bool { return mayFailItsJob(s) && !isSealAsked(s) }, done: func(s *State) bool { return !owners.IsTracked(s.replacement()) }, action: func(b *builder) Decision {
		// Where its processes are not restored its container fails, and with it a pod that
		// is never restarted. That is no failure of the Job.
		r := b.replacement()
		return b.do(ChangeObject{r, owners.Discarded(r)})
	}},
	{name: CheckEviction, applies: isToSeal, done: isSealAsked, action: checkEviction, settle: evictionChecked},
	{name: SealCheckpoint, applies: isToSeal, done: isSealedBySource, action: func(b *builder) Decision { return awaitFrozen(b, lastCopy(b)) }},
	{name: TrackReplacement, applies: func(s *State) bool { return mayFailItsJob(s) && isRestoredByDestination(s) }, done: func(s *State) bool { return owners.IsTracked(s.replacement()) }, action: func(b *builder) Decision {
		r := b.replacement()
		return b.do(ChangeObject{r, owners.Tracked(r)})
	}},
	{name: RestoreCheckpoint, applies: isToSeal, action: func(b *builder) Decision {
		if isRestoredByDestination(b.State) {
			return release(b)
		}
		return awaitFrozen(b, fmt.Sprintf("restoring and verifying the checkpoint on node %s", b.Migration.Status.Replacement.NodeName))
	}},
}

// commit writes down that the original is about to end, where nothing has committed
// the migration yet and the Eviction API would evict the original. An original that
// ends by another client needs none.
var commit = step{name: Commit, applies: originalRuns, done: (*State).IsCommitted, action: checkEviction, settle: committed}

// evict ends the original.
var evict = step{name: Evict, done: func(s *State) bool { return !originalRuns(s) }, action: func(b *builder) Decision {
	return b.do(EvictPod{Pod: b.original()})
}, settle: evicted}

const (
	// readyPoll is how often a replacement is looked at that was ready, or had its
	// state, and is not ready.
	readyPoll = 2 * time.Second
	// adoptionGrace is how long the ReplicaSet may take to delete the original once
	// it has the replacement.
	adoptionGrace = 10 * time.Second
	// choiceGrace is how long a ReplicaSet may take at least to choose which pod goes.
	choiceGrace = 5 * time.Minute
	// Bounds of the wait before the Eviction API is asked again, and the part of the
	// time blocked so far that it is.
	minEvictionWait = time.Second
	maxEvictionWait = 30 * time.Second
	evictionBackoff = 4
)

// offerLate offers a replacement whose original is gone: the ReplicaSet has deleted that for
// the replacement of another pod, whose original is now the one too many; or another client
// has, and the pod that the ReplicaSet has made instead is. It deletes a pod that is not Ready
// before all others.
func offerLate(b *builder) Decision {
	r := b.replacement()
	if !b.isReplacementReady() && b.Now.Before(choosesBy(b.State)) {
		return b.wait(readyPoll, "replacement %s is not ready, not offering it to ReplicaSet %s: %s", r.Name, b.Owner.ReplicaSet.Name, startProgress(r))
	}
	return b.do(ChangeObject{r, owners.Offered(r, b.Owner)})
}

// choosesBy is until when it is waited for the replacement to be ready for its ReplicaSet,
// and for that to choose: the deadline, or some time after the original has gone.
func choosesBy(s *State) time.Time {
	if gone := s.Migration.Status.Times.OriginalGone; gone != nil && gone.Add(choiceGrace).After(s.deadline()) {
		return gone.Add(choiceGrace)
	}
	return s.deadline()
}

// isToSeal reports whether state is still to be carried over.
func isToSeal(s *State) bool { return s.carries() && !s.isTrue(v1alpha1.ConditionReleased) }

// mayFailItsJob reports whether the replacement is a pod of a Job whose processes are still
// to be restored.
func mayFailItsJob(s *State) bool {
	r := s.replacement()
	return isToSeal(s) && len(s.Migration.Status.Checkpoint.Processes) > 0 && s.method() == v1alpha1.MethodRelease &&
		owners.KindOf(s.Migration.Status.Handover.Owner) == owners.KindJob && r != nil && r.DeletionTimestamp == nil && !pods.IsTerminal(r)
}

func isSealAsked(s *State) bool {
	return s.Migration.Status.Checkpoint.Step != v1alpha1.StepCopy
}

func isHandedOver(s *State) bool { return s.isTrue(v1alpha1.ConditionHandedOver) }

// originalEnding reports whether the original is going or gone.
func (s *State) originalEnding() bool {
	o := s.original()
	return o == nil || o.DeletionTimestamp != nil
}

// originalRuns reports whether the original has to be ended.
func originalRuns(s *State) bool { return !s.originalEnding() }

// offersReplacement reports whether the ReplicaSet of the original is to take the
// replacement, and delete the original.
func offersReplacement(s *State) bool {
	return originalRuns(s) && s.adopts() && s.Owner.ReplicaSet != nil && !s.isOffered(s.replacement())
}

func awaitsAdoption(s *State) bool {
	return originalRuns(s) && s.adopts() && s.Owner.ReplicaSet != nil && s.isOffered(s.replacement())
}

// isReadyOrLate reports whether the original may go: the replacement is ready, and it is
// written down. Where the original goes anyway there is nothing to wait for.
func isReadyOrLate(s *State) bool {
	isWritten, isReady := s.isTrue(v1alpha1.ConditionReplacementReady), s.isReplacementReady()
	if s.originalEnding() {
		return isWritten || !isReady
	}
	return isWritten && isReady && settlesIn(s) == 0
}

// settlesIn is how long the replacement still has to be Ready before its original may
// end.
func settlesIn(s *State) time.Duration {
	r, settling := s.replacement(), time.Duration(0)
	if !pods.IsTerminal(r) {
		settling = owners.SettlingTime(s.Owner, r, s.Limits.Settling)
	}
	// The kubelet's clock, which knows of a moment in which the replacement was not Ready, may
	// be behind ours.
	left := time.Duration(0)
	if since := s.Migration.Status.Times.ReplacementReady; since != nil {
		left = max(0, settling-s.Now.Sub(since.Time))
		if c := pods.Condition(r, corev1.PodReady); c == nil || c.Status != corev1.ConditionTrue {
			// One of its containers has finished, so that it will never be Ready again.
			return left
		}
	}
	return max(left, owners.AvailableIn(r, settling, s.Now))
}

// isLeaving reports whether a pod needs no deletion.
func isLeaving(pod *corev1.Pod) bool { return pod == nil || pod.DeletionTimestamp != nil }

// checkEviction asks whether the Eviction API would evict the original. A frozen pod is
// disrupted as well.
func checkEviction(b *builder) Decision { return b.do(EvictPod{Pod: b.Pod, DryRun: true}) }

// evictionChecked continues when the Eviction API would evict the original.
func evictionChecked(b *builder, r Result) (Decision, error) {
	if r.Err == nil {
		return beginSeal(b), nil
	}
	return notEvicted(b, r)
}

// committed commits the migration when the Eviction API would evict the original.
func committed(b *builder, r Result) (Decision, error) {
	if r.Err != nil {
		return notEvicted(b, r)
	}
	b.condition(v1alpha1.ConditionCommitted, metav1.ConditionTrue, ReasonEvicting, "the original is about to be evicted")
	b.condition(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonEvicting, "the original is about to be evicted")
	b.say("evicting pod %s", b.Pod.Name)
	return b.decision, nil
}

// awaitReady waits until the replacement is ready, and writes it down.
func awaitReady(b *builder) Decision {
	r := b.replacement()
	switch {
	case b.isReplacementReady() && !b.isTrue(v1alpha1.ConditionReplacementReady):
		markReplacementReady(b, r)
		return b.decision
	case b.isReplacementReady():
		left := settlesIn(b.State)
		return b.wait(min(left, readyPoll), "replacement %s is ready, and has to stay so for %s before the original is evicted", r.Name, left.Round(time.Second))
	}
	return b.wait(readyPoll, "replacement %s is not ready, not evicting the original: %s", r.Name, startProgress(r))
}

// awaitAdoption waits for the ReplicaSet to delete the original. When it wants one
// pod more by then, the original is still the one to go.
func awaitAdoption(b *builder) Decision {
	if b.conditionReason(v1alpha1.ConditionHandedOver) != ReasonOffered {
		b.condition(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonOffered, "the ReplicaSet has the replacement, and deletes the original")
		return b.decision
	}
	left := adoptionGrace - b.since(v1alpha1.ConditionHandedOver)
	return b.wait(min(left, shortPoll), "waiting for ReplicaSet %s to delete pod %s", b.Owner.ReplicaSet.Name, b.original().Name)
}

// handOver writes down that the original is gone.
func handOver(b *builder) Decision {
	b.newStatus().Times.OriginalGone = b.microNow()
	b.condition(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver, "the original is gone")
	b.event(false, b.replacement(), ReasonHandedOver, fmt.Sprintf("Pod %s is gone, replacement %s has taken over", b.Migration.Spec.PodName, b.Migration.Status.Replacement.Name))
	b.say("the original is gone, measuring the replacement")
	return b.decision
}

// awaitTakeover waits for a replacement that was not ready when its original went.
func awaitTakeover(b *builder) Decision {
	r := b.replacement()
	if r.Spec.NodeName == "" {
		return unplaced(b, r)
	}
	return b.wait(PollInterval, "the original is gone; waiting for replacement %s on node %s: %s", r.Name, r.Spec.NodeName, startProgress(r))
}

// evicted reads the answer of the Eviction API: 429 when a budget holds the
// pod, 500 when several budgets match it, a conflict when the pod has changed
// since it was judged.
func evicted(b *builder, r Result) (Decision, error) {
	if r.Err == nil {
		return b.wait(PollInterval, "evicted pod %s, waiting for it to end", b.Pod.Name), nil
	}
	return notEvicted(b, r)
}

func notEvicted(b *builder, r Result) (Decision, error) {
	switch {
	case apierrors.IsNotFound(r.Err), apierrors.IsConflict(r.Err):
		return b.decision, nil
	case apierrors.IsTooManyRequests(r.Err), isSeveralBudgets(r.Err), isRejected(r.Err):
		message := "the original may not be evicted now: " + evictionMessage(r.Err)
		if b.conditionReason(v1alpha1.ConditionHandedOver) != ReasonEvictionBlocked {
			b.event(true, b.Pod, ReasonEvictionBlocked, message)
		}
		b.condition(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonEvictionBlocked, message)
		return b.wait(evictionWait(b), "%s", message), nil
	default:
		return b.decision, r.Err
	}
}

// internalServerError is the code of HTTP; a pure package does not import net/http.
const internalServerError = 500

// isSeveralBudgets recognises the eviction API's answer for a pod that more
// than one PodDisruptionBudget covers: code 500 without a reason.
func isSeveralBudgets(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Code == internalServerError
}

// evictionMessage adds the causes, which name the budget and its numbers.
func evictionMessage(err error) string {
	message := err.Error()
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil {
		for _, cause := range status.Status().Details.Causes {
			message += " " + cause.Message
		}
	}
	return message
}

// evictionWait grows with the time that the handover has been blocked, from
// one second to thirty. It needs no memory but the status.
func evictionWait(b *builder) time.Duration {
	ready := b.Migration.Status.Times.ReplacementReady
	if ready == nil {
		return minEvictionWait
	}
	wait := min(maxEvictionWait, max(minEvictionWait, b.Now.Sub(ready.Time)/evictionBackoff))
	if left := b.deadline().Sub(b.Now); left > 0 {
		wait = max(minEvictionWait, min(wait, left))
	}
	return wait
}

// keepsNoPreviousClaim reports whether no checkpoint claim of the migration before
// would be collected together with the original. The replacement does not mount it;
// what an application wrote there is kept for as long as the replacement lives.
func keepsNoPreviousClaim(s *State) bool {
	c := s.PreviousClaim
	return c == nil || c.DeletionTimestamp != nil || !isOwnedByPod(c.OwnerReferences, s.original()) || isOwnedByPod(c.OwnerReferences, s.replacement())
}
