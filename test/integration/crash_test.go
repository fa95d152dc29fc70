package integration

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
)

// stepsOf runs one migration and returns every step that its controller came to.
func stepsOf(t *testing.T, o migration.Options, prepare func(*world)) []string {
	w := newWorld(t)
	prepare(w)
	w.createOriginal(threeContainers("train").Obj())
	var mu sync.Mutex
	var steps []string
	o.OnStep = func(_ types.NamespacedName, step string) error {
		mu.Lock()
		defer mu.Unlock()
		if !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
		return nil
	}
	stop := w.controller(o)
	w.request(keepingClaim(newMigration(w.namespace, "m", "train")))
	// What comes after the end is a step as well.
	w.waitFor("m", func(m *v1alpha1.PodMigration) bool { return m.Status.Phase.IsFinished() && len(m.Finalizers) == 0 })
	stop()
	return steps
}

// wantSteps guards the enumeration itself: a step that is no longer reached
// would silently not be tested.
func wantSteps(t *testing.T, steps []string, actions ...v1alpha1.Step) {
	t.Helper()
	for _, action := range actions {
		for _, when := range []string{"before ", "after "} {
			if !slices.Contains(steps, when+string(action)) {
				t.Errorf("step %q is missing in %v", when+string(action), steps)
			}
		}
	}
}

// kills are the steps at which a controller is killed. Before a step is as good as after
// the one before it: nothing was written in between.
func kills(steps []string) []string {
	return slices.DeleteFunc(slices.Clone(steps), func(step string) bool { return strings.HasPrefix(step, "before ") && step != steps[0] })
}

func TestCrashAtEveryStepOfASuccess(t *testing.T) {
	steps := stepsOf(t, migration.Options{}, func(*world) {})
	wantSteps(t, steps, decide.AddFinalizer, decide.AskBudget, decide.MeasureBefore, decide.CreateClaim,
		decide.CreateReplacement, decide.Commit, decide.Evict, decide.AdoptClaim, decide.MeasureAfter, decide.RemoveFinalizer)
	for _, step := range kills(steps) {
		t.Run(strings.ReplaceAll(step, " ", "-"), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.createOriginal(threeContainers("train").Obj())
			w.request(keepingClaim(newMigration(w.namespace, "m", "train")))
			w.crashAt(step, migration.Options{})
			w.controller(migration.Options{})
			m := w.waitForPhase("m", v1alpha1.PhaseSucceeded)
			left := w.onlyPod()
			if left.UID != m.Status.Replacement.UID || left.Status.Phase != corev1.PodRunning {
				t.Errorf("the pod left is %s, want the replacement %s", left.Name, m.Status.Replacement.Name)
			}
			w.change(func(w *world) {
				if len(w.made) != 1 || w.lost {
					t.Errorf("%d replacements were made, want 1; without a working pod at some moment: %t", len(w.made), w.lost)
				}
			})
			if claims := w.claims(); len(claims) != 1 || len(claims[0].OwnerReferences) != 0 || slices.Contains(claims[0].Finalizers, v1alpha1.CheckpointFinalizer) {
				t.Errorf("claims left: %v, want one that nothing owns or keeps", claims)
			}
			checkRecord(t, m)
		})
	}
}

func TestCrashAtEveryStepOfARollback(t *testing.T) {
	o := migration.Options{UnschedulableGrace: 100 * time.Millisecond}
	noPlace := func(w *world) {
		w.change(func(w *world) { w.place, w.refusal = nil, "0/2 nodes are available: 2 Insufficient cpu." })
	}
	steps := stepsOf(t, o, noPlace)
	wantSteps(t, steps, decide.CreateClaim, decide.CreateReplacement, decide.SetRollbackBarrier, decide.DiscardReplacement, decide.DeleteClaim, decide.RemoveFinalizer)
	for _, step := range kills(steps) {
		t.Run(strings.ReplaceAll(step, " ", "-"), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			noPlace(w)
			original := w.createOriginal(threeContainers("train").Obj())
			w.request(keepingClaim(newMigration(w.namespace, "m", "train")))
			w.crashAt(step, o)
			w.controller(o)
			m := w.waitForEnd("m")
			if m.Status.Phase != v1alpha1.PhaseFailed || !strings.Contains(m.Status.Message, "2 Insufficient cpu") {
				t.Errorf("phase %s: %s, want Failed with the scheduler's words", m.Status.Phase, m.Status.Message)
			}
			w.wantUntouched(original)
			w.change(func(w *world) {
				if w.lost {
					t.Error("at some moment no working pod was there")
				}
			})
		})
	}
}

// The replacement has to be rebuilt in the middle: a container of the
// original finishes as soon as the scheduler sees the first one.
func TestCrashAtEveryStepOfAFreshStart(t *testing.T) {
	finishLog := func(w *world) {
		w.change(func(w *world) {
			w.place = func(pod *corev1.Pod) string {
				if len(pod.Spec.Containers) == 1 {
					return nodeB
				}
				original := &corev1.Pod{}
				original.Namespace, original.Name = w.namespace, "train"
				if err := w.finish(original, "log"); err != nil {
					w.t.Error(err)
				}
				return ""
			}
		})
	}
	steps := stepsOf(t, migration.Options{}, finishLog)
	wantSteps(t, steps, decide.CreateReplacement, decide.RemoveLeftovers, decide.Evict)
	for _, step := range kills(steps) {
		t.Run(strings.ReplaceAll(step, " ", "-"), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			finishLog(w)
			w.createOriginal(threeContainers("train").Obj())
			w.request(keepingClaim(newMigration(w.namespace, "m", "train")))
			w.crashAt(step, migration.Options{})
			w.controller(migration.Options{})
			m := w.waitForPhase("m", v1alpha1.PhaseSucceeded)
			left := w.onlyPod()
			if left.UID != m.Status.Replacement.UID || len(left.Spec.Containers) != 1 || left.Spec.Containers[0].Name != "serve" {
				t.Errorf("the pod left is %s with %d containers, want the replacement with serve alone", left.Name, len(left.Spec.Containers))
			}
			w.change(func(w *world) {
				if w.lost {
					t.Error("at some moment no working pod was there")
				}
			})
			if claims := w.claims(); len(claims) != 1 {
				t.Errorf("%d claims left, want 1", len(claims))
			}
		})
	}
}

// Two controllers can be at work for a moment, when a leader is believed dead.
func TestTwoControllersMakeOneReplacement(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{})
	w.controller(migration.Options{})
	w.request(keepingClaim(newMigration(w.namespace, "m", "train")))
	m := w.waitForPhase("m", v1alpha1.PhaseSucceeded)
	if left := w.onlyPod(); left.UID != m.Status.Replacement.UID {
		t.Errorf("the pod left is %s, want the replacement", left.Name)
	}
	w.change(func(w *world) {
		if len(w.made) != 1 || w.lost {
			t.Errorf("%d replacements were made, want 1; without a working pod at some moment: %t", len(w.made), w.lost)
		}
	})
}
