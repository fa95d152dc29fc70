package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/reclaim"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// reclaimer runs the reclaim controller for the world's namespace, with the
// rights of the rebalancer's service account.
func (w *world) reclaimer(enabled bool) *prometheus.Registry {
	w.t.Helper()
	registry := prometheus.NewRegistry()
	w.t.Cleanup(w.startReclaimer(enabled, registry))
	return registry
}

func (w *world) startReclaimer(enabled bool, registry *prometheus.Registry) (stop func()) {
	w.t.Helper()
	restConfig := rebalancerConfig(w.t)
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		Controller: controllers,
		Cache:      cache.Options{DefaultNamespaces: map[string]cache.Config{w.namespace: {}}},
	})
	w.must(err)
	kubeClient, err := kubernetes.NewForConfig(restConfig)
	w.must(err)
	// Pods of other tests are also given back by every reclaimer that sees them.
	factory := informers.NewSharedInformerFactoryWithOptions(kubeClient, 0, informers.WithNamespace(w.namespace))
	ctx, cancel := context.WithCancel(w.t.Context())
	w.must(reclaim.SetupWithManager(ctx, mgr, reclaim.Options{
		Pods: factory.Core().V1().Pods(), Enabled: enabled, SchedulerName: v1alpha1.SchedulerName,
		Excluded:  owners.Excluded,
		Namespace: w.namespace, Registerer: registry,
	}))
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("the manager ended with: %v", err)
		}
		factory.Shutdown()
	}
}

// onResizingNode gives a pod the status of a kubelet that resizes, and our
// scheduler's name.
func onResizingNode(builder *fixture.PodBuilder) *corev1.Pod {
	pod := builder.Obj()
	pod.Spec.SchedulerName = v1alpha1.SchedulerName
	for i := range pod.Status.ContainerStatuses {
		pod.Status.ContainerStatuses[i].Resources = pod.Spec.Containers[i].Resources.DeepCopy()
	}
	return pod
}

func (w *world) pod(ctx context.Context, name string) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	return pod, k8s.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: name}, pod)
}

// eventuallyPod waits until check is content with a pod.
func (w *world) eventuallyPod(name string, check func(*corev1.Pod) error) *corev1.Pod {
	w.t.Helper()
	var found *corev1.Pod
	eventually(w.t, 20*time.Second, func(ctx context.Context) (err error) {
		if found, err = w.pod(ctx, name); err != nil {
			return err
		}
		return check(found)
	})
	return found
}

func asks(container int, cpu, memory string) func(*corev1.Pod) error {
	return func(pod *corev1.Pod) error {
		if got := pod.Spec.Containers[container].Resources.Requests; !equality.Semantic.DeepEqual(got, fixture.Amounts(cpu, memory)) {
			return fmt.Errorf("container %d asks for %v, want %s and %s; record %s", container, got, cpu, memory, pod.Annotations[v1alpha1.ReclaimedAnnotation])
		}
		return nil
	}
}

func (w *world) setStatus(name string, container int, status *corev1.ContainerStatus) {
	w.t.Helper()
	eventually(w.t, 10*time.Second, func(ctx context.Context) error {
		pod, err := w.pod(ctx, name)
		if err != nil {
			return err
		}
		status.Name = pod.Spec.Containers[container].Name
		status.Resources = pod.Spec.Containers[container].Resources.DeepCopy()
		pod.Status.ContainerStatuses[container] = *status
		return k8s.Status().Update(ctx, pod)
	})
}

func TestAFinishedContainerIsShrunkAndGetsItsRequestsBackWhenItStartsAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	original := w.createOriginal(onResizingNode(threeContainers("train")))
	registry := w.reclaimer(true)

	shrunk := w.eventuallyPod("train", asks(0, "1m", "1Mi"))
	if err := asks(1, "500m", "64Mi")(shrunk); err != nil {
		t.Error(err)
	}
	if record := shrunk.Annotations[v1alpha1.ReclaimedAnnotation]; !strings.Contains(record, "900m") {
		t.Errorf("the record %q does not tell the original", record)
	}
	// It is counted when the record is final, which is after the resize.
	eventually(t, 10*time.Second, func(context.Context) error {
		if cpu := metricValue(t, registry, "ai_storage_reclaim_cpu_cores_total"); cpu < 0.8989 || cpu > 0.8991 {
			return fmt.Errorf("the metric tells %v cores, want 0.899", cpu)
		}
		return nil
	})
	w.wantEvent("train", reclaim.ReasonReclaimed, "899m CPU and 63 MiB")

	// The API server takes no other way back from an end with 0.
	w.setStatus("train", 0, fixture.Exited(1))
	back := w.eventuallyPod("train", func(pod *corev1.Pod) error {
		if record := pod.Annotations[v1alpha1.ReclaimedAnnotation]; record != "" {
			return fmt.Errorf("the record is still there: %s", record)
		}
		return nil
	})
	if !equality.Semantic.DeepEqual(back.Spec, original.Spec) {
		t.Errorf("the pod is not as it was: %+v\nwant %+v", back.Spec.Containers, original.Spec.Containers)
	}
	w.wantEvent("train", reclaim.ReasonGivenBack, "it starts again")

	w.setStatus("train", 0, fixture.Exited(0))
	w.eventuallyPod("train", asks(0, "1m", "1Mi"))
}

// The kubelet may not report that a container runs which had finished for good.
func TestTheEventOfAStartGivesTheRequestsBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ended := fixture.Exited(0)
	ended.State.Terminated.FinishedAt = metav1.NewTime(time.Now().Add(-time.Minute))
	pod := onResizingNode(threeContainers("train"))
	pod.Status.ContainerStatuses[0].State = ended.State
	original := w.createOriginal(pod)
	w.reclaimer(true)
	w.eventuallyPod("train", asks(0, "1m", "1Mi"))
	for name, at := range map[string]time.Time{"first": ended.State.Terminated.FinishedAt.Add(-time.Second), "again": time.Now()} {
		w.must(k8s.Create(t.Context(), &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: w.namespace, Name: name},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: w.namespace, Name: "train", UID: original.UID, FieldPath: "spec.containers{batch}"},
			Reason:         "Started", LastTimestamp: metav1.NewTime(at),
		}))
	}
	w.eventuallyPod("train", asks(0, "900m", "64Mi"))
	w.wantEvent("train", reclaim.ReasonSkipped, "has started again after it had finished")
}

func TestAGuaranteedPodStaysGuaranteed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	both := func(c *corev1.Container) {
		c.Resources.Requests, c.Resources.Limits = fixture.Amounts("1", "1Gi"), fixture.Amounts("1", "1Gi")
	}
	pod := fixture.MakePod("g").RestartPolicy(corev1.RestartPolicyNever).Node(nodeA).
		Container("a", fixture.Exited(0), both).Container("b", fixture.Running(), both)
	w.createOriginal(onResizingNode(pod))
	w.reclaimer(true)
	shrunk := w.eventuallyPod("g", asks(0, "1m", "1Mi"))
	if class := shrunk.Status.QOSClass; class != corev1.PodQOSGuaranteed {
		t.Errorf("the pod is %s", class)
	}
	if limits := shrunk.Spec.Containers[0].Resources.Limits; !equality.Semantic.DeepEqual(limits, fixture.Amounts("1m", "1Mi")) {
		t.Errorf("its limits are %v", limits)
	}
}

// What a cluster does not allow is tried once, said once, and left to a move.
func TestARefusedPodIsSkipped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	limits := &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "least"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Min: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")},
		}}},
	}
	w.must(k8s.Create(t.Context(), limits))
	w.createOriginal(onResizingNode(threeContainers("train")))
	registry := w.reclaimer(true)
	pod := w.eventuallyPod("train", func(pod *corev1.Pod) error {
		if record := pod.Annotations[v1alpha1.ReclaimedAnnotation]; !strings.Contains(record, "skipped") {
			return fmt.Errorf("record %q", record)
		}
		return nil
	})
	if err := asks(0, "900m", "64Mi")(pod); err != nil {
		t.Error(err)
	}
	w.wantEvent("train", reclaim.ReasonSkipped, "minimum cpu usage")
	w.setStatus("train", 2, fixture.Exited(0))
	time.Sleep(time.Second)
	if refused := metricValue(t, registry, "ai_storage_reclaim_resizes_total"); refused != 1 {
		t.Errorf("tried %v times, want once", refused)
	}
}

func TestPodsThatAreNotTouched(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	excluded := onResizingNode(threeContainers("excluded").Annotation(v1alpha1.ExcludeAnnotation, "true"))
	foreign := onResizingNode(threeContainers("foreign"))
	foreign.Spec.SchedulerName = corev1.DefaultSchedulerName
	simulated := onResizingNode(threeContainers("simulated"))
	for i := range simulated.Status.ContainerStatuses {
		simulated.Status.ContainerStatuses[i].Resources = nil
	}
	for _, pod := range []*corev1.Pod{excluded, foreign, simulated} {
		w.createOriginal(pod)
	}
	w.reclaimer(true)
	// One that is touched shows that the controller has come to all of them.
	w.createOriginal(onResizingNode(threeContainers("last")))
	w.eventuallyPod("last", asks(0, "1m", "1Mi"))
	for _, name := range []string{"excluded", "foreign", "simulated"} {
		w.eventuallyPod(name, func(pod *corev1.Pod) error {
			if pod.Annotations[v1alpha1.ReclaimedAnnotation] != "" {
				return fmt.Errorf("the pod has a record")
			}
			return asks(0, "900m", "64Mi")(pod)
		})
	}
}

// A switch that is turned off leaves nothing behind that would harm a container.
func TestTurnedOffItStillGivesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createOriginal(onResizingNode(threeContainers("train")))
	stop := w.startReclaimer(true, prometheus.NewRegistry())
	w.eventuallyPod("train", asks(0, "1m", "1Mi"))
	stop()
	w.reclaimer(false)
	w.setStatus("train", 0, fixture.Exited(1))
	w.eventuallyPod("train", asks(0, "900m", "64Mi"))
	w.setStatus("train", 0, fixture.Exited(0))
	time.Sleep(time.Second)
	w.eventuallyPod("train", asks(0, "900m", "64Mi"))
}

// A move tells what its pod requested at first: what is left behind for good.
func TestTheMoveOfAReclaimedPodTellsWhatItAskedForAtFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createOriginal(onResizingNode(threeContainers("train")))
	registry := prometheus.NewRegistry()
	stop := w.startReclaimer(true, registry)
	w.eventuallyPod("train", asks(0, "1m", "1Mi"))
	stop()
	w.controller(migration.Options{})
	w.request(newMigration(w.namespace, "m", "train"))
	m := w.waitForPhase("m", v1alpha1.PhaseSucceeded)
	if before, after := m.Status.Before.Requests.Cpu().String(), m.Status.After.Requests.Cpu().String(); before != "1600m" || after != "700m" {
		t.Errorf("requests before %s and after %s, want 1600m and 700m", before, after)
	}
	if record := w.onlyPod().Annotations[v1alpha1.ReclaimedAnnotation]; record != "" {
		t.Errorf("the replacement has the record %s", record)
	}
}

func metricValue(t *testing.T, registry *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			for _, metric := range family.GetMetric() {
				sum += metric.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func (w *world) wantEvent(pod, reason, note string) {
	w.t.Helper()
	eventually(w.t, 20*time.Second, func(ctx context.Context) error {
		list := &eventsv1.EventList{}
		if err := k8s.List(ctx, list, client.InNamespace(w.namespace)); err != nil {
			return err
		}
		var notes []string
		for _, e := range list.Items {
			if e.Regarding.Name == pod && e.Reason == reason {
				if strings.Contains(e.Note, note) {
					return nil
				}
				notes = append(notes, e.Note)
			}
		}
		return fmt.Errorf("no event %s with %q: %v", reason, note, notes)
	})
}
