package migration

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// What is removed after the end of a migration is what it would have made itself, and
// nothing that a user makes of it.
func TestStrays(t *testing.T) {
	end := time.Date(2026, 3, 1, 12, 0, 0, 500e6, time.UTC)
	made := func(name string, after time.Duration) *corev1.Pod {
		pod := fixture.MakePod(name).Label(v1alpha1.MigrationUIDLabel, "m").Container("serve", nil).Obj()
		pod.CreationTimestamp = metav1.NewTime(end.Add(after).Truncate(time.Second))
		return pod
	}
	for name, test := range map[string]struct {
		phase v1alpha1.Phase
		pod   *corev1.Pod
		want  bool
	}{
		"late replacement":                    {v1alpha1.PhaseFailed, made("train-r", time.Minute), true},
		"late replacement of a cancelled one": {v1alpha1.PhaseCancelled, made("train-r", 0), true},
		"late placeholder":                    {v1alpha1.PhaseSucceeded, made("placeholder", time.Minute), true},
		"placeholder half an hour later":      {v1alpha1.PhaseFailed, made("placeholder", 30*time.Minute), true},
		"placeholder hours later":             {v1alpha1.PhaseFailed, made("placeholder", 2*time.Hour), false},
		"by a clock that is behind":           {v1alpha1.PhaseFailed, made("train-r", -20*time.Second), true},
		"the one that is recorded": {v1alpha1.PhaseFailed, func() *corev1.Pod {
			pod := made("placeholder", -time.Minute)
			pod.UID = "uid-of-the-first"
			return pod
		}(), false},
		"created again by a user":               {v1alpha1.PhaseFailed, made("train-r", time.Hour), false},
		"the replacement of one that succeeded": {v1alpha1.PhaseSucceeded, made("train-r", time.Minute), false},
		"another name":                          {v1alpha1.PhaseFailed, made("train-copy", time.Minute), false},
		"while it runs":                         {v1alpha1.PhaseHandingOver, made("train-r", time.Minute), false},
		"another migration": {v1alpha1.PhaseFailed, func() *corev1.Pod {
			pod := made("train-r", time.Minute)
			pod.Labels[v1alpha1.MigrationUIDLabel] = "other"
			return pod
		}(), false},
	} {
		m := in(test.phase)
		m.UID = "m"
		m.Status.Times.Finished = ptr.To(metav1.NewMicroTime(end))
		m.Status.Replacement = &v1alpha1.PodReference{Name: "train-r"}
		m.Status.Placeholder = &v1alpha1.PodReference{Name: "placeholder", UID: "uid-of-the-first"}
		if got := isStray(m, test.pod); got != test.want {
			t.Errorf("%s: stray %t, want %t", name, got, test.want)
		}
	}
}

// A claim that was used, or is kept, has not the record of its migration as an owner.
func TestUnusedClaims(t *testing.T) {
	m := in(v1alpha1.PhaseFailed)
	m.UID = "m"
	claim := fixture.MakeClaim("checkpoint", corev1.ReadWriteOnce)
	claim.Labels = map[string]string{v1alpha1.MigrationUIDLabel: "m"}
	if isUnused(m, claim) {
		t.Error("a claim that is kept counts as unused")
	}
	claim.OwnerReferences = []metav1.OwnerReference{{Kind: "PodMigration", Name: "m", UID: "m"}}
	if !isUnused(m, claim) {
		t.Error("a claim that goes with the record is kept")
	}
	if m.Status.Phase = v1alpha1.PhaseHandingOver; isUnused(m, claim) {
		t.Error("a claim counts as unused while its migration runs")
	}
}
