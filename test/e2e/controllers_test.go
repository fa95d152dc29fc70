//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// An indexed Job that may not fail once: each of its three indexes moves once,
// continues with the work it had done, and runs no finished container again.
func TestAnIndexedJobMovesWithoutAFailure(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	collector := startCollector(t, namespace)
	const name, indexes = "training", 3
	create(t, &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: batchv1.JobSpec{
			BackoffLimit: new(int32(0)), Parallelism: new(int32(indexes)), Completions: new(int32(indexes)),
			CompletionMode: new(batchv1.IndexedCompletion), Template: templateOf(name, trainingSpec(collector)),
		},
	})
	prepared := watchStarts(t, namespace, name, "prepare")
	originals := awaitRunning(t, namespace, name, indexes, 2*time.Minute)
	const progress = "/state/progress"
	var migrations []*v1alpha1.PodMigration
	var before []time.Duration
	for i := range originals {
		waitCompleted(t, &originals[i], "prepare")
		before = append(before, awaitWork(t, &originals[i], progress))
		migrations = append(migrations, migrate(t, &originals[i], nil))
	}
	for i, m := range migrations {
		wantSucceeded(t, m, 5*time.Minute)
		replacement, err := getPod(t.Context(), namespace, m.Status.Replacement.Name)
		if err != nil {
			t.Fatal(err)
		}
		wantCarried(t, replacement, "work", progress, before[i])
		t.Logf("%s: %s → %s by %s, downtime %v", m.Name, m.Status.Original.NodeName, m.Status.Replacement.NodeName, m.Status.Handover.Method, m.Status.Downtime)
	}
	tellFinish(t, collector)
	job := &batchv1.Job{}
	eventually(t, time.Minute, "the Job completes", func(ctx context.Context) error {
		if err := env.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, job); err != nil {
			return err
		}
		if job.Status.Succeeded != indexes || job.Status.CompletionTime == nil {
			return fmt.Errorf("%d succeeded, %d failed, %d active", job.Status.Succeeded, job.Status.Failed, job.Status.Active)
		}
		return nil
	})
	starts := prepared()
	t.Logf("Job: succeeded %d, failed %d, completed indexes %s; container prepare started in pods %v", job.Status.Succeeded, job.Status.Failed, job.Status.CompletedIndexes, starts)
	if job.Status.Failed != 0 || job.Status.CompletedIndexes != "0-2" {
		t.Errorf("the Job has %d failures and completed indexes %q", job.Status.Failed, job.Status.CompletedIndexes)
	}
	if len(starts) != indexes {
		t.Errorf("container prepare ran in %d pods, want once for each of %d indexes", len(starts), indexes)
	}
}

// trainingSpec prepares for a second, then works until the collector says that it
// is done, and keeps on an emptyDir how long it has.
func trainingSpec(collector string) corev1.PodSpec {
	prepare := container("prepare", 100, "--for=1s")
	work := container("work", 50, "--until="+collector+"/finished", "--write=/state/progress")
	work.VolumeMounts = []corev1.VolumeMount{{Name: "state", MountPath: "/state"}}
	return corev1.PodSpec{
		SchedulerName: v1alpha1.SchedulerName, RestartPolicy: corev1.RestartPolicyNever,
		TerminationGracePeriodSeconds: new(int64(5)), Containers: []corev1.Container{prepare, work},
		Volumes: []corev1.Volume{{Name: "state", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
	}
}

// watchStarts records the pods of a workload in which a container has started.
func watchStarts(t testing.TB, namespace, name, container string) (pods func() []string) {
	t.Helper()
	var mu sync.Mutex
	started := map[string]bool{}
	watchingPods(t, func(_ watch.EventType, pod *corev1.Pod) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range pod.Status.ContainerStatuses {
			if c.Name == container && c.ContainerID != "" {
				started[pod.Name] = true
			}
		}
	}, client.InNamespace(namespace), client.MatchingLabels{workloadLabel: name})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		var names []string
		for name := range started {
			names = append(names, name)
		}
		slices.Sort(names)
		return names
	}
}

// A pod of a StatefulSet keeps its name, its ordinal, its claims and what is on them,
// and never runs twice; the other pod is not touched.
func TestAStatefulSetKeepsItsIdentity(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	const name = "database"
	c := container("server", 50, "--write=/data/progress", "--http=:8080")
	c.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	create(t, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: appsv1.StatefulSetSpec{
			Selector: selecting(name), Replicas: new(int32(2)),
			Template: templateOf(name, corev1.PodSpec{
				SchedulerName: v1alpha1.SchedulerName, TerminationGracePeriodSeconds: new(int64(5)), Containers: []corev1.Container{c},
			}),
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{
				ObjectMeta: metav1.ObjectMeta{Name: "data"},
				Spec: corev1.PersistentVolumeClaimSpec{
					AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
					Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("64Mi")}},
				},
			}},
		},
	})
	pods := awaitReady(t, namespace, name, 2, 2*time.Minute)
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	original, other := pods[1], pods[0]
	twice := watchIdentities(t, namespace, name)

	before := awaitWork(t, &original, "/data/progress")
	migration := migrate(t, &original, nil)
	wantSucceeded(t, migration, 4*time.Minute)
	after := awaitReady(t, namespace, name, 2, time.Minute)
	for _, pod := range after {
		switch pod.Name {
		case other.Name:
			if pod.UID != other.UID || restarts(&pod) != 0 {
				t.Errorf("pod %s was touched", pod.Name)
			}
		case original.Name:
			if pod.UID == original.UID || pod.Spec.NodeName == original.Spec.NodeName {
				t.Errorf("pod %s did not move", pod.Name)
			}
			wantCarried(t, &pod, "server", "/data/progress", before)
			if got, want := claimsOf(&pod), claimsOf(&original); !slices.Contains(got, want[0]) {
				t.Errorf("pod %s has claims %v, want %v", pod.Name, got, want)
			}
			t.Logf("%s: %s → %s by %s, claims %v, ordinal %s, downtime %v", pod.Name, original.Spec.NodeName, pod.Spec.NodeName,
				migration.Status.Handover.Method, claimsOf(&pod), pod.Labels[appsv1.PodIndexLabel], migration.Status.Downtime)
		default:
			t.Errorf("pod %s is no pod of the StatefulSet", pod.Name)
		}
	}
	if both := twice(); len(both) > 0 {
		t.Errorf("these ran twice at a moment: %v", both)
	}
}

func claimsOf(pod *corev1.Pod) (names []string) {
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil && v.Name != v1alpha1.CheckpointVolumeName {
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		}
	}
	return names
}

// watchIdentities finds pods of one name whose containers run at the same time.
func watchIdentities(t testing.TB, namespace, name string) (twice func() []string) {
	t.Helper()
	var mu sync.Mutex
	running := map[string]map[types.UID]bool{}
	var found []string
	watchingPods(t, func(event watch.EventType, pod *corev1.Pod) {
		mu.Lock()
		defer mu.Unlock()
		if running[pod.Name] == nil {
			running[pod.Name] = map[types.UID]bool{}
		}
		delete(running[pod.Name], pod.UID)
		if event != watch.Deleted && slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.State.Running != nil }) {
			running[pod.Name][pod.UID] = true
		}
		if len(running[pod.Name]) > 1 {
			found = append(found, pod.Name)
		}
	}, client.InNamespace(namespace), client.MatchingLabels{workloadLabel: name})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return found
	}
}
