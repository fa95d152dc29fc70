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
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
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

// newNamespace creates a namespace that is removed with the test.
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

// startOn runs a pod on one of the nodes that pods move between, and opens the other
// one to it when it runs: it is free to move.
func startOn(t testing.TB, node string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	label := startOnly(t, node, pod)
	openTo(t, label, env.nodes...)
	return pod
}

// startOnly runs a pod on a node, and returns the label of the nodes that are open to
// it. No other pod is kept from any node by that, as it would be by a cordon.
func startOnly(t testing.TB, node string, pod *corev1.Pod) (label string) {
	t.Helper()
	label = openLabel(pod.Namespace + "." + pod.Name)
	openTo(t, label, node)
	pod.Spec.NodeSelector = map[string]string{label: ""}
	create(t, pod)
	waitRunning(t, pod)
	return label
}

// openLabel is a label of the nodes that are open to some pods.
func openLabel(name string) string { return "e2e.ai-storage/" + name }

// openTo gives nodes a label, which they keep until the test ends.
func openTo(t testing.TB, label string, nodes ...string) {
	t.Helper()
	for _, node := range nodes {
		if err := setLabel(t.Context(), node, label, `""`); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := setLabel(context.WithoutCancel(t.Context()), node, label, "null"); err != nil {
				t.Error(err)
			}
		})
	}
}

func setLabel(ctx context.Context, node, label, value string) error {
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%s}}}`, label, value)
	return env.client.Patch(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, client.RawPatch(types.MergePatchType, patch))
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

// watching reports every event of a watch to see until the test ends. A watch that
// ends before has not seen everything, which fails the test.
func watching(t testing.TB, list client.ObjectList, see func(watch.Event), options ...client.ListOption) {
	t.Helper()
	w, err := env.client.Watch(t.Context(), list, options...)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { w.Stop(); <-done })
	go func() {
		defer close(done)
		for event := range w.ResultChan() {
			if event.Type != watch.Error {
				see(event)
			} else if t.Context().Err() == nil {
				t.Errorf("the watch of %T failed: %+v", list, event.Object)
			}
		}
		// The context of a test ends just before its cleanup.
		if t.Context().Err() == nil {
			t.Errorf("the watch of %T ended before its test did", list)
		}
	}()
}

// watchingPods is watching for pods.
func watchingPods(t testing.TB, see func(watch.EventType, *corev1.Pod), options ...client.ListOption) {
	t.Helper()
	watching(t, &corev1.PodList{}, func(event watch.Event) {
		if pod, isPod := event.Object.(*corev1.Pod); isPod {
			see(event.Type, pod)
		}
	}, options...)
}

func setCordon(t testing.TB, name string, cordoned bool) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	patch := fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, cordoned)
	if err := env.client.Patch(t.Context(), node, client.RawPatch(types.MergePatchType, patch)); err != nil {
		t.Fatal(err)
	}
}
