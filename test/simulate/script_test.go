package simulate

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

var updateEnds = flag.Bool("update-ends", false, "write the ends of the scripts to testdata/ends.txt")

// A script is only worth comparing with real nodes when its end does not depend on how
// long things take, nor on what frees a frozen pod.
func TestScriptsEndAlike(t *testing.T) {
	for _, script := range Scripts {
		t.Run(script.String(), func(t *testing.T) {
			t.Parallel()
			first, err := script.Play(1)
			if err != nil {
				t.Fatal(err)
			}
			for seed := uint64(2); seed <= 12; seed++ {
				end, err := script.Play(seed)
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if difference := cmp.Diff(first, end); difference != "" {
					t.Fatalf("-seed 1 +seed %d:\n%s", seed, difference)
				}
			}
		})
	}
}

// How each script ends is written down: a change of it is to be seen in a review.
func TestEndsOfScripts(t *testing.T) {
	const file = "testdata/ends.txt"
	var text strings.Builder
	for _, script := range Scripts {
		end, err := script.Play(1)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "%s\n  %s\n\n", script, strings.ReplaceAll(end.String(), "\n", "\n  "))
	}
	if *updateEnds {
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if difference := cmp.Diff(string(want), text.String()); difference != "" {
		t.Errorf("-%s +now (-update-ends writes it):\n%s", file, difference)
	}
}

// An end tells everything that a migration can leave behind.
func TestAnEndTellsWhatIsLeft(t *testing.T) {
	of := func(role string) corev1.Pod {
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			UID: "other", Labels: map[string]string{v1alpha1.MigrationUIDLabel: "m", v1alpha1.RoleLabel: role},
		}}
	}
	original := corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		UID: "original", Finalizers: []string{"foregroundDeletion", v1alpha1.HoldFinalizer},
		Annotations: map[string]string{v1alpha1.ReleasedAnnotation: "{}", corev1.PodDeletionCost: "-1", v1alpha1.ExcludeAnnotation: "true"},
	}}
	gated := of("")
	gated.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: v1alpha1.WaitForOriginalGate}}
	claim := corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Labels: map[string]string{v1alpha1.MigrationUIDLabel: "m"}, Finalizers: []string{v1alpha1.CheckpointFinalizer},
		OwnerReferences: []metav1.OwnerReference{{Kind: "Pod", UID: "original"}},
	}}
	migration := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{v1alpha1.Finalizer}}}
	got := Objects{
		Original: &original, Migration: migration, Claims: []corev1.PersistentVolumeClaim{claim},
		Pods: []corev1.Pod{original, of(v1alpha1.RolePlaceholder), gated},
	}.End(func(*corev1.Pod) bool { return true }).String()
	for _, want := range []string{
		"finalizers [cleanup]", "original", "finalizers [hold]", "released", "pod-deletion-cost", "placeholder",
		"1 scheduling gates", "checkpoint, owned by the original, finalizers [checkpoint]",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if strings.Contains(got, "exclude") {
		t.Errorf("the annotation of a user counts as left:\n%s", got)
	}
}
