package integration

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// world is a namespace in which the test is scheduler and kubelet: the API
// server runs alone.
type world struct {
	t         *testing.T
	namespace string
	mu        sync.Mutex
	// place names the node for a pod without one; nil finds no place, and an
	// empty name has not looked yet.
	place    func(*corev1.Pod) string
	start    func(*corev1.Pod)  // writes the status of a bound pod that has just come
	refusal  string             // why the scheduler finds no place
	holdPods bool               // deleted pods do not end
	made     map[types.UID]bool // replacements ever seen
	lost     bool               // at some moment no working pod was there
}

const (
	nodeA = "node-a"
	nodeB = "node-b"
)

// newWorld starts the scheduler and the kubelets of a namespace of its own.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, namespace: newNamespace(t), start: running, made: map[types.UID]bool{}}
	w.place = func(*corev1.Pod) string { return nodeB }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			w.play(ctx)
			time.Sleep(10 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// change alters how the world behaves.
func (w *world) change(f func(*world)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w)
}

// play is one round of the scheduler and of the kubelets.
func (w *world) play(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := &corev1.PodList{}
	if err := k8s.List(ctx, list, client.InNamespace(w.namespace)); err != nil {
		return
	}
	w.observe(list.Items)
	for i := range list.Items {
		if err := w.playPod(ctx, &list.Items[i]); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			w.t.Errorf("playing pod %s: %v", list.Items[i].Name, err)
		}
	}
}

// observe keeps what the tests check about all moments, not only the last.
func (w *world) observe(pods []corev1.Pod) {
	working := 0
	for _, pod := range pods {
		if pod.Labels[v1alpha1.MigrationUIDLabel] != "" {
			w.made[pod.UID] = true
		}
		if pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning {
			working++
		}
	}
	w.lost = w.lost || len(pods) > 0 && working == 0
}

func (w *world) playPod(ctx context.Context, pod *corev1.Pod) error {
	switch {
	case pod.DeletionTimestamp != nil:
		if w.holdPods {
			return nil
		}
		return k8s.Delete(ctx, pod, client.GracePeriodSeconds(0), client.Preconditions{UID: ptr.To(pod.UID)})
	case pod.Spec.NodeName == "" && w.place == nil:
		return w.unschedulable(ctx, pod)
	case pod.Spec.NodeName == "":
		if pod.Spec.SchedulerName != v1alpha1.SchedulerName {
			return fmt.Errorf("schedulerName is %q", pod.Spec.SchedulerName)
		}
		node := w.place(pod)
		if node == "" {
			return nil
		}
		binding := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node}}
		return k8s.SubResource("binding").Create(ctx, pod, binding)
	case pod.Status.Phase == corev1.PodPending && len(pod.Status.ContainerStatuses) == 0:
		w.start(pod)
		return k8s.Status().Update(ctx, pod)
	}
	return nil
}

func (w *world) unschedulable(ctx context.Context, pod *corev1.Pod) error {
	if len(pod.Status.Conditions) > 0 {
		return nil
	}
	pod.Status.Conditions = []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
		Message: w.refusal, LastTransitionTime: metav1.Now(),
	}}
	return k8s.Status().Update(ctx, pod)
}

// running lets every container of a pod run and be ready.
func running(pod *corev1.Pod) {
	now := metav1.Now()
	pod.Status.Phase, pod.Status.StartTime = corev1.PodRunning, &now
	for _, c := range pod.Spec.Containers {
		status := fixture.Running()
		status.Name = c.Name
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, *status)
	}
	for _, c := range pod.Spec.InitContainers {
		status := fixture.Exited(0)
		if c.RestartPolicy != nil {
			status = fixture.Running()
		}
		status.Name = c.Name
		pod.Status.InitContainerStatuses = append(pod.Status.InitContainerStatuses, *status)
	}
	setReady(pod, true)
}

func setReady(pod *corev1.Pod, ready bool) {
	for _, kind := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodReady} {
		status := corev1.ConditionTrue
		if kind == corev1.PodReady && !ready {
			status = corev1.ConditionFalse
		}
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: metav1.Now()})
	}
}

// createOriginal creates a pod on its node, with the status that it was built with.
func (w *world) createOriginal(pod *corev1.Pod) *corev1.Pod {
	w.t.Helper()
	// The kubelet must not write a status of its own before the test's.
	w.mu.Lock()
	defer w.mu.Unlock()
	status := pod.Status
	pod = pod.DeepCopy()
	pod.Namespace, pod.UID = w.namespace, ""
	w.must(k8s.Create(w.t.Context(), pod))
	now := metav1.Now()
	status.StartTime = &now
	pod.Status = status
	w.must(k8s.Status().Update(w.t.Context(), pod))
	return pod
}

// threeContainers is the pod of the comparison that this project started from:
// one of three containers has finished.
func threeContainers(name string) *fixture.PodBuilder {
	return fixture.MakePod(name).RestartPolicy(corev1.RestartPolicyNever).Node(nodeA).Ready(false).
		Container("batch", fixture.Exited(0), fixture.Requests("900m", "64Mi")).
		Container("serve", fixture.Running(), fixture.Requests("500m", "64Mi")).
		Container("log", fixture.Running(), fixture.Requests("200m", "64Mi"))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) request(m *v1alpha1.PodMigration) *v1alpha1.PodMigration {
	w.t.Helper()
	w.must(k8s.Create(w.t.Context(), m))
	return m
}

// waitFor polls a migration until check is content.
func (w *world) waitFor(name string, check func(*v1alpha1.PodMigration) bool) *v1alpha1.PodMigration {
	w.t.Helper()
	m := &v1alpha1.PodMigration{}
	eventually(w.t, 30*time.Second, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: name}, m); err != nil {
			return err
		}
		if !check(m) {
			return fmt.Errorf("phase %q: %s %+v", m.Status.Phase, m.Status.Message, m.Status.Conditions)
		}
		return nil
	})
	return m
}

func (w *world) waitForPhase(name string, phase v1alpha1.Phase) *v1alpha1.PodMigration {
	w.t.Helper()
	return w.waitFor(name, func(m *v1alpha1.PodMigration) bool { return m.Status.Phase == phase })
}

// waitForEnd waits until a migration is final.
func (w *world) waitForEnd(name string) *v1alpha1.PodMigration {
	w.t.Helper()
	return w.waitFor(name, func(m *v1alpha1.PodMigration) bool { return m.Status.Phase.IsFinished() })
}

func (w *world) pods() []corev1.Pod {
	w.t.Helper()
	list := &corev1.PodList{}
	w.must(k8s.List(w.t.Context(), list, client.InNamespace(w.namespace)))
	return list.Items
}

// claims lists the claims that are not being deleted. The controller that ends
// the protection of an unused claim does not run here.
func (w *world) claims() []corev1.PersistentVolumeClaim {
	w.t.Helper()
	list := &corev1.PersistentVolumeClaimList{}
	w.must(k8s.List(w.t.Context(), list, client.InNamespace(w.namespace)))
	var left []corev1.PersistentVolumeClaim
	for _, c := range list.Items {
		if c.DeletionTimestamp == nil {
			left = append(left, c)
		}
	}
	return left
}

// onlyPod returns the one pod that is left.
func (w *world) onlyPod() *corev1.Pod {
	w.t.Helper()
	pods := w.pods()
	if len(pods) != 1 {
		names := []string{}
		for _, p := range pods {
			names = append(names, p.Name)
		}
		w.t.Fatalf("pods left: %v, want exactly one", names)
	}
	return &pods[0]
}

// wantUntouched checks that nothing of a migration is left but its record.
func (w *world) wantUntouched(original *corev1.Pod) {
	w.t.Helper()
	if left := w.onlyPod(); left.UID != original.UID || left.DeletionTimestamp != nil {
		w.t.Errorf("the pod left is %s (%s), deletion %v, want the original %s", left.Name, left.UID, left.DeletionTimestamp, original.UID)
	}
	if claims := w.claims(); len(claims) != 0 {
		w.t.Errorf("%d claims left, want none", len(claims))
	}
}

func (w *world) exists(pod *corev1.Pod) bool {
	for _, p := range w.pods() {
		if p.UID == pod.UID && p.DeletionTimestamp == nil {
			return true
		}
	}
	return false
}

// quotaHolds tries to create what a quota is full of.
func (w *world) quotaHolds(ctx context.Context, limit corev1.ResourceName) error {
	var object client.Object = fixture.MakePod("probe").Node(nodeA).Container("c", nil).Obj()
	if limit == corev1.ResourcePersistentVolumeClaims {
		claim := fixture.MakeClaim("probe", corev1.ReadWriteOnce)
		claim.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
		object = claim
	}
	object.SetNamespace(w.namespace)
	object.SetUID("")
	err := k8s.Create(ctx, object, client.DryRunAll)
	if apierrors.IsForbidden(err) {
		return nil
	}
	return fmt.Errorf("creating a probe was answered with %w, not with forbidden", err)
}
