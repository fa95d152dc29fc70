//go:build e2e

package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
)

// The replacement of a bare pod is deleted when the original has ended: its migration fails,
// and the claim has the only copy. A person recovers the pod, and no record is lost.
func TestTheOnlyCopyIsRecovered(t *testing.T) {
	t.Parallel()
	s := keepOnlyCopy(t)
	code, text := kubectl(t, s.namespace, "migrate", "list", "--kept")
	wantAnswer(t, code, 0, text, faultWriter, "Failed")
	code, text = kubectl(t, s.namespace, "migrate", "recover", s.migration.Name, "--wait")
	wantAnswer(t, code, 0, text, "HandingOver", "Succeeded", "with the state that migration "+s.migration.Name+" had kept", "Restored:")
	awaitProgress(t, s.collector, faultWriter)
	recovered, err := getPod(t.Context(), s.namespace, s.pod.Name)
	if err != nil {
		t.Fatal(err)
	}
	if recovered.UID == s.pod.UID || restarts(recovered) != 0 {
		t.Errorf("pod %s has UID %s and %d restarts", recovered.Name, recovered.UID, restarts(recovered))
	}
	all, err := ledgers(s.collector, false)
	if err != nil {
		t.Fatal(err)
	}
	if l := all[faultWriter]; l.Lost+l.Duplicated+l.Skipped != 0 {
		t.Errorf("%d records lost, %d sent again, %d skipped", l.Lost, l.Duplicated, l.Skipped)
	}
	code, text = kubectl(t, s.namespace, "migrate", "recover", s.migration.Name)
	wantAnswer(t, code, 3, text, decide.ReasonAlreadyRecovered)
}

// What is on the claim is not what was sealed: no pod starts with it, and the claim is
// kept. With what was sealed one does.
func TestACorruptedCheckpointIsNotRestored(t *testing.T) {
	t.Parallel()
	s := keepOnlyCopy(t)
	records := filepath.Join(claimDirectory(t, s.namespace, s.migration.Status.CheckpointClaim), v1alpha1.SealedCopyDirectory, string(s.migration.UID), "volumes", "data", "records")
	flipByte(t, records)
	code, text := kubectl(t, s.namespace, "migrate", "recover", s.migration.Name, "--wait")
	if code == 0 {
		t.Fatalf("the pod was recovered from what was not sealed: %s", text)
	}
	wantAnswer(t, code, code, text, "its content in the sealed copy is not what was written there", "what was carried is kept on claim "+s.migration.Status.CheckpointClaim)
	flipByte(t, records)
	// The failed recovery has the claim now.
	failed, _, _ := strings.Cut(strings.TrimPrefix(text, "podmigration.migration.ai-storage/"), " ")
	code, text = kubectl(t, s.namespace, "migrate", "list", "--kept")
	wantAnswer(t, code, 0, text, failed)
	code, text = kubectl(t, s.namespace, "migrate", "recover", failed, "--wait")
	wantAnswer(t, code, 0, text, "Succeeded")
	wantNothingLost(t, s.collector, faultWriter)
}

// keepOnlyCopy moves a bare pod whose replacement is deleted when the original has ended.
func keepOnlyCopy(t testing.TB) *faultScene {
	t.Helper()
	s := startWriter(t)
	await, proceed := env.breakpoints.armOne(t, s.namespace, faultWriter, "before "+string(decide.RemoveSchedulingGate))
	s.move(t, func(m *v1alpha1.PodMigration) { m.Spec.ForceRestart = true })
	await()
	replacement := &corev1.Pod{}
	replacement.Namespace = s.namespace
	if err := env.client.Get(t.Context(), client.ObjectKeyFromObject(s.migration), s.migration); err != nil {
		t.Fatal(err)
	}
	replacement.Name = s.migration.Status.Replacement.Name
	if err := env.client.Delete(t.Context(), replacement); err != nil {
		t.Fatal(err)
	}
	proceed()
	waitPhase(t, s.migration, 2*time.Minute, v1alpha1.Phase.IsFinished)
	if s.migration.Status.Phase != v1alpha1.PhaseFailed || !meta.IsStatusConditionTrue(s.migration.Status.Conditions, v1alpha1.ConditionCheckpointKept) {
		t.Fatalf("the migration ended %s: %s", s.migration.Status.Phase, s.migration.Status.Message)
	}
	return s
}
