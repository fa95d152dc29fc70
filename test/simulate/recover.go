package simulate

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// A user looks for kept claims as often as that, and recovers from each: where that fails,
// from what the recovery has kept, up to so often.
const (
	recoverInterval = 20 * time.Second
	maxRecoveries   = 3
	recoverPrefix   = "recover-"
)

// recoverAll lets a user recover what failed migrations have kept. It draws nothing, so
// that it changes no seed in which nothing is kept. In a script nobody does.
func (w *world) recoverAll() {
	w.after(recoverInterval, w.recoverAll)
	if w.now > w.recoverUntil || w.player != nil {
		return
	}
	var kept []*v1alpha1.PodMigration
	each(w.store, migrations, func(m *v1alpha1.PodMigration) {
		if m.Status.Phase.IsFinished() && m.KeepsOnlyCopy() {
			kept = append(kept, m)
		}
	})
	for _, m := range kept {
		name := recoverPrefix + m.Name
		if strings.Count(name, recoverPrefix) > maxRecoveries || lookup[*v1alpha1.PodMigration](w.store, migrations, m.Namespace, name) != nil {
			continue
		}
		pod := m.Status.Original.Name
		if w.scenario.owner != bare || lookup[*corev1.Pod](w.store, pods, m.Namespace, pod) != nil {
			pod = "recovered-" + m.Name
		}
		recovery := &v1alpha1.PodMigration{
			ObjectMeta: metav1.ObjectMeta{Namespace: m.Namespace, Name: name},
			Spec: v1alpha1.PodMigrationSpec{
				PodName: pod, RecoverFrom: m.Name, TimeoutSeconds: 60, Waiting: v1alpha1.WaitingStrip, TTLSecondsAfterFinished: ptr.To(int32(3600)),
				Checkpoint: v1alpha1.CheckpointSpec{Mode: v1alpha1.CheckpointFrozen, ReclaimPolicy: m.Spec.Checkpoint.ReclaimPolicy},
			},
		}
		w.as(userActor, func() { _ = w.create(recovery, false) })
	}
}

// recovered is called when a recovery has succeeded: its pod has what was sealed.
func (c *checker) recovered(m *v1alpha1.PodMigration) {
	var on *copied
	claim := lookup[*corev1.PersistentVolumeClaim](c.w.store, claims, m.Namespace, m.Status.CheckpointClaim)
	if claim != nil {
		on = c.w.work.copyOf(claim.UID, m.CheckpointUID())
	}
	i := c.w.instance(m.Status.Replacement.UID)
	if on == nil || i == nil {
		return // a user has deleted it since
	}
	i.settle()
	if !on.isSealed() || i.volume < on.work {
		c.violated(NothingLost, "PodMigration %s has recovered pod %s with work %d, and claim %s has %d", m.Name, i.name, i.volume, claim.Name, on.work)
	}
}
