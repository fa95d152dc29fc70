package simulate

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
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
	return w.delete(pods, namespace, name, preconditions{uid: p.uid}, nil, false)
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

// countBudgets does what the disruption controller does.
func (w *world) countBudgets() {
	each(w.store, budgets, func(b *policyv1.PodDisruptionBudget) {
		disrupted := map[string]metav1.Time{}
		healthy := int32(0)
		expected := int32(0)
		each(w.store, pods, func(p *corev1.Pod) {
			if p.Namespace != b.Namespace || !selects(b.Spec.Selector, p.Labels) || isTerminal(p) {
				return
			}
			expected++
			if since, is := b.Status.DisruptedPods[p.Name]; is && p.DeletionTimestamp == nil && w.clock().Sub(since.Time) < disruptionTimeout {
				disrupted[p.Name] = since
				return
			}
			if p.DeletionTimestamp == nil && isPodReady(p) {
				healthy++
			}
		})
		desired := b.Spec.MinAvailable.IntVal
		change(w, b, true, func(b *policyv1.PodDisruptionBudget) {
			b.Status = policyv1.PodDisruptionBudgetStatus{
				ObservedGeneration: b.Generation, CurrentHealthy: healthy, DesiredHealthy: desired, ExpectedPods: expected,
				DisruptionsAllowed: max(0, healthy-desired), DisruptedPods: disrupted,
			}
			if len(disrupted) == 0 {
				b.Status.DisruptedPods = nil
			}
		})
	})
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
