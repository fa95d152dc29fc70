//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster/image"
)

// observerTaint keeps pods off the observer.
const observerTaint = "e2e.ai-storage/observer"

// prepareNodes learns the names of the nodes and sets the observer apart.
func prepareNodes(ctx context.Context) error {
	nodes := &corev1.NodeList{}
	if err := env.client.List(ctx, nodes); err != nil {
		return err
	}
	slices.SortFunc(nodes.Items, func(a, b corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	if len(nodes.Items) != 3 {
		return fmt.Errorf("the cluster has %d nodes, want three", len(nodes.Items))
	}
	env.nodes, env.observer = []string{nodes.Items[0].Name, nodes.Items[1].Name}, nodes.Items[2].Name
	observer := &nodes.Items[2]
	base := observer.DeepCopy()
	observer.Spec.Taints = append(observer.Spec.Taints, corev1.Taint{Key: observerTaint, Effect: corev1.TaintEffectNoSchedule})
	return env.client.Patch(ctx, observer, client.MergeFrom(base))
}

// newNamespace makes a namespace that goes with the test.
func newNamespace(t testing.TB) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}}
	if err := env.client.Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeNamespace(t, namespace.Name) })
	return namespace.Name
}

// removeNamespace deletes a namespace, unless it is gone, and returns when its pods are.
func removeNamespace(t testing.TB, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if t.Failed() {
		dump(ctx, t, name)
	}
	if err := env.client.DeleteAllOf(ctx, &v1alpha1.PodMigration{}, client.InNamespace(name)); err != nil {
		t.Error(err)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := client.IgnoreNotFound(env.client.Delete(ctx, namespace)); err != nil {
		t.Error(err)
	}
	pods := &corev1.PodList{}
	for {
		if err := env.client.List(ctx, pods, client.InNamespace(name)); err != nil {
			t.Error(err)
			return
		}
		if len(pods.Items) == 0 {
			return
		}
		if !pause(ctx) {
			t.Errorf("%d pods are left in namespace %s", len(pods.Items), name)
			return
		}
	}
}

// dump prints what a person would look at first.
func dump(ctx context.Context, t testing.TB, namespace string) {
	migrations := &v1alpha1.PodMigrationList{}
	if err := env.client.List(ctx, migrations, client.InNamespace(namespace)); err == nil {
		for _, m := range migrations.Items {
			t.Logf("migration %s of pod %s: %s: %s", m.Name, m.Spec.PodName, m.Status.Phase, m.Status.Message)
			for _, c := range m.Status.Conditions {
				t.Logf("  %s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message)
			}
		}
	}
	pods := &corev1.PodList{}
	if err := env.client.List(ctx, pods, client.InNamespace(namespace)); err == nil {
		for _, p := range pods.Items {
			t.Logf("pod %s on node %q: %s", p.Name, p.Spec.NodeName, p.Status.Phase)
			for _, c := range p.Status.ContainerStatuses {
				t.Logf("  container %s: %+v", c.Name, c.State)
			}
		}
	}
	t.Logf("rebalancer log:\n%s", env.cluster.LogTail("rebalancer", 40))
	t.Logf("scheduler log:\n%s", env.cluster.LogTail("scheduler", 20))
}

// pause waits for the next look; false when the time is up.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(200 * time.Millisecond):
		return true
	}
}

// eventually looks until check is satisfied; what it returns otherwise is the
// reason of the failure.
func eventually(t testing.TB, within time.Duration, what string, check func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	var err error
	for {
		if err = check(ctx); err == nil {
			return
		}
		if !pause(ctx) {
			t.Fatalf("%s: not within %s: %v", what, within, err)
		}
	}
}

func getPod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	return pod, env.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, pod)
}

func wantGone(err error, what string) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%s is still there", what)
}

// container runs the workload program with the given arguments.
func container(name string, milliCPU int64, args ...string) corev1.Container {
	return corev1.Container{
		Name:  name,
		Image: image.WorkloadReference,
		Args:  append([]string{"run"}, args...),
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewMilliQuantity(milliCPU, resource.DecimalSI),
			corev1.ResourceMemory: resource.MustParse("32Mi"),
		}},
	}
}

func newPod(namespace, name string, containers ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			SchedulerName:                 v1alpha1.SchedulerName,
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: new(int64(5)),
			Containers:                    containers,
		},
	}
}

// pinned keeps a pod on a node and out of the loop's reach.
func pinned(pod *corev1.Pod, node string) *corev1.Pod {
	pod.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
	pod.Annotations = map[string]string{v1alpha1.ExcludeAnnotation: "true"}
	return pod
}

// startOn creates a pod while only one node is open, and waits until it runs.
// The pod itself asks for no node, so it is free to move.
func startOn(t testing.TB, node string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	for _, other := range env.nodes {
		if other != node {
			setCordon(t, other, true)
			defer setCordon(t, other, false)
		}
	}
	create(t, pod)
	waitRunning(t, pod)
	return pod
}

func create(t testing.TB, object client.Object) {
	t.Helper()
	if err := env.client.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

// waitReady waits until a pod is Ready.
func waitReady(t testing.TB, pod *corev1.Pod, within time.Duration) {
	t.Helper()
	eventually(t, within, "pod "+pod.Name+" is Ready", func(ctx context.Context) error {
		found, err := getPod(ctx, pod.Namespace, pod.Name)
		if err == nil && !isReady(found) {
			err = fmt.Errorf("it is %s", found.Status.Phase)
		}
		return err
	})
}

func waitRunning(t testing.TB, pod *corev1.Pod) {
	t.Helper()
	eventually(t, time.Minute, "pod "+pod.Name+" runs", func(ctx context.Context) error {
		found, err := getPod(ctx, pod.Namespace, pod.Name)
		if err != nil {
			return err
		}
		if found.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("pod is %s", found.Status.Phase)
		}
		*pod = *found
		return nil
	})
}

func setCordon(t testing.TB, name string, cordoned bool) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	patch := fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, cordoned)
	if err := env.client.Patch(t.Context(), node, client.RawPatch("application/merge-patch+json", patch)); err != nil {
		t.Fatal(err)
	}
}
