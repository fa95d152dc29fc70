package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
)

// stuck is a world with a migration whose replacement finds no place.
func stuck(t *testing.T) (*world, *corev1.Pod) {
	t.Helper()
	w := newWorld(t)
	w.change(func(w *world) { w.place, w.refusal = nil, "no room" })
	original := w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{UnschedulableGrace: time.Hour})
	w.request(newMigration(w.namespace, "m", "train"))
	w.waitFor("m", func(m *v1alpha1.PodMigration) bool {
		return m.Status.Phase == v1alpha1.PhasePlacing && m.Status.Replacement.UID != ""
	})
	return w, original
}

func (w *world) cancel() {
	w.t.Helper()
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"cancel":true}}`))
	w.must(k8s.Patch(w.t.Context(), newMigration(w.namespace, "m", "train"), patch))
}

func (w *world) wantRolledBack(phase v1alpha1.Phase, reason string) *v1alpha1.PodMigration {
	w.t.Helper()
	m := w.waitForEnd("m")
	c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionRolledBack)
	if m.Status.Phase != phase || c == nil || c.Status != "True" || c.Reason != reason {
		w.t.Errorf("phase %s, condition RolledBack %+v, want %s for %s", m.Status.Phase, c, phase, reason)
	}
	return m
}

func TestCancel(t *testing.T) {
	t.Parallel()
	w, original := stuck(t)
	w.cancel()
	w.wantRolledBack(v1alpha1.PhaseCancelled, decide.ReasonCancelled)
	w.wantUntouched(original)
}

func TestDeletionRollsBack(t *testing.T) {
	t.Parallel()
	w, original := stuck(t)
	w.must(k8s.Delete(t.Context(), newMigration(w.namespace, "m", "train")))
	eventually(t, 30*time.Second, func(ctx context.Context) error {
		err := k8s.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: "m"}, &v1alpha1.PodMigration{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("the PodMigration is still there: %w", err)
	})
	w.wantUntouched(original)
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.change(func(w *world) { w.place, w.refusal = nil, "no room" })
	original := w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{UnschedulableGrace: time.Hour})
	m := newMigration(w.namespace, "m", "train")
	m.Spec.TimeoutSeconds = 1
	w.request(m)
	if m := w.wantRolledBack(v1alpha1.PhaseFailed, decide.ReasonTimedOut); !strings.Contains(m.Status.Message, "no room") {
		t.Errorf("message = %q, want what it waited for", m.Status.Message)
	}
	w.wantUntouched(original)
}

func TestAfterTheEvictionCancelAndDeletionOnlyFinish(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"cancel", "deletion"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			w.change(func(w *world) { w.holdPods = true })
			original := w.createOriginal(threeContainers("train").Obj())
			w.controller(migration.Options{Metrics: samples{none: true}, MeasureTimeout: 300 * time.Millisecond})
			w.request(newMigration(w.namespace, "m", "train"))
			eventually(t, 30*time.Second, func(context.Context) error {
				if w.exists(original) {
					return errors.New("the original is not evicted")
				}
				return nil
			})
			if how == "cancel" {
				w.cancel()
			} else {
				w.must(k8s.Delete(t.Context(), newMigration(w.namespace, "m", "train")))
			}
			w.change(func(w *world) { w.holdPods = false })
			eventually(t, 30*time.Second, func(ctx context.Context) error {
				m := &v1alpha1.PodMigration{}
				err := k8s.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: "m"}, m)
				if how == "deletion" && apierrors.IsNotFound(err) || how == "cancel" && m.Status.Phase == v1alpha1.PhaseSucceeded {
					return nil
				}
				return fmt.Errorf("phase %s, %w", m.Status.Phase, err)
			})
			if left := w.onlyPod(); !strings.HasPrefix(left.Name, "train-migrated-") {
				t.Errorf("the pod left is %s, want the replacement", left.Name)
			}
		})
	}
}

// budgetFor makes a disruption budget with a status, as its controller would.
func (w *world) budgetFor(app string, allowed int32) *policyv1.PodDisruptionBudget {
	w.t.Helper()
	pdb := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: app}}
	pdb.Spec.MinAvailable = ptr.To(intstr.FromInt32(1))
	pdb.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	w.must(k8s.Create(w.t.Context(), pdb))
	w.allow(pdb, allowed)
	return pdb
}

func (w *world) allow(pdb *policyv1.PodDisruptionBudget, allowed int32) {
	w.t.Helper()
	w.must(k8s.Get(w.t.Context(), client.ObjectKeyFromObject(pdb), pdb))
	pdb.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: pdb.Generation, DisruptionsAllowed: allowed,
		CurrentHealthy: 1 + allowed, DesiredHealthy: 1, ExpectedPods: 1 + allowed}
	w.must(k8s.Status().Update(w.t.Context(), pdb))
}

func isBlocked(m *v1alpha1.PodMigration) bool {
	c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionHandedOver)
	return m.Status.Phase == v1alpha1.PhaseHandingOver && c != nil && c.Reason == decide.ReasonEvictionBlocked
}

func TestDisruptionBudgetHoldsTheEviction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pdb := w.budgetFor("train", 0)
	original := w.createOriginal(threeContainers("train").Label("app", "train").Ready(true).Obj())
	w.controller(migration.Options{})
	w.request(newMigration(w.namespace, "m", "train"))
	m := w.waitFor("m", isBlocked)
	if !strings.Contains(m.Status.Message, "disruption budget train needs 1 healthy pods") {
		t.Errorf("message = %q, want the words of the budget", m.Status.Message)
	}
	if !w.exists(original) {
		t.Fatal("the original is gone against its budget")
	}
	w.allow(pdb, 1)
	w.waitForPhase("m", v1alpha1.PhaseSucceeded)
	w.onlyPod()
}

func TestDisruptionBudgetThatNeverAllows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.budgetFor("train", 0)
	original := w.createOriginal(threeContainers("train").Label("app", "train").Ready(true).Obj())
	w.controller(migration.Options{})
	m := newMigration(w.namespace, "m", "train")
	m.Spec.TimeoutSeconds = 2
	w.request(m)
	if m := w.wantRolledBack(v1alpha1.PhaseFailed, decide.ReasonTimedOut); !strings.Contains(m.Status.Message, "disruption budget train") {
		t.Errorf("message = %q, want the words of the budget", m.Status.Message)
	}
	w.wantUntouched(original)
}

func TestOriginalThatFinishesByItself(t *testing.T) {
	t.Parallel()
	w, original := stuck(t)
	w.must(k8s.Get(t.Context(), client.ObjectKeyFromObject(original), original))
	original.Status.Phase = corev1.PodSucceeded
	w.must(k8s.Status().Update(t.Context(), original))
	w.wantRolledBack(v1alpha1.PhaseCancelled, decide.ReasonOriginalFinished)
	w.wantUntouched(original)
}

func TestOriginalThatItsUserDeletes(t *testing.T) {
	t.Parallel()
	w, original := stuck(t)
	w.must(k8s.Delete(t.Context(), original))
	w.wantRolledBack(v1alpha1.PhaseCancelled, decide.ReasonOriginalDeleted)
	if pods, claims := w.pods(), w.claims(); len(pods)+len(claims) != 0 {
		t.Errorf("%d pods and %d claims left, want none", len(pods), len(claims))
	}
}

// A drain must not cost the only copy of a pod, when another one is coming up.
func TestOriginalThatIsDrained(t *testing.T) {
	t.Parallel()
	w, original := stuck(t)
	w.change(func(w *world) { w.holdPods = true })
	w.must(k8s.SubResource("eviction").Create(t.Context(), original, &policyv1.Eviction{}))
	w.waitFor("m", func(m *v1alpha1.PodMigration) bool {
		c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionCommitted)
		return c != nil && c.Status == metav1.ConditionTrue && c.Reason == decide.ReasonDisrupted
	})
	w.change(func(w *world) { w.holdPods, w.place = false, func(*corev1.Pod) string { return nodeB } })
	m := w.waitForPhase("m", v1alpha1.PhaseSucceeded)
	if left := w.onlyPod(); left.UID != m.Status.Replacement.UID {
		t.Errorf("the pod left is %s, want the replacement", left.Name)
	}
}

// Work that finishes while the replacement comes up must not be done again.
func TestContainerThatFinishesMeanwhile(t *testing.T) {
	t.Parallel()
	w, original := stuck(t)
	w.must(w.finish(original, "log"))
	w.change(func(w *world) { w.place = func(*corev1.Pod) string { return nodeB } })
	m := w.waitForPhase("m", v1alpha1.PhaseSucceeded)
	left := w.onlyPod()
	if len(left.Spec.Containers) != 1 || left.Spec.Containers[0].Name != "serve" {
		t.Errorf("containers of the replacement: %v, want only serve", left.Spec.Containers)
	}
	if left.UID != m.Status.Replacement.UID {
		t.Error("the pod left is not the one in the status")
	}
}

func TestReplacementThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.change(func(w *world) {
		w.start = func(pod *corev1.Pod) {
			running(pod)
			status := fixture.Exited(3)
			status.Name = "serve"
			pod.Status.Phase, pod.Status.ContainerStatuses[0] = corev1.PodFailed, *status
		}
	})
	original := w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{})
	w.request(newMigration(w.namespace, "m", "train"))
	if m := w.wantRolledBack(v1alpha1.PhaseFailed, decide.ReasonReplacementFailed); !strings.Contains(m.Status.Message, "container serve ended with exit code 3") {
		t.Errorf("message = %q, want the container and its code", m.Status.Message)
	}
	w.wantUntouched(original)
}

func TestReplacementOnItsSource(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.change(func(w *world) { w.place = func(*corev1.Pod) string { return nodeA } })
	original := w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{})
	w.request(newMigration(w.namespace, "m", "train"))
	w.wantRolledBack(v1alpha1.PhaseFailed, decide.ReasonLandedOnSource)
	w.wantUntouched(original)
}

func TestReplacementThatAnotherClientDeletes(t *testing.T) {
	t.Parallel()
	w, original := stuck(t)
	for _, pod := range w.pods() {
		if pod.UID != original.UID {
			w.must(k8s.Delete(t.Context(), &pod))
		}
	}
	w.wantRolledBack(v1alpha1.PhaseFailed, decide.ReasonReplacementDeleted)
	w.wantUntouched(original)
}

// The last moment counts too: the eviction must fail when a container has
// finished since the original was judged.
func TestContainerThatFinishesJustBeforeTheEviction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	original := w.createOriginal(threeContainers("train").Obj())
	var once sync.Once
	w.controller(migration.Options{OnStep: func(_ types.NamespacedName, step string) error {
		if step == "before "+string(decide.Evict) {
			once.Do(func() {
				if err := w.finish(original, "log"); err != nil {
					t.Error(err)
				}
			})
		}
		return nil
	}})
	w.request(newMigration(w.namespace, "m", "train"))
	w.waitForPhase("m", v1alpha1.PhaseSucceeded)
	left := w.onlyPod()
	if len(left.Spec.Containers) != 1 || left.Spec.Containers[0].Name != "serve" {
		t.Errorf("containers of the replacement: %v, want only serve", left.Spec.Containers)
	}
	w.change(func(w *world) {
		if w.lost {
			t.Error("at some moment no working pod was there")
		}
	})
}

// finish ends a container of a pod with exit code 0.
func (w *world) finish(pod *corev1.Pod, container string) error {
	if err := k8s.Get(w.t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
		return err
	}
	for i := range pod.Status.ContainerStatuses {
		if s := &pod.Status.ContainerStatuses[i]; s.Name == container {
			s.State, s.Ready = fixture.Exited(0).State, false
		}
	}
	return k8s.Status().Update(w.t.Context(), pod)
}
