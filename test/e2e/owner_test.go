//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster"
)

// workloadLabel names the workload that a pod belongs to.
const workloadLabel = "e2e-workload"

// workloadKind makes the owner of one pod; pod itself where there is none.
type workloadKind struct {
	name string
	make func(namespace, name string, template corev1.PodTemplateSpec) client.Object
}

var workloadKinds = []workloadKind{
	{"bare pod", func(namespace, name string, template corev1.PodTemplateSpec) client.Object {
		pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
		pod.Namespace, pod.Name = namespace, name
		return pod
	}},
	{"Deployment", func(namespace, name string, template corev1.PodTemplateSpec) client.Object {
		return newDeployment(namespace, name, 1, template)
	}},
	{"Job", func(namespace, name string, template corev1.PodTemplateSpec) client.Object {
		return &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec:       batchv1.JobSpec{BackoffLimit: new(int32(0)), Template: template},
		}
	}},
	{"StatefulSet", func(namespace, name string, template corev1.PodTemplateSpec) client.Object {
		template.Spec.RestartPolicy = corev1.RestartPolicyAlways
		return &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec:       appsv1.StatefulSetSpec{Selector: selecting(name), Replicas: new(int32(1)), Template: template},
		}
	}},
}

func newDeployment(namespace, name string, replicas int32, template corev1.PodTemplateSpec) *appsv1.Deployment {
	template.Spec.RestartPolicy = corev1.RestartPolicyAlways
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       appsv1.DeploymentSpec{Selector: selecting(name), Replicas: &replicas, Template: template},
	}
}

func selecting(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{workloadLabel: name}}
}

// templateOf is a pod of a workload, out of the loop's reach.
func templateOf(name string, spec corev1.PodSpec) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{
			Labels:      map[string]string{workloadLabel: name},
			Annotations: map[string]string{v1alpha1.ExcludeAnnotation: "true"},
		},
		Spec: spec,
	}
}

// podsOf lists the pods of a workload that are not about to end.
func podsOf(ctx context.Context, namespace, name string) ([]corev1.Pod, error) {
	list := &corev1.PodList{}
	if err := env.client.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels{workloadLabel: name}); err != nil {
		return nil, err
	}
	var pods []corev1.Pod
	for _, pod := range list.Items {
		if pod.DeletionTimestamp == nil {
			pods = append(pods, pod)
		}
	}
	return pods, nil
}

// awaitOnly waits until a workload has one pod, which is Ready.
func awaitOnly(t testing.TB, namespace, name string, within time.Duration) *corev1.Pod {
	t.Helper()
	return &awaitReady(t, namespace, name, 1, within)[0]
}

// awaitReady waits until a workload has that many pods, all Ready.
func awaitReady(t testing.TB, namespace, name string, count int, within time.Duration) []corev1.Pod {
	t.Helper()
	return awaitPods(t, namespace, name, count, within, "Ready", isReady)
}

// awaitRunning waits until a workload has that many pods, all Running. To
// Kubernetes a pod is not Ready of which a container has finished.
func awaitRunning(t testing.TB, namespace, name string, count int, within time.Duration) []corev1.Pod {
	t.Helper()
	return awaitPods(t, namespace, name, count, within, "Running", func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodRunning })
}

func awaitPods(t testing.TB, namespace, name string, count int, within time.Duration, state string, is func(*corev1.Pod) bool) (pods []corev1.Pod) {
	t.Helper()
	eventually(t, within, fmt.Sprintf("%s has %d pods that are %s", name, count, state), func(ctx context.Context) (err error) {
		if pods, err = podsOf(ctx, namespace, name); err != nil {
			return err
		}
		there := 0
		for i := range pods {
			if is(&pods[i]) {
				there++
			}
		}
		if there != count || len(pods) != count {
			return fmt.Errorf("there are %d, %d of them %s", len(pods), there, state)
		}
		return nil
	})
	return pods
}

// otherNode is the one of the two nodes that a pod is not on.
func otherNode(pod *corev1.Pod) string {
	if pod.Spec.NodeName == env.nodes[0] {
		return env.nodes[1]
	}
	return env.nodes[0]
}

// wantSucceeded waits for the end of a migration and wants it to have succeeded.
func wantSucceeded(t testing.TB, migration *v1alpha1.PodMigration, within time.Duration) {
	t.Helper()
	waitPhase(t, migration, within, v1alpha1.Phase.IsFinished)
	if migration.Status.Phase != v1alpha1.PhaseSucceeded {
		t.Fatalf("migration %s ended %s: %s", migration.Name, migration.Status.Phase, migration.Status.Message)
	}
}

// noChange leaves a migration as it is.
func noChange(*v1alpha1.PodMigration) {}

// withClaim asks for a checkpoint claim on a volume that is attached to one node at a
// time.
func withClaim(m *v1alpha1.PodMigration) {
	m.Spec.Checkpoint.Claim, m.Spec.Checkpoint.StorageClassName = v1alpha1.ClaimAlways, new(devcluster.CSIClass)
}

// stopFirst makes the original end before its replacement starts. What it keeps is on a
// claim between the two.
func stopFirst(m *v1alpha1.PodMigration) {
	m.Spec.ForceRestart, m.Spec.Checkpoint.StorageClassName = true, new(devcluster.CSIClass)
}
