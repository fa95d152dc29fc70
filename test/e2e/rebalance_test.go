//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// A pod on the more utilized node moves without a request, leaves its finished
// container behind, and is served all the time. The loop sees the use of all pods, so no
// other test may run.
func TestRebalancerMovesAPodOffAnOverutilizedNode(t *testing.T) {
	namespace := newNamespace(t)
	overutilized, underutilized := env.nodes[0], env.nodes[1]

	create(t, pinned(newPod(namespace, "ballast", container("burn", 100, "--cpu=450m")), overutilized))
	original := startOn(t, overutilized, newPod(namespace, "training",
		container("prepare", 900, "--for=5s"),
		container("train", 500, "--cpu=500m", "--memory=64Mi"),
		container("report", 200, "--cpu=50m"),
	))
	copies := watchCopies(t, namespace, original.Name)

	migration := awaitMoveByTheLoop(t, namespace)
	printWithKubectl(t, namespace)

	replacement, err := getPod(t.Context(), namespace, migration.Status.Replacement.Name)
	if err != nil {
		t.Fatal(err)
	}
	checkReplacement(t, replacement, migration, underutilized)
	checkBoundByScheduler(t, replacement)
	checkNeverNamedANode(t, replacement)
	copies.check(t, original, replacement)
	checkFreed(t, original, replacement)
	checkMeasured(t, migration)
}

// awaitMoveByTheLoop returns the first migration that the rebalancer made in a
// namespace, when it has succeeded.
func awaitMoveByTheLoop(t testing.TB, namespace string) *v1alpha1.PodMigration {
	t.Helper()
	migration := &v1alpha1.PodMigration{}
	eventually(t, 5*time.Minute, "the rebalancer moves the pod", func(ctx context.Context) error {
		migrations := &v1alpha1.PodMigrationList{}
		if err := env.client.List(ctx, migrations, client.InNamespace(namespace)); err != nil {
			return err
		}
		if len(migrations.Items) == 0 {
			return fmt.Errorf("no migration yet")
		}
		*migration = migrations.Items[0]
		if migration.Status.Phase.IsFinished() {
			return nil
		}
		return fmt.Errorf("migration is %s: %s", migration.Status.Phase, migration.Status.Message)
	})
	if migration.Status.Phase != v1alpha1.PhaseSucceeded {
		t.Fatalf("migration ended %s: %s", migration.Status.Phase, migration.Status.Message)
	}
	return migration
}

// Without a request, what a pod keeps comes along: its scratch volume and, where it was
// started for that, the memory of its processes.
func TestRebalancerMovesWhatAPodKeeps(t *testing.T) {
	needsTime(t)
	requireProcessNodes(t)
	for name, kept := range map[string]struct {
		template   func(name, collector string) corev1.PodTemplateSpec
		restored   v1alpha1.RestoredState
		beginnings int64
	}{
		"volumes": {smallWriterTemplate, v1alpha1.RestoredVolumes, 2},
		"memory":  {processTemplate, v1alpha1.RestoredProcesses, 1},
	} {
		t.Run(name, func(t *testing.T) {
			namespace := newNamespace(t)
			overutilized, underutilized := env.nodes[0], env.nodes[1]
			collector := startCollector(t, namespace)
			create(t, pinned(newPod(namespace, "ballast", container("burn", 100, "--cpu=450m")), overutilized))
			template := kept.template("kept", collector)
			template.Annotations = nil // which keeps the loop away
			template.Spec.Containers = append(template.Spec.Containers, container("train", 500, "--cpu=500m"))
			startOn(t, overutilized, workloadKinds[0].make(namespace, "kept", template).(*corev1.Pod))
			awaitProgress(t, collector, "kept")
			migration := awaitMoveByTheLoop(t, namespace)
			moved := awaitOnly(t, namespace, "kept", time.Minute)
			awaitProgress(t, collector, "kept")
			all, err := ledgers(collector, false)
			if err != nil {
				t.Fatal(err)
			}
			l := all["kept"]
			t.Logf("%s: restored %s, downtime %v, %d records, %d beginnings", migration.Spec.Reason, migration.Status.Checkpoint.Restored, migration.Status.Downtime, l.Last, l.Resumed)
			if moved.Spec.NodeName != underutilized || migration.Status.Checkpoint.Restored != kept.restored || l.Lost+l.Skipped != 0 || l.Resumed != kept.beginnings {
				t.Errorf("node %s, restored %s, %+v", moved.Spec.NodeName, migration.Status.Checkpoint.Restored, l)
			}
		})
	}
}

func checkReplacement(t testing.TB, replacement *corev1.Pod, migration *v1alpha1.PodMigration, node string) {
	t.Helper()
	var names []string
	for _, c := range replacement.Spec.Containers {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, []string{"train", "report"}) {
		t.Errorf("the replacement has containers %v, want train and report", names)
	}
	if replacement.Spec.SchedulerName != "ai-storage-scheduler" {
		t.Errorf("schedulerName is %q", replacement.Spec.SchedulerName)
	}
	if replacement.Spec.NodeName != node {
		t.Errorf("the replacement is on node %q, want %q", replacement.Spec.NodeName, node)
	}
	// It carries nothing, so that no StorageClass is needed, and it can move again.
	if claim := migration.Status.CheckpointClaim; claim != "" || slices.ContainsFunc(replacement.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == v1alpha1.CheckpointVolumeName }) {
		t.Errorf("a pod without state has checkpoint claim %q", claim)
	}
}

// checkBoundByScheduler reads the event that our scheduler left.
func checkBoundByScheduler(t testing.TB, pod *corev1.Pod) {
	t.Helper()
	eventually(t, 20*time.Second, "the scheduler's event", func(ctx context.Context) error {
		events := &eventsv1.EventList{}
		if err := env.client.List(ctx, events, client.InNamespace(pod.Namespace)); err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Regarding.UID == pod.UID && e.Reason == "Scheduled" {
				if e.ReportingController != v1alpha1.SchedulerName {
					t.Fatalf("the pod was bound by %q", e.ReportingController)
				}
				t.Logf("event by %s: %s", e.ReportingController, e.Note)
				return nil
			}
		}
		return fmt.Errorf("no Scheduled event among %d", len(events.Items))
	})
}

// checkFreed proves on the scheduler's own books that the finished container's
// requests are free: a pod that fits only then is placed beside the replacement.
func checkFreed(t testing.TB, original, replacement *corev1.Pod) {
	t.Helper()
	node := &corev1.Node{}
	if err := env.client.Get(t.Context(), client.ObjectKey{Name: replacement.Spec.NodeName}, node); err != nil {
		t.Fatal(err)
	}
	freed := cpuRequests(original) - cpuRequests(replacement)
	if freed != 900 {
		t.Errorf("%dm of CPU requests are freed, want 900m", freed)
	}
	onNode := &corev1.PodList{}
	if err := env.client.List(t.Context(), onNode, client.MatchingFields{"spec.nodeName": node.Name}); err != nil {
		t.Fatal(err)
	}
	rest := node.Status.Allocatable.Cpu().MilliValue()
	for i := range onNode.Items {
		rest -= cpuRequests(&onNode.Items[i])
	}
	filler := pinned(newPod(replacement.Namespace, "filler", container("idle", rest, "--for=1s")), node.Name)
	create(t, filler)
	eventually(t, 30*time.Second, "a pod that needs the freed requests is placed", func(ctx context.Context) error {
		found, err := getPod(ctx, filler.Namespace, filler.Name)
		if err == nil && found.Spec.NodeName == "" {
			err = fmt.Errorf("not placed: %+v", found.Status.Conditions)
		}
		return err
	})
	t.Logf("%dm freed: a pod requesting %dm of node %s's %dm was placed beside the replacement", freed, rest, node.Name, node.Status.Allocatable.Cpu().MilliValue())
}

func cpuRequests(pod *corev1.Pod) (milli int64) {
	for _, c := range pod.Spec.Containers {
		milli += c.Resources.Requests.Cpu().MilliValue()
	}
	return milli
}

func checkMeasured(t testing.TB, migration *v1alpha1.PodMigration) {
	t.Helper()
	for i, record := range []*v1alpha1.ResourceRecord{migration.Status.Before, migration.Status.After} {
		when := []string{"before", "after"}[i]
		if record == nil || record.Source != v1alpha1.UsageFromMetricsAPI || record.Usage.Cpu().IsZero() || record.Usage.Memory().IsZero() {
			t.Errorf("measured use %s: %+v", when, record)
			continue
		}
		t.Logf("%s: requests %s CPU, uses %s CPU and %s memory, measured by %s at %s", when, record.Requests.Cpu(),
			record.Usage.Cpu(), record.Usage.Memory(), record.Source, record.MeasuredAt.UTC().Format(time.TimeOnly))
	}
}
