package kubectl

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// keep ends a migration after its original had gone.
func keep(m *v1alpha1.PodMigration) {
	m.Status.Phase, m.Status.Message = v1alpha1.PhaseFailed, "replacement trainer-migrated-1 was deleted by another client after the original had gone; what was carried is kept on claim checkpoint-trainer-1"
	m.Status.Times.Finished = at(9)
	m.Status.Checkpoint.Source.ManifestDigest, m.Status.Checkpoint.Manifest = "sha256:1", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"trainer","uid":"uid-trainer"},"spec":{}}`
	condition(m, v1alpha1.ConditionCheckpointKept, metav1.ConditionTrue, "CheckpointKept", "what was carried is kept on claim checkpoint-trainer-1")
}

func keptClaim(of string) *corev1.PersistentVolumeClaim {
	claim := fixture.MakeClaim("checkpoint-trainer-1", corev1.ReadWriteOnce)
	claim.Labels = map[string]string{v1alpha1.MigrationUIDLabel: of}
	return claim
}

// restore is what the controller does for a recovery.
func restore(m *v1alpha1.PodMigration) {
	place(m)
	handOver(m)
	m.Status.Original, m.Status.Before = &v1alpha1.PodReference{Name: "trainer", UID: "uid-trainer"}, nil
	m.Status.Message = "restoring and verifying the checkpoint on node node-b"
}

func recovered(m *v1alpha1.PodMigration) {
	m.Status.Phase, m.Status.Message = v1alpha1.PhaseSucceeded, "pod trainer runs on node node-b with the state that PodMigration m had kept"
	m.Status.Checkpoint.Restored = v1alpha1.RestoredVolumes
	m.Status.Replacement.Name = "trainer"
	m.Status.Times.Finished = at(8.25)
	m.Status.Downtime = &metav1.Duration{Duration: time.Minute}
}

func TestRecover(t *testing.T) {
	failed := through(asked("m", time.Minute), accept, place, handOver, keep)
	b := newBench(t, node("node-b"), failed, keptClaim("uid-m"), through(asked("fine", time.Hour), accept, place, handOver, succeed))
	golden(t, "recover-dry-run", b.run("recover", "m", "--dry-run"))
	golden(t, "recover-list", b.run("list", "--kept"))
	golden(t, "recover-describe", b.run("describe", "m"))
	golden(t, "recover", b.run("recover", "m", "--to", "node-b", "--keep-claim", "-o", "yaml"))
	made := b.migration("trainer-2").Spec
	if made.RecoverFrom != "m" || made.PodName != "trainer" || made.TargetNode != "node-b" || made.Checkpoint.ReclaimPolicy != v1alpha1.ClaimRetain {
		t.Errorf("requested %+v", made)
	}
}

func TestRecoverWaits(t *testing.T) {
	failed := through(asked("m", time.Minute), accept, place, handOver, keep)
	b := newBench(t, node("node-b"), failed, keptClaim("uid-m"))
	done := b.control("trainer-1", accept, restore, recovered)
	golden(t, "recover-wait", b.run("recover", "podmigration/m", "--wait"))
	<-done
}

func TestRecoverRefused(t *testing.T) {
	failed := through(asked("m", time.Minute), accept, place, handOver, keep)
	owned := through(asked("owned", time.Minute), accept, place, handOver, keep, func(m *v1alpha1.PodMigration) {
		m.Status.Handover.Owner = &metav1.OwnerReference{Kind: "StatefulSet", Name: "trainer"}
		m.Status.CheckpointClaim = "of-owned"
	})
	ofOwned := keptClaim("uid-owned")
	ofOwned.Name = "of-owned"
	taken := through(asked("taken", time.Minute), accept, place, handOver, keep)
	b := newBench(t, failed, owned, taken, keptClaim("uid-m"), ofOwned, trainer().With(func(p *corev1.Pod) { p.UID = "uid-another" }).Obj(), through(asked("fine", time.Hour), accept, place, handOver, succeed))
	for name, args := range map[string][]string{
		"recover-no-such":   {"recover", "none"},
		"recover-none":      {"recover"},
		"recover-fine":      {"recover", "fine"},
		"recover-taken":     {"recover", "taken"},
		"recover-name":      {"recover", "m"},
		"recover-owned":     {"recover", "owned", "--pod", "trainer"},
		"recover-fallback":  {"recover", "m", "--fallback", "Restart"},
		"recover-timeout":   {"recover", "m", "--timeout", "1ms"},
		"recover-bad-print": {"recover", "m", "-o", "table"},
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, b.run(args...)) })
	}
}
