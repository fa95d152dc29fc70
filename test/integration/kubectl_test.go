package integration

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/kubectl"
)

// migrate runs kubectl migrate in a namespace, and returns its exit code and all
// that it wrote.
func migrate(ctx context.Context, t *testing.T, namespace string, args ...string) (code int, text string) {
	t.Helper()
	var out bytes.Buffer
	streams := genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &out}
	args = append([]string{"--kubeconfig=" + kubeconfig(t), "--cache-dir=" + t.TempDir(), "--namespace=" + namespace}, args...)
	return kubectl.Run(ctx, args, streams, func() {}), out.String()
}

func wantAnswer(t *testing.T, code, wantCode int, text string, wants ...string) {
	t.Helper()
	if code != wantCode {
		t.Errorf("exit code %d, want %d:\n%s", code, wantCode, text)
	}
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}

func TestKubectlMovesAPod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{})

	code, text := migrate(t.Context(), t, w.namespace, "pod", "train", "--dry-run")
	wantAnswer(t, code, kubectl.ExitDone, text, "batch       Container   Completed   no", "created (server dry run)")
	if list := w.podMigrations(); len(list) > 0 {
		t.Fatalf("the dry run stored %d migrations", len(list))
	}

	code, text = migrate(t.Context(), t, w.namespace, "pod", "train", "--to="+nodeB, "--wait", "--keep-claim", "--timeout=2m")
	wantAnswer(t, code, kubectl.ExitDone, text, "Preparing", "Placing", "Succeeded", "moved from node node-a to node node-b", "New pod:", "900m (56%)")
	m := w.podMigrations()[0]
	if m.Spec.TargetNode != nodeB || m.Spec.TimeoutSeconds != 120 || m.Spec.Checkpoint.ReclaimPolicy != v1alpha1.ClaimRetain || m.Spec.PodUID == "" {
		t.Errorf("spec %+v", m.Spec)
	}
	code, text = migrate(t.Context(), t, w.namespace, "describe", m.Name)
	wantAnswer(t, code, kubectl.ExitDone, text, "HandingOver", "Events:", "Accepted")
	code, text = migrate(t.Context(), t, w.namespace, "list", "-o", "name")
	wantAnswer(t, code, kubectl.ExitDone, text, "podmigration.migration.ai-storage/"+m.Name)
	code, text = migrate(t.Context(), t, w.namespace, "cancel", m.Name)
	wantAnswer(t, code, kubectl.ExitRefused, text, "it has ended: Succeeded")
	code, text = migrate(t.Context(), t, w.namespace, "pod", "train")
	wantAnswer(t, code, kubectl.ExitError, text, `"train" not found`)
}

func TestKubectlCancels(t *testing.T) {
	t.Parallel()
	w, original := stuck(t)
	code, text := migrate(t.Context(), t, w.namespace, "cancel", "m", "--wait")
	wantAnswer(t, code, kubectl.ExitDone, text, "podmigration.migration.ai-storage/m cancelled", "Cancelled")
	w.wantUntouched(original)
}

// An interrupt ends the waiting alone, and a limit does so with a code of its own.
func TestKubectlStopsWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.change(func(w *world) { w.place = func(*corev1.Pod) string { return "" } })
	w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{})
	code, text := migrate(t.Context(), t, w.namespace, "pod", "train", "--wait", "--wait-timeout=1s")
	wantAnswer(t, code, kubectl.ExitTimedOut, text, "not finished within 1s", "kubectl migrate cancel "+w.podMigrations()[0].Name)
	code, text = migrate(t.Context(), t, w.namespace, "pod", "train")
	wantAnswer(t, code, kubectl.ExitRefused, text, "AlreadyMigrating")
	ctx, interrupt := context.WithTimeout(t.Context(), time.Second)
	defer interrupt()
	code, text = migrate(ctx, t, w.namespace, "list", "--watch")
	wantAnswer(t, code, kubectl.ExitDone, text, "Placing")
}

func TestKubectlPauses(t *testing.T) {
	rebalancerConfig(t) // makes the namespace
	const system = "ai-storage-system"
	t.Cleanup(func() {
		control := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: rebalance.ControlName}}
		if err := client.IgnoreNotFound(k8s.Delete(context.Background(), control)); err != nil {
			t.Error(err)
		}
	})
	code, text := migrate(t.Context(), t, "default", "pause", "--reason=upgrade")
	wantAnswer(t, code, kubectl.ExitDone, text, "rebalancing paused")
	store := &rebalance.StatusStore{Live: k8s, Writer: k8s, Namespace: system}
	pause, err := store.Pause(t.Context())
	if err != nil || !pause.Paused || pause.Reason != "upgrade" || pause.By == "" || pause.Since == nil {
		t.Errorf("pause %+v, error %v", pause, err)
	}
	code, text = migrate(t.Context(), t, "default", "resume")
	wantAnswer(t, code, kubectl.ExitDone, text, "It was paused by "+pause.By+": upgrade.")
	if pause, err = store.Pause(t.Context()); err != nil || pause.Paused {
		t.Errorf("pause %+v, error %v", pause, err)
	}
	code, text = migrate(t.Context(), t, "default", "plan")
	wantAnswer(t, code, kubectl.ExitError, text, "there is no plan yet")
}

func TestKubectlOfAUserWithoutRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createOriginal(threeContainers("train").Obj())
	for _, args := range [][]string{{"pod", "train"}, {"list"}, {"top"}, {"drain", nodeA}, {"plan"}, {"pause"}} {
		code, text := migrate(t.Context(), t, w.namespace, append(args, "--as=nobody")...)
		wantAnswer(t, code, kubectl.ExitError, text, "error:", `User "nobody" cannot`)
	}
	if list := w.podMigrations(); len(list) > 0 {
		t.Errorf("%d migrations were created", len(list))
	}
}

func (w *world) podMigrations() []v1alpha1.PodMigration {
	w.t.Helper()
	list := &v1alpha1.PodMigrationList{}
	w.must(k8s.List(w.t.Context(), list, client.InNamespace(w.namespace)))
	return list.Items
}
