package integration

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/server/admission"
)

const (
	jobIndex      = "batch.kubernetes.io/job-completion-index"
	jobController = "system:serviceaccount:kube-system:job-controller"
)

// webhook is the admission webhook with its rights, and the configuration that
// users apply.
type webhook struct {
	t        *testing.T
	port     int
	registry *prometheus.Registry
	stop     func()
}

func startWebhook(t *testing.T) *webhook {
	t.Helper()
	configuration := webhookConfiguration(t)
	if err := k8s.Create(t.Context(), configuration); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k8s.Delete(context.Background(), configuration); err != nil {
			t.Error(err)
		}
	})
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &webhook{t: t, port: listener.Addr().(*net.TCPAddr).Port}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	w.start()
	return w
}

// webhookConfiguration reads the configuration that users apply.
func webhookConfiguration(t *testing.T) *admissionv1.MutatingWebhookConfiguration {
	t.Helper()
	for _, object := range readManifests(t, "base/webhook.yaml") {
		if object.GetKind() == "MutatingWebhookConfiguration" {
			configuration := &admissionv1.MutatingWebhookConfiguration{}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, configuration); err != nil {
				t.Fatal(err)
			}
			return configuration
		}
	}
	t.Fatal("no webhook configuration among the manifests")
	return nil
}

func (w *webhook) start() {
	w.t.Helper()
	mgr, err := ctrl.NewManager(rebalancerConfig(w.t), ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		Controller: controllers,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.registry = prometheus.NewRegistry()
	if err := admission.SetupWithManager(mgr, admission.Options{
		Namespace: "ai-storage-system", URL: fmt.Sprintf("https://localhost:%d", w.port), Host: "localhost", Port: w.port,
		AgentImage: "docker.io/library/agent:1", Registerer: w.registry,
	}); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.t.Errorf("the manager ended with: %v", err)
			}
		})
	}
	w.t.Cleanup(w.stop)
}

// asked counts the pods that the API server asked about.
func (w *webhook) asked() float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		for _, metric := range family.Metric {
			sum += metric.GetCounter().GetValue()
		}
	}
	return sum
}

// expression waits until the configuration matches as check wants.
func (w *webhook) expression(check func(string) bool) {
	w.t.Helper()
	eventually(w.t, 20*time.Second, func(ctx context.Context) error {
		found := &admissionv1.MutatingWebhookConfiguration{}
		if err := k8s.Get(ctx, types.NamespacedName{Name: admission.DefaultConfigurationName}, found); err != nil {
			return err
		}
		hook := found.Webhooks[0]
		if len(hook.ClientConfig.CABundle) == 0 || hook.ClientConfig.URL == nil || hook.ClientConfig.Service != nil || !check(hook.MatchConditions[0].Expression) {
			return fmt.Errorf("webhook %+v, conditions %+v", hook.ClientConfig.URL, hook.MatchConditions)
		}
		return nil
	})
}

// podOfJob is the pod that a Job creates.
func podOfJob(namespace string, job types.UID, index string) *corev1.Pod {
	pod := fixture.MakePod("").UID("").Namespace(namespace).RestartPolicy(corev1.RestartPolicyNever).Annotation(jobIndex, index).
		Volume("scratch", fixture.EmptyDir()).
		Container("batch", nil).Container("serve", nil, fixture.Mount("scratch", "/scratch")).Obj()
	pod.GenerateName, pod.Status = "sum-"+index+"-", corev1.PodStatus{}
	pod.Finalizers = []string{"batch.kubernetes.io/job-tracking"}
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "sum", UID: job, Controller: new(true)}}
	return pod
}

// expectIndex0 records a migration that expects the next pod of index 0.
func expectIndex0(t *testing.T, namespace string, job types.UID) *v1alpha1.PodMigration {
	t.Helper()
	m := &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "m"},
		Spec:       v1alpha1.PodMigrationSpec{PodName: "sum-0-abcde", TargetNode: nodeB},
	}
	if err := k8s.Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	m.Status = v1alpha1.PodMigrationStatus{
		Phase:           v1alpha1.PhasePlacing,
		Original:        &v1alpha1.PodReference{Name: "sum-0-abcde", UID: "u", NodeName: nodeA},
		Replacement:     &v1alpha1.PodReference{Name: "sum-0-abcde-migrated-1"},
		CheckpointClaim: "checkpoint",
		Handover: &v1alpha1.Handover{Method: v1alpha1.MethodRelease, Order: v1alpha1.OrderStopFirst, Identity: "0",
			Owner: &podOfJob(namespace, job, "0").OwnerReferences[0]},
		Checkpoint: &v1alpha1.CheckpointStatus{Mode: v1alpha1.CheckpointFrozen, Volumes: []string{"scratch"}},
		Containers: []v1alpha1.ContainerVerdict{
			{Name: "batch", Kind: v1alpha1.KindContainer, State: v1alpha1.StateCompleted, Reason: "Completed"},
			{Name: "serve", Kind: v1alpha1.KindContainer, State: v1alpha1.StateRunning, ShouldMigrate: true, Reason: "Running"},
		},
		Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReplacementPending, Status: metav1.ConditionTrue, Reason: "Test", LastTransitionTime: metav1.Now()}},
	}
	if err := asRebalancer(t).Status().Update(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return m
}

func isRewritten(pod *corev1.Pod) bool { return pod.Labels[v1alpha1.MigrationUIDLabel] != "" }

func TestWebhookMakesTheNextPodTheReplacement(t *testing.T) {
	namespace, job, stranger := newNamespace(t), uuid.NewUUID(), uuid.NewUUID()
	controller := userNamed(t, jobController)
	create := func(pod *corev1.Pod, options ...client.CreateOption) *corev1.Pod {
		t.Helper()
		if err := controller.Create(t.Context(), pod, options...); err != nil {
			t.Fatal(err)
		}
		return pod
	}
	w := startWebhook(t)
	w.expression(func(e string) bool { return e == "false" })
	if pod := create(podOfJob(namespace, job, "0")); isRewritten(pod) || w.asked() != 0 {
		t.Fatalf("no migration, and the webhook was asked %v times", w.asked())
	}
	m := expectIndex0(t, namespace, job)
	// The API server learns of the new configuration a moment later: a dry run
	// shows whether it has.
	eventually(t, 20*time.Second, func(ctx context.Context) error {
		pod := podOfJob(namespace, job, "0")
		if err := controller.Create(ctx, pod, client.DryRunAll); err != nil {
			return err
		}
		if !isRewritten(pod) || pod.Name != m.Status.Replacement.Name {
			return fmt.Errorf("a dry run makes pod %s of it", pod.Name)
		}
		// By this moment pods of the owner are distinguished later.
		if pod.CreationTimestamp.IsZero() {
			t.Error("the answer to a dry run has no creationTimestamp")
		}
		return nil
	})

	replacement := create(podOfJob(namespace, job, "0"))
	checkReplacement(t, m, replacement)
	if err := controller.Create(t.Context(), podOfJob(namespace, job, "0")); !apierrors.IsAlreadyExists(err) {
		t.Errorf("a second replacement was answered with %v", err)
	}
	// What a user creates in the name of the Job is rewritten too, and no replacement for it.
	wantDenied(t, k8s.Create(t.Context(), podOfJob(namespace, job, "0")), "ai-storage-pod-marks", "and its webhook for the controller of a pod, set")

	w.leavesOthers(create, podOfJob(namespace, stranger, "0"), podOfJob(namespace, job, "1"))

	w.stop()
	if pod := create(podOfJob(namespace, job, "0")); isRewritten(pod) {
		t.Error("rewritten by a webhook that is down")
	}
	w.start()
	w.expression(func(e string) bool { return strings.Contains(e, string(job)) })
	m.Status.Phase = v1alpha1.PhaseSucceeded
	if err := asRebalancer(t).Status().Update(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	w.expression(func(e string) bool { return e == "false" })
}

// leavesOthers creates a pod of another owner, and one of the same owner that is
// not the expected one.
func (w *webhook) leavesOthers(create func(*corev1.Pod, ...client.CreateOption) *corev1.Pod, stranger, sibling *corev1.Pod) {
	w.t.Helper()
	before := w.asked()
	if create(stranger); isRewritten(stranger) {
		w.t.Error("a pod of another Job is rewritten")
	}
	if asked := w.asked() - before; asked != 0 {
		w.t.Errorf("asked %v times about a pod of another owner", asked)
	}
	if create(sibling); isRewritten(sibling) || w.asked() == before {
		w.t.Error("a pod of another index is rewritten, or was not asked about")
	}
}

func checkReplacement(t *testing.T, m *v1alpha1.PodMigration, r *corev1.Pod) {
	t.Helper()
	if r.Name != "sum-0-abcde-migrated-1" || r.GenerateName != "sum-0-" || !v1alpha1.OwnedBy(r.Labels, m.UID) || r.Annotations[v1alpha1.SourceNodeAnnotation] != nodeA ||
		len(r.OwnerReferences) != 1 || len(r.Finalizers) != 1 || r.Annotations[jobIndex] != "0" {
		t.Errorf("metadata %+v", r.ObjectMeta)
	}
	gates := func(g corev1.PodSchedulingGate) bool { return g.Name == v1alpha1.WaitForOriginalGate }
	if len(r.Spec.Containers) != 1 || r.Spec.Containers[0].Name != "serve" || r.Spec.SchedulerName != v1alpha1.SchedulerName || !slices.ContainsFunc(r.Spec.SchedulingGates, gates) {
		t.Errorf("spec %+v", r.Spec)
	}
	restores := func(c corev1.Container) bool { return c.Name == v1alpha1.GateContainer }
	if !slices.ContainsFunc(r.Spec.InitContainers, restores) {
		t.Errorf("init containers %+v", r.Spec.InitContainers)
	}
}

// The API server must be able to evaluate the longest expression for every pod.
func TestWebhookMatchesManyOwners(t *testing.T) {
	t.Parallel()
	namespace, last, stranger := newNamespace(t), types.UID("ffffffff-ffff-4fff-bfff-ffffffffffff"), uuid.NewUUID()
	for name, count := range map[string]int{"listed": 200, "not listed": 201} {
		t.Run(name, func(t *testing.T) {
			var migrations []v1alpha1.PodMigration
			for i := range count {
				m := v1alpha1.PodMigration{}
				m.Status.Handover = &v1alpha1.Handover{Method: v1alpha1.MethodRelease, Owner: &metav1.OwnerReference{UID: uuid.NewUUID()}}
				if i == 0 {
					m.Status.Handover.Owner.UID = last
				}
				migrations = append(migrations, m)
			}
			// Nobody listens there: a pod that the expression matches cannot be created.
			configuration := webhookConfiguration(t)
			hook := &configuration.Webhooks[0]
			hook.ClientConfig = admissionv1.WebhookClientConfig{URL: new("https://localhost:1/mutate-pods")}
			hook.FailurePolicy = new(admissionv1.Fail)
			hook.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}}
			hook.MatchConditions[0].Expression = admission.Expression(migrations)
			if err := k8s.Create(t.Context(), configuration); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := k8s.Delete(context.Background(), configuration); err != nil {
					t.Error(err)
				}
			})
			eventually(t, 20*time.Second, func(ctx context.Context) error {
				if err := k8s.Create(ctx, podOfJob(namespace, last, "0"), client.DryRunAll); !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), "calling webhook") {
					return fmt.Errorf("a pod of a listed owner was answered with %w", err)
				}
				return nil
			})
			err := k8s.Create(t.Context(), podOfJob(namespace, stranger, "0"), client.DryRunAll)
			if refused := err != nil; refused != (count > 200) {
				t.Errorf("a pod of another owner was answered with %v", err)
			}
			bare := podOfJob(namespace, stranger, "0")
			bare.OwnerReferences = nil
			if err := k8s.Create(t.Context(), bare, client.DryRunAll); err != nil {
				t.Errorf("a pod without an owner: %v", err)
			}
		})
	}
}
