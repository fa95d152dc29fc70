package simulate

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// evict does what the Eviction API does (k8s.io/kubernetes/pkg/registry/core/pod/storage,
// EvictionREST).
func (w *world) evict(namespace, name string, p preconditions, dryRun bool) error {
	pod := lookup[*corev1.Pod](w.store, pods, namespace, name)
	if pod == nil {
		return notFound(pods, name)
	}
	if !canIgnoreBudget(pod) {
		if err := w.askBudgets(pod, dryRun); err != nil {
			return err
		}
	}
	if err := p.check(pod); err != nil || dryRun {
		return err
	}
	if pod.DeletionTimestamp == nil {
		change(w, pod, true, func(pod *corev1.Pod) {
			setPodCondition(pod, corev1.DisruptionTarget, corev1.ConditionTrue, "EvictionByEvictionAPI", w.stamp())
		})
	}
	w.evicting = pod.UID
	defer func() { w.evicting = "" }()
	return w.delete(pods, namespace, name, preconditions{uid: p.uid}, p.grace, false)
}

func canIgnoreBudget(pod *corev1.Pod) bool {
	return isTerminal(pod) || pod.Status.Phase == corev1.PodPending || pod.DeletionTimestamp != nil
}

func (w *world) askBudgets(pod *corev1.Pod, dryRun bool) error {
	matching := w.budgetsOf(pod)
	switch len(matching) {
	case 0:
		return nil
	case 1:
	default:
		return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: 500,
			Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."}}
	}
	b := matching[0]
	if !isPodReady(pod) && b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0 {
		return nil
	}
	if b.Status.ObservedGeneration < b.Generation {
		return apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 10)
	}
	if b.Status.DisruptionsAllowed <= 0 {
		return apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
	}
	if !dryRun {
		w.as("eviction", func() { w.countEviction(b, pod) })
	}
	return nil
}

func (w *world) countEviction(b *policyv1.PodDisruptionBudget, pod *corev1.Pod) {
	change(w, b, true, func(b *policyv1.PodDisruptionBudget) {
		b.Status.DisruptionsAllowed--
		if b.Status.DisruptedPods == nil {
			b.Status.DisruptedPods = map[string]metav1.Time{}
		}
		b.Status.DisruptedPods[pod.Name] = w.stamp()
	})
}

func (w *world) budgetsOf(pod *corev1.Pod) (matching []*policyv1.PodDisruptionBudget) {
	each(w.store, budgets, func(b *policyv1.PodDisruptionBudget) {
		if b.Namespace == pod.Namespace && selects(b.Spec.Selector, pod.Labels) {
			matching = append(matching, b)
		}
	})
	return matching
}

// selects supports matchLabels, which is all that the scenarios use.
func selects(selector *metav1.LabelSelector, set map[string]string) bool {
	return selector != nil && len(selector.MatchLabels) > 0 && labels.SelectorFromSet(selector.MatchLabels).Matches(labels.Set(set))
}

// disruptionTimeout is how long an eviction counts that deleted no pod.
const disruptionTimeout = 2 * time.Minute

// countBudgets lets the disruption controller count, late in some scenarios.
func (w *world) countBudgets() {
	lag := w.scenario.budgetLag
	switch {
	case lag == 0:
		each(w.store, budgets, w.countBudget)
	case !w.budgetsDue && len(w.byKind[budgets]) > 0:
		w.budgetsDue = true
		w.after(w.between(0, lag), func() {
			w.budgetsDue = false
			w.as("disruption", func() { each(w.store, budgets, w.countBudget) })
		})
	}
}

// countBudget does what the disruption controller does
// (k8s.io/kubernetes/pkg/controller/disruption at 1.35.4, trySync).
func (w *world) countBudget(b *policyv1.PodDisruptionBudget) {
	var covered []*corev1.Pod
	disrupted, healthy := map[string]metav1.Time{}, int32(0)
	each(w.store, pods, func(p *corev1.Pod) {
		if p.Namespace != b.Namespace || !selects(b.Spec.Selector, p.Labels) {
			return
		}
		covered = append(covered, p)
		if since, is := b.Status.DisruptedPods[p.Name]; is && p.DeletionTimestamp == nil && w.clock().Sub(since.Time) < disruptionTimeout {
			disrupted[p.Name] = since
			return
		}
		if p.DeletionTimestamp == nil && isPodReady(p) {
			healthy++
		}
	})
	expected, desired, err := w.expectedPods(b, covered)
	change(w, b, true, func(b *policyv1.PodDisruptionBudget) {
		if err != nil {
			// failSafe
			b.Status.DisruptionsAllowed = 0
			return
		}
		b.Status = policyv1.PodDisruptionBudgetStatus{
			ObservedGeneration: b.Generation, CurrentHealthy: healthy, DesiredHealthy: desired, ExpectedPods: expected,
			DisruptionsAllowed: max(0, healthy-desired), DisruptedPods: disrupted,
		}
		if expected <= 0 {
			b.Status.DisruptionsAllowed = 0
		}
		if len(disrupted) == 0 {
			b.Status.DisruptedPods = nil
		}
	})
}

// expectedPods is how many pods a budget expects, and how many must be healthy
// (getExpectedPodCount).
func (w *world) expectedPods(b *policyv1.PodDisruptionBudget, covered []*corev1.Pod) (expected, desired int32, err error) {
	if least := b.Spec.MinAvailable; b.Spec.MaxUnavailable == nil && least.Type == intstr.Int {
		return int32(len(covered)), least.IntVal, nil
	}
	if expected, err = w.expectedScale(covered); err != nil {
		return 0, 0, err
	}
	of := b.Spec.MinAvailable
	if b.Spec.MaxUnavailable != nil {
		of = b.Spec.MaxUnavailable
	}
	number, err := intstr.GetScaledValueFromIntOrPercent(of, int(expected), true)
	if b.Spec.MaxUnavailable != nil {
		return expected, max(0, expected-int32(number)), err
	}
	return expected, int32(number), err
}

// expectedScale adds up what the controllers of the pods want (getExpectedScale). Pods
// that nothing controls do not count, and those of a Job are an error: it has no scale.
func (w *world) expectedScale(covered []*corev1.Pod) (sum int32, err error) {
	seen := map[types.UID]bool{}
	for _, p := range covered {
		c := metav1.GetControllerOf(p)
		if c == nil || seen[c.UID] {
			continue
		}
		seen[c.UID] = true
		switch owner := w.byUID[c.UID].(type) {
		case *appsv1.ReplicaSet:
			scale := *owner.Spec.Replicas
			if above := metav1.GetControllerOf(owner); above != nil {
				d, is := w.byUID[above.UID].(*appsv1.Deployment)
				if !is || seen[d.UID] {
					continue
				}
				seen[d.UID] = true
				scale = *d.Spec.Replicas
			}
			sum += scale
		case *appsv1.StatefulSet:
			sum += *owner.Spec.Replicas
		default:
			return 0, fmt.Errorf("found no controllers for pod %q", p.Name)
		}
	}
	return sum, nil
}

func isPodReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// setPodCondition sets a condition; the transition is now when the status changes.
func setPodCondition(pod *corev1.Pod, kind corev1.PodConditionType, status corev1.ConditionStatus, reason string, now metav1.Time) {
	i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind })
	if i < 0 {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: kind})
		i = len(pod.Status.Conditions) - 1
	}
	c := &pod.Status.Conditions[i]
	if c.Status != status {
		c.Status, c.LastTransitionTime = status, now
	}
	c.Reason = reason
}
