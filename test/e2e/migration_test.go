//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// A destination without room: the scheduler's reason is reported, the original
// runs on, and nothing is left behind. Its neighbour fills the destination, so no other
// test may run.
func TestADestinationWithoutRoomKeepsTheOriginal(t *testing.T) {
	namespace := newNamespace(t)
	from, to := env.nodes[0], env.nodes[1]
	create(t, pinned(newPod(namespace, "neighbour", container("idle", 1500)), to))
	original := startOn(t, from, excluded(newPod(namespace, "training", container("train", 800, "--cpu=50m"))))

	migration := migrate(t, original, func(m *v1alpha1.PodMigration) { m.Spec.TargetNode = to })
	waitPhase(t, migration, 2*time.Minute, v1alpha1.Phase.IsFinished)
	if migration.Status.Phase != v1alpha1.PhaseFailed || !strings.Contains(migration.Status.Message, "Insufficient cpu") {
		t.Errorf("migration ended %s: %q, want Failed with the scheduler's reason", migration.Status.Phase, migration.Status.Message)
	}
	t.Logf("%s: %s", migration.Status.Phase, migration.Status.Message)
	printWithKubectl(t, namespace)

	found, err := getPod(t.Context(), namespace, original.Name)
	if err != nil {
		t.Fatal(err)
	}
	if found.UID != original.UID || found.Status.Phase != corev1.PodRunning || found.DeletionTimestamp != nil || restarts(found) != 0 {
		t.Errorf("the original did not run on untouched: %s, %d restarts", found.Status.Phase, restarts(found))
	}
	eventually(t, 30*time.Second, "replacement and claim are removed", func(ctx context.Context) error {
		_, err := getPod(ctx, namespace, migration.Status.Replacement.Name)
		if err := wantGone(err, "the replacement"); err != nil {
			return err
		}
		return wantNoClaims(ctx, namespace)
	})
}

// A rebalancer that is killed in the middle: its successor finishes the migration,
// and one copy of the pod is left.
func TestAKilledRebalancerHasASuccessor(t *testing.T) {
	needsTime(t) // the crash matrix kills it in every run
	for _, phase := range []v1alpha1.Phase{v1alpha1.PhasePlacing, v1alpha1.PhaseHandingOver} {
		t.Run(string(phase), func(t *testing.T) {
			namespace := newNamespace(t)
			original := startOn(t, env.nodes[0], excluded(newPod(namespace, "training",
				container("prepare", 100, "--for=1s"), container("train", 200, "--cpu=50m"))))
			waitCompleted(t, original, "prepare")

			migration := migrate(t, original, nil)
			waitPhase(t, migration, time.Minute, func(p v1alpha1.Phase) bool {
				if p.IsFinished() {
					t.Fatalf("migration ended %s before it could be interrupted: %s", p, migration.Status.Message)
				}
				return p == phase
			})
			if err := env.cluster.KillComponent("rebalancer"); err != nil {
				t.Fatal(err)
			}
			t.Logf("rebalancer killed while the migration was %s", migration.Status.Phase)
			if err := startRebalancer(); err != nil {
				t.Fatal(err)
			}
			waitPhase(t, migration, 4*time.Minute, v1alpha1.Phase.IsFinished)
			if migration.Status.Phase != v1alpha1.PhaseSucceeded {
				t.Fatalf("migration ended %s: %s", migration.Status.Phase, migration.Status.Message)
			}
			wantOneCopy(t, migration)
		})
	}
}

func wantOneCopy(t testing.TB, migration *v1alpha1.PodMigration) {
	t.Helper()
	pods := &corev1.PodList{}
	if err := env.client.List(t.Context(), pods, client.InNamespace(migration.Namespace)); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, pod := range pods.Items {
		names = append(names, pod.Name)
	}
	if !slices.Equal(names, []string{migration.Status.Replacement.Name}) {
		t.Errorf("pods are %v, want the replacement alone", names)
	}
	t.Logf("migration %s, pods: %v", migration.Status.Phase, names)
}

// excluded keeps the loop away from a pod that a test moves itself.
func excluded(pod *corev1.Pod) *corev1.Pod {
	pod.Annotations = map[string]string{v1alpha1.ExcludeAnnotation: "true"}
	return pod
}

func migrate(t testing.TB, pod *corev1.Pod, change func(*v1alpha1.PodMigration)) *v1alpha1.PodMigration {
	t.Helper()
	migration := &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		Spec:       v1alpha1.PodMigrationSpec{PodName: pod.Name},
	}
	if change != nil {
		change(migration)
	}
	create(t, migration)
	return migration
}

func waitPhase(t testing.TB, migration *v1alpha1.PodMigration, within time.Duration, reached func(v1alpha1.Phase) bool) {
	t.Helper()
	eventually(t, within, "the migration continues", func(ctx context.Context) error {
		if err := env.client.Get(ctx, client.ObjectKeyFromObject(migration), migration); err != nil {
			return err
		}
		if !reached(migration.Status.Phase) {
			return fmt.Errorf("it is %s: %s", migration.Status.Phase, migration.Status.Message)
		}
		return nil
	})
}

func waitCompleted(t testing.TB, pod *corev1.Pod, container string) {
	t.Helper()
	waitCompletedWithin(t, pod, container, time.Minute)
}

func waitCompletedWithin(t testing.TB, pod *corev1.Pod, container string, within time.Duration) {
	t.Helper()
	eventually(t, within, "container "+container+" finishes", func(ctx context.Context) error {
		found, err := getPod(ctx, pod.Namespace, pod.Name)
		if err != nil {
			return err
		}
		for _, c := range found.Status.ContainerStatuses {
			if c.Name == container && c.State.Terminated != nil {
				return nil
			}
		}
		return fmt.Errorf("containers %+v", found.Status.ContainerStatuses)
	})
}

func wantNoClaims(ctx context.Context, namespace string) error {
	claims := &corev1.PersistentVolumeClaimList{}
	if err := env.client.List(ctx, claims, client.InNamespace(namespace)); err != nil {
		return err
	}
	if len(claims.Items) > 0 {
		return fmt.Errorf("claim %s is still there", claims.Items[0].Name)
	}
	return nil
}

func restarts(pod *corev1.Pod) (n int32) {
	for _, c := range pod.Status.ContainerStatuses {
		n += c.RestartCount
	}
	return n
}

// printWithKubectl shows what a person sees.
func printWithKubectl(t testing.TB, namespace string) {
	t.Helper()
	kubectl := filepath.Join("..", "..", "bin", "kubectl")
	out, err := exec.CommandContext(t.Context(), kubectl, "--kubeconfig", env.cluster.AdminKubeconfig(),
		"--namespace", namespace, "get", "podmigrations").CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl get podmigrations: %v\n%s", err, out)
	}
	t.Logf("$ kubectl get podmigrations\n%s", out)
}
