package migration

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Result is what came of an action.
type Result struct {
	// Admitted and Reason are the answer of the budget.
	Admitted bool
	Reason   string
	// Sample is the measurement; nil when there is none.
	Sample *Sample
	// Created is the replacement as the API server returned it.
	Created *corev1.Pod
	// Err is what the API server answered instead.
	Err error
}

// Settle completes a decision with the result of its action. The error is one
// to try again later; what it means for good is in the decision. Like Next it
// changes nothing that it is given.
func Settle(s State, d Decision, r Result) (Decision, error) {
	d.Status, d.Events = *d.Status.DeepCopy(), slices.Clone(d.Events)
	st := &step{State: &s, decision: d}
	switch d.Action.Type {
	case AskBudget:
		return st.budgetAnswered(r)
	case MeasureBefore:
		return st.measuredBefore(r)
	case CreateClaim:
		return st.claimCreated(r)
	case CreateCarrier:
		return st.carrierCreated(r)
	case CreatePlaceholder:
		return st.placeholderCreated(r)
	case ProbeWebhook:
		return st.probed(r)
	case ProbeAndLetGo:
		return st.letGoAnswered(r)
	case DeletePlainPod:
		return st.wait(100*time.Millisecond, "removed pod %s before it started: the admission webhook did not answer when it was made", d.Action.Pod.Name), ignoreGone(r.Err)
	case CreateReplacement:
		return st.replacementCreated(r)
	case CheckEviction:
		return st.evictionChecked(r)
	case OfferReplacement:
		return st.offered(r)
	case Evict:
		return st.evicted(r)
	case MeasureAfter:
		return st.measuredAfter(r)
	default:
		// Removing what is gone, or adopting it, has nothing left to do.
		if apierrors.IsNotFound(r.Err) {
			return st.decision, nil
		}
		return st.decision, r.Err
	}
}

func (st *step) budgetAnswered(r Result) (Decision, error) {
	if r.Err != nil {
		return st.decision, r.Err
	}
	if r.Admitted {
		return st.accept(), nil
	}
	st.condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, ReasonWaitingForBudget, r.Reason)
	return st.wait(pollInterval, "waiting for a place in the budget: %s", r.Reason), nil
}

// measuredBefore takes the sample only if it is of this pod: metrics go by
// name, and an earlier pod may have had it.
func (st *step) measuredBefore(r Result) (Decision, error) {
	sample := r.Sample
	if start := st.Pod.Status.StartTime; start != nil && !sample.startedAfter(start.Time) {
		sample = nil
	}
	st.status().Before = record(originalRequests(st.Pod), sample)
	return st.decision, nil
}

func (st *step) claimCreated(r Result) (Decision, error) {
	switch {
	case r.Err == nil, apierrors.IsAlreadyExists(r.Err):
		return st.decision, nil
	case isRejected(r.Err):
		return st.giveUp(ReasonClaimRejected, "the checkpoint claim was refused: "+r.Err.Error()), nil
	default:
		return st.decision, r.Err
	}
}

func (st *step) carrierCreated(r Result) (Decision, error) {
	switch {
	case r.Err == nil, apierrors.IsAlreadyExists(r.Err):
		return st.decision, nil
	case isRejected(r.Err):
		return st.giveUp(ReasonCheckpointFailed, "the pod that mounts the checkpoint claim was refused: "+r.Err.Error()), nil
	default:
		return st.decision, r.Err
	}
}

func (st *step) placeholderCreated(r Result) (Decision, error) {
	switch {
	case r.Err == nil, apierrors.IsAlreadyExists(r.Err):
		return st.decision, nil
	case isRejected(r.Err):
		return st.giveUp(ReasonReplacementRejected, "the placeholder was refused: "+r.Err.Error()), nil
	default:
		return st.decision, r.Err
	}
}

// letGoAnswered waits while the webhook does not answer: the original has ended,
// and its owner must not make a plain pod instead of the replacement.
func (st *step) letGoAnswered(r Result) (Decision, error) {
	switch {
	case r.Err == nil && r.Admitted, apierrors.IsNotFound(r.Err):
		return st.decision, nil
	case apierrors.IsConflict(r.Err):
		return st.decision, r.Err
	case r.Err != nil:
		return st.wait(probeInterval, "pod %s has ended; waiting for the admission webhook: %s", st.decision.Action.Pod.Name, r.Err.Error()), nil
	}
	return st.wait(probeInterval, "pod %s has ended; waiting for the admission webhook, which leaves pods as they are", st.decision.Action.Pod.Name), nil
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

func (st *step) replacementCreated(r Result) (Decision, error) {
	switch {
	case r.Err == nil:
		return st.created(r.Created), nil
	case isRejected(r.Err):
		return st.giveUp(ReasonReplacementRejected, "the replacement was refused: "+r.Err.Error()), nil
	case apierrors.IsAlreadyExists(r.Err):
		return st.decision, nil
	default:
		return st.decision, r.Err
	}
}

// isRejected reports whether the API server will say the same next time: the
// object is invalid, a quota or an admission rule is against it.
func isRejected(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err)
}

// evicted reads the answer of the Eviction API: 429 when a budget holds the
// pod, 500 when several budgets match it, a conflict when the pod has changed
// since it was judged.
func (st *step) evicted(r Result) (Decision, error) {
	if r.Err == nil {
		return st.wait(pollInterval, "evicted pod %s, waiting for it to end", st.Pod.Name), nil
	}
	return st.notEvicted(r)
}

// evictionChecked goes on when the Eviction API would have let the original go.
func (st *step) evictionChecked(r Result) (Decision, error) {
	if r.Err == nil {
		return st.seal(), nil
	}
	return st.notEvicted(r)
}

// offered looks again when the replacement has the label of its ReplicaSet.
func (st *step) offered(r Result) (Decision, error) {
	if r.Err == nil {
		return st.decision, nil
	}
	return st.notEvicted(r)
}

func (st *step) notEvicted(r Result) (Decision, error) {
	switch {
	case apierrors.IsNotFound(r.Err), apierrors.IsConflict(r.Err):
		return st.decision, nil
	case apierrors.IsTooManyRequests(r.Err), isSeveralBudgets(r.Err), isRejected(r.Err):
		message := "the original may not be evicted now: " + evictionMessage(r.Err)
		if st.conditionReason(v1alpha1.ConditionHandedOver) != ReasonEvictionBlocked {
			st.event(true, st.Pod, ReasonEvictionBlocked, message)
		}
		if !st.isCommitted() {
			st.condition(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonEvictionBlocked, message)
		}
		return st.wait(st.evictionWait(), "%s", message), nil
	default:
		return st.decision, r.Err
	}
}

// isSeveralBudgets recognises the eviction API's answer for a pod that more
// than one PodDisruptionBudget covers: code 500 without a reason.
func isSeveralBudgets(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Code == http.StatusInternalServerError
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

// measuredAfter waits for a sample that is about the replacement alone at
// work: its whole window lies after the replacement began to work.
func (st *step) measuredAfter(r Result) (Decision, error) {
	from := st.status().Times.ReplacementReady
	if from != nil && r.Sample.startedAfter(from.Time) {
		st.measured(st.decision.Action.Pod, r.Sample)
		return st.decision, nil
	}
	if until := st.measureUntil(); st.Now.Before(until) {
		return st.wait(min(pollInterval, until.Sub(st.Now)), "the original is gone, waiting for a measurement of the replacement"), nil
	}
	st.measured(st.decision.Action.Pod, nil)
	return st.decision, nil
}

func (st *step) measured(replacement *corev1.Pod, sample *Sample) {
	st.status().After = record(requestsOf(replacement), sample)
	if sample == nil {
		st.condition(v1alpha1.ConditionMeasured, metav1.ConditionFalse, ReasonUnavailable, fmt.Sprintf("no measurement of the replacement came within %s", st.Limits.MeasureTimeout))
		return
	}
	st.condition(v1alpha1.ConditionMeasured, metav1.ConditionTrue, ReasonMeasured, "measured by metrics.k8s.io")
}
