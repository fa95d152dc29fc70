package decide

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
)

// Result is what came of an action.
type Result struct {
	// Admitted and Reason are the answer of the budget.
	Admitted bool
	Reason   string
	// Sample is the measurement; nil when there is none.
	Sample *Sample
	// Created is the replacement as the API server returned it; nil for all else.
	Created *corev1.Pod
	// Err is what the API server answered instead.
	Err error
}

// Settle completes a decision with the result of its action. The error is one
// to try again later; what it means for good is in the decision. Like Next it
// changes nothing that it is given.
func Settle(s State, d Decision, r Result) (Decision, error) {
	d.Status, d.Events = *d.Status.DeepCopy(), slices.Clone(d.Events)
	b := &builder{State: &s, decision: d}
	switch d.Action.Type {
	case AskBudget:
		return b.budgetAnswered(r)
	case MeasureBefore:
		return b.measuredBefore(r)
	case CreateClaim:
		return b.created(r, ReasonClaimRejected, "the checkpoint claim")
	case CreateCarrier:
		return b.created(r, ReasonCheckpointFailed, "the pod that mounts the checkpoint claim")
	case CreatePlaceholder:
		return b.created(r, ReasonReplacementRejected, "the placeholder")
	case ProbeWebhook:
		return b.webhookProbed(r)
	case ProbeWebhookAndRemoveHold:
		return b.holdRemoved(r)
	case DeletePlainPod:
		return b.wait(recreateInterval, "deleted pod %s before it started: the admission webhook did not answer when it was created", d.Action.Pod.Name), ignoreDeleted(r.Err)
	case CreateReplacement:
		return b.created(r, ReasonReplacementRejected, "the replacement")
	case CheckEviction:
		return b.evictionChecked(r)
	case OfferReplacement:
		return b.offered(r)
	case Evict:
		return b.evicted(r)
	case MeasureAfter:
		return b.measuredAfter(r)
	default:
		// Removing what is gone, or adopting it, has nothing left to do.
		if apierrors.IsNotFound(r.Err) {
			return b.decision, nil
		}
		return b.decision, r.Err
	}
}

func (b *builder) budgetAnswered(r Result) (Decision, error) {
	if r.Err != nil {
		return b.decision, r.Err
	}
	if r.Admitted {
		return b.accept(), nil
	}
	b.condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, ReasonWaitingForBudget, r.Reason)
	return b.wait(PollInterval, "waiting for a place in the budget: %s", r.Reason), nil
}

// measuredBefore takes the sample only if it is of this pod: metrics go by
// name, and an earlier pod may have had it.
func (b *builder) measuredBefore(r Result) (Decision, error) {
	sample := r.Sample
	if start := b.Pod.Status.StartTime; start != nil && !sample.startedAfter(start.Time) {
		sample = nil
	}
	b.newStatus().Before = record(originalRequests(b.Pod), sample)
	return b.decision, nil
}

// created reads the answer to the creation of an object. One that exists already is
// looked at with the next state: it may be of another client. refused is the reason
// of a rollback when the API server does not admit the object.
func (b *builder) created(r Result, refused, what string) (Decision, error) {
	switch {
	case r.Err == nil && r.Created != nil:
		return b.markCreated(r.Created), nil
	case r.Err == nil, apierrors.IsAlreadyExists(r.Err):
		return b.decision, nil
	case isRejected(r.Err):
		return b.beginRollback(refused, what+" was refused: "+r.Err.Error()), nil
	default:
		return b.decision, r.Err
	}
}

// isRejected reports whether the API server will say the same next time: the
// object is invalid, a quota or an admission rule is against it.
func isRejected(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err)
}

// holdRemoved waits while the webhook does not answer: the original has ended,
// and its owner must not create a plain pod instead of the replacement.
func (b *builder) holdRemoved(r Result) (Decision, error) {
	switch {
	case r.Err == nil && r.Admitted, apierrors.IsNotFound(r.Err):
		return b.decision, nil
	case apierrors.IsConflict(r.Err):
		return b.decision, r.Err
	case r.Err != nil:
		return b.wait(probeInterval, "pod %s has ended; waiting for the admission webhook: %s", b.decision.Action.Pod.Name, r.Err.Error()), nil //nolint:nilerr // the message has it
	}
	return b.wait(probeInterval, "pod %s has ended; waiting for the admission webhook, which does not change pods yet", b.decision.Action.Pod.Name), nil
}

func ignoreDeleted(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// evicted reads the answer of the Eviction API: 429 when a budget holds the
// pod, 500 when several budgets match it, a conflict when the pod has changed
// since it was judged.
func (b *builder) evicted(r Result) (Decision, error) {
	if r.Err == nil {
		return b.wait(PollInterval, "evicted pod %s, waiting for it to end", b.Pod.Name), nil
	}
	return b.notEvicted(r)
}

// evictionChecked continues when the Eviction API would evict the original.
func (b *builder) evictionChecked(r Result) (Decision, error) {
	if r.Err == nil {
		return b.beginSeal(), nil
	}
	return b.notEvicted(r)
}

// offered looks again when the replacement has the label of its ReplicaSet.
func (b *builder) offered(r Result) (Decision, error) {
	if r.Err == nil {
		return b.decision, nil
	}
	return b.notEvicted(r)
}

func (b *builder) notEvicted(r Result) (Decision, error) {
	switch {
	case apierrors.IsNotFound(r.Err), apierrors.IsConflict(r.Err):
		return b.decision, nil
	case apierrors.IsTooManyRequests(r.Err), isSeveralBudgets(r.Err), isRejected(r.Err):
		message := "the original may not be evicted now: " + evictionMessage(r.Err)
		if b.conditionReason(v1alpha1.ConditionHandedOver) != ReasonEvictionBlocked {
			b.event(true, b.Pod, ReasonEvictionBlocked, message)
		}
		if !b.IsCommitted() {
			b.condition(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonEvictionBlocked, message)
		}
		return b.wait(b.evictionWait(), "%s", message), nil
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

// measuredAfter waits for a sample that is about the replacement alone: its whole
// window lies after the replacement was ready.
func (b *builder) measuredAfter(r Result) (Decision, error) {
	from := b.newStatus().Times.ReplacementReady
	if from != nil && r.Sample.startedAfter(from.Time) {
		b.markMeasured(b.decision.Action.Pod, r.Sample)
		return b.decision, nil
	}
	if until := b.measureUntil(); b.Now.Before(until) {
		return b.wait(min(PollInterval, until.Sub(b.Now)), "the original is gone, waiting for a measurement of the replacement"), nil
	}
	b.markMeasured(b.decision.Action.Pod, nil)
	return b.decision, nil
}

func (b *builder) markMeasured(replacement *corev1.Pod, sample *Sample) {
	b.newStatus().After = record(pods.Requests(replacement), sample)
	if sample == nil {
		b.condition(v1alpha1.ConditionMeasured, metav1.ConditionFalse, ReasonUnavailable, fmt.Sprintf("no measurement of the replacement came within %s", b.Limits.MeasureTimeout))
		return
	}
	b.condition(v1alpha1.ConditionMeasured, metav1.ConditionTrue, ReasonMeasured, "measured by metrics.k8s.io")
}
