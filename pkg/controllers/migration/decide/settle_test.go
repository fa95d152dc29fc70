package decide

import (
	"errors"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

var (
	podResource    = schema.GroupResource{Resource: "pods"}
	errSomewhere   = errors.New("connection refused")
	tooMany        = apierrors.NewTooManyRequests("held", 1)
	severalBudgets = &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
		Message: "This pod has more than one PodDisruptionBudget"}}
)

func TestSettle(t *testing.T) {
	const preparing, placing, handing = v1alpha1.PhasePreparing, v1alpha1.PhasePlacing, v1alpha1.PhaseHandingOver
	exists := apierrors.NewAlreadyExists(podResource, "x")
	forbidden := apierrors.NewForbidden(podResource, "x", errors.New("exceeded quota"))
	claimless := func() *scene {
		return in(preparing).with(func(s *scene) { s.Migration.Status.Before = record(nil, nil) })
	}
	podless := func() *scene {
		return in(placing).with(func(s *scene) { s.Replacement, s.Migration.Status.Replacement.UID = nil, "" })
	}
	tests := []struct {
		name     string
		scene    *scene
		result   Result
		phase    v1alpha1.Phase
		rollback string
		waits    bool
		retry    bool
	}{
		{"budget: yes", in(""), Result{Admitted: true}, preparing, "", false, false},
		{"budget: no", in(""), Result{Reason: "full"}, v1alpha1.PhasePending, "", true, false},
		{"budget: unknown", in(""), Result{Err: errSomewhere}, v1alpha1.PhasePending, "", false, true},
		{"claim: made", claimless(), Result{}, preparing, "", false, false},
		{"claim: exists", claimless(), Result{Err: exists}, preparing, "", false, false},
		{"claim: refused", claimless(), Result{Err: forbidden}, preparing, ReasonClaimRejected, false, false},
		{"claim: unknown", claimless(), Result{Err: errSomewhere}, preparing, "", false, true},
		{"replacement: made", podless(), Result{Created: replacementPod().Obj()}, placing, "", false, false},
		{"replacement: exists", podless(), Result{Err: exists}, placing, "", false, false},
		{"replacement: refused", podless(), Result{Err: forbidden}, placing, ReasonReplacementRejected, false, false},
		{"replacement: unknown", podless(), Result{Err: errSomewhere}, placing, "", false, true},
		{"evict: accepted", in(handing).committed(), Result{}, handing, "", true, false},
		{"evict: gone", in(handing).committed(), Result{Err: apierrors.NewNotFound(podResource, "x")}, handing, "", false, false},
		{"evict: changed", in(handing).committed(), Result{Err: apierrors.NewConflict(podResource, "x", errSomewhere)}, handing, "", false, false},
		{"evict: budget", in(handing).committed(), Result{Err: apierrors.NewTooManyRequests("held", 1)}, handing, "", true, false},
		{"evict: several budgets", in(handing).committed(), Result{Err: severalBudgets}, handing, "", true, false},
		{"evict: forbidden", in(handing).committed(), Result{Err: forbidden}, handing, "", true, false},
		{"evict: unknown", in(handing).committed(), Result{Err: errSomewhere}, handing, "", false, true},
		{"commit: allowed", in(handing), Result{}, handing, "", false, false},
		{"commit: budget", in(handing), Result{Err: tooMany}, handing, "", true, false},
		{"commit: changed", in(handing), Result{Err: apierrors.NewConflict(podResource, "x", errSomewhere)}, handing, "", false, false},
		{"commit: unknown", in(handing), Result{Err: errSomewhere}, handing, "", false, true},
		{"delete: gone", rollingBack(ReasonCancelled), Result{Err: apierrors.NewNotFound(podResource, "x")}, placing, "", false, false},
		{"delete: unknown", rollingBack(ReasonCancelled), Result{Err: errSomewhere}, placing, "", false, true},
	}
	golden := newGolden(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d, err := settle(t, test.scene.State, test.result)
			golden.check(t, test.name, test.scene.State, d)
			if (err != nil) != test.retry {
				t.Errorf("error = %v, want one: %t", err, test.retry)
			}
			if d.Status.Phase != test.phase || (d.Wait > 0) != test.waits {
				t.Errorf("phase %s, wait %v, want %s and waiting %t", d.Status.Phase, d.Wait, test.phase, test.waits)
			}
			c := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionRolledBack)
			if got := c != nil && c.Reason == test.rollback; got != (test.rollback != "") && !test.scene.isRollingBack() {
				t.Errorf("condition RolledBack = %+v, want reason %q", c, test.rollback)
			}
		})
	}
}

func sampleFrom(start, end time.Duration) *Sample {
	return &Sample{Usage: fixture.Amounts("1", "1Gi"), End: t0.Add(end), Window: end - start}
}

// The hold on an original that has ended does not outlast a namespace that is being
// deleted, nor a policy that refuses all pods of the owner.
func TestHoldEndsWhereNoPodIsAdmitted(t *testing.T) {
	ended := ofStatefulSet(stopFirst(in(v1alpha1.PhaseHandingOver), v1alpha1.MethodRecreate)).committed().with(replacementPending(ReasonWebhookAnswers)).with(func(s *scene) {
		s.Pod = withHoldFinalizer(s.Pod)
		deleting(s.Pod)
		s.Pod.Status.Phase, s.Replacement = corev1.PodFailed, nil
	})
	for name, test := range map[string]struct {
		result Result
		reason string
	}{
		"admitted":                      {Result{Admitted: true}, ReasonWebhookAnswers},
		"the webhook is silent":         {Result{}, ReasonWebhookAnswers},
		"no answer":                     {Result{Err: errSomewhere}, ReasonWebhookAnswers},
		"namespace is going":            {Result{Err: apierrors.NewForbidden(podResource, "x", errors.New("namespace is being terminated"))}, ReasonPodsRefused},
		"pods of the owner are invalid": {Result{Err: apierrors.NewBadRequest("policy")}, ReasonPodsRefused},
	} {
		d, err := settle(t, ended.State, test.result)
		if c := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionReplacementPending); err != nil || c == nil || c.Reason != test.reason {
			t.Errorf("%s: %+v, error %v, want reason %s", name, c, err, test.reason)
		}
	}
}

// A sample counts only when its whole window is about the replacement at work,
// which began 20 s before t0.
func TestMeasurementOfTheReplacement(t *testing.T) {
	tests := []struct {
		name   string
		sample *Sample
		gone   time.Duration // how long the original is gone
		want   v1alpha1.UsageSource
	}{
		{"none yet", nil, 10 * time.Second, ""},
		{"window began before", sampleFrom(-25*time.Second, -10*time.Second), 10 * time.Second, ""},
		{"window is inside", sampleFrom(-20*time.Second, -5*time.Second), 10 * time.Second, v1alpha1.UsageFromMetricsAPI},
		{"none in time", nil, 90 * time.Second, v1alpha1.UsageUnavailable},
		{"only an old one in time", sampleFrom(-25*time.Second, -10*time.Second), 90 * time.Second, v1alpha1.UsageUnavailable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := handedOver()
			s.Migration.Status.Times.OriginalGone = ago(test.gone)
			d, err := settle(t, s.State, Result{Sample: test.sample})
			if err != nil {
				t.Fatal(err)
			}
			var got v1alpha1.UsageSource
			if d.Status.After != nil {
				got = d.Status.After.Source
			}
			if got != test.want || (got == "") != (d.Wait > 0) {
				t.Errorf("source %q, wait %v, want %q", got, d.Wait, test.want)
			}
		})
	}
}

// Metrics go by name: a sample from before the pod started is of another pod.
func TestMeasurementOfTheOriginal(t *testing.T) {
	start := metav1.NewTime(t0.Add(-time.Minute))
	for name, test := range map[string]struct {
		sample *Sample
		want   v1alpha1.UsageSource
	}{
		"its own":         {sampleFrom(-30*time.Second, -15*time.Second), v1alpha1.UsageFromMetricsAPI},
		"of a former pod": {sampleFrom(-90*time.Second, -75*time.Second), v1alpha1.UsageUnavailable},
		"none":            {nil, v1alpha1.UsageUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			s := in(v1alpha1.PhasePreparing)
			s.Pod.Status.StartTime = &start
			d, err := settle(t, s.State, Result{Sample: test.sample})
			if err != nil || d.Status.Before == nil || d.Status.Before.Source != test.want {
				t.Fatalf("before = %+v, error %v, want source %s", d.Status.Before, err, test.want)
			}
			if got := d.Status.Before.Requests[corev1.ResourceCPU]; got.String() != "1400m" {
				t.Errorf("requests = %v", d.Status.Before.Requests)
			}
		})
	}
}

func TestEvictionBacksOff(t *testing.T) {
	last := time.Duration(0)
	for _, blocked := range []time.Duration{0, 10 * time.Second, time.Minute, 5 * time.Minute} {
		s := in(v1alpha1.PhaseHandingOver)
		s.Migration.Spec.TimeoutSeconds = 3600
		s.Migration.Status.Times.ReplacementReady = ago(blocked)
		wait := evictionWait(newBuilder(&s.State))
		if wait < last || wait < time.Second || wait > 30*time.Second {
			t.Errorf("blocked for %v: wait %v after %v", blocked, wait, last)
		}
		last = wait
	}
	if last != 30*time.Second {
		t.Errorf("the longest wait is %v, want 30s", last)
	}
}
