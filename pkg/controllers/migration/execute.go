package migration

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// executor does what is decided for one migration. It implements decide.API.
type executor struct {
	*reconciler
	// migration takes the answer to what is done to the migration itself.
	migration *v1alpha1.PodMigration
}

var _ decide.API = executor{}

// copyOf is a copy of an object of a decision: those that Settle and the events are
// about stay as they are.
func copyOf(object decide.Object) client.Object {
	return object.DeepCopyObject().(client.Object)
}

// Create implements decide.API.
func (x executor) Create(ctx context.Context, object decide.Object, of *corev1.Pod) (decide.Object, error) {
	pod, isPod := object.(*corev1.Pod)
	if of == nil || !isPod {
		created := copyOf(object)
		err := x.client.Create(ctx, created)
		return created, err
	}
	stored, err := readStored(ctx, x.live, of.Namespace, of.Name)
	if err != nil {
		return nil, fmt.Errorf("reading pod %s as it is stored: %w", of.Name, err)
	}
	if stored == nil || stored.GetResourceVersion() != of.ResourceVersion {
		return nil, apierrors.NewConflict(corev1.Resource("pods"), of.Name, errors.New("it has changed since it was judged"))
	}
	fields, err := containers.KeepUnknownFields(stored.Object, of, pod)
	if err != nil {
		return nil, err
	}
	created := &unstructured.Unstructured{Object: fields}
	if err := x.client.Create(ctx, created); err != nil {
		return nil, err
	}
	return asPod(created)
}

// readStored reads a pod with all its fields; nil when there is none.
func readStored(ctx context.Context, reader client.Reader, namespace, name string) (*unstructured.Unstructured, error) {
	stored := &unstructured.Unstructured{}
	stored.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	return read(ctx, reader, namespace, name, stored)
}

// asPod is what our types know of a stored pod.
func asPod(stored *unstructured.Unstructured) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(stored.Object, pod); err != nil {
		return nil, fmt.Errorf("reading pod %s/%s: %w", stored.GetNamespace(), stored.GetName(), err)
	}
	return pod, nil
}

// Change implements decide.API.
func (x executor) Change(ctx context.Context, from, to decide.Object) error {
	changed := copyOf(to)
	lock := client.MergeFromWithOptions(copyOf(from), client.MergeFromWithOptimisticLock{})
	if err := x.client.Patch(ctx, changed, lock); err != nil {
		return err
	}
	if m, isMigration := changed.(*v1alpha1.PodMigration); isMigration {
		// The patch answers with the stored status, which is the one decided on.
		m.DeepCopyInto(x.migration)
	}
	return nil
}

// ChangePodStatus implements decide.API.
func (x executor) ChangePodStatus(ctx context.Context, from, to *corev1.Pod) error {
	return x.client.Status().Patch(ctx, to.DeepCopy(), client.MergeFrom(from))
}

// Delete implements decide.API.
func (x executor) Delete(ctx context.Context, object decide.Object) error {
	return x.client.Delete(ctx, copyOf(object), client.Preconditions{UID: ptr.To(object.GetUID())})
}

// Evict implements decide.API.
func (x executor) Evict(ctx context.Context, pod *corev1.Pod, dryRun bool) error {
	eviction := &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{
			UID: ptr.To(pod.UID), ResourceVersion: ptr.To(pod.ResourceVersion),
		}},
	}
	if dryRun {
		eviction.DeleteOptions.DryRun = []string{metav1.DryRunAll}
	}
	return x.client.SubResource("eviction").Create(ctx, pod.DeepCopy(), eviction)
}

// Probe implements decide.API. The API server answers a dry run with the pod as it would be
// stored, creationTimestamp included.
func (x executor) Probe(ctx context.Context, pod *corev1.Pod) (admitted bool, at metav1.Time, err error) {
	pod = pod.DeepCopy()
	if err := x.client.Create(ctx, pod, client.DryRunAll); err != nil {
		return false, metav1.Time{}, err
	}
	return v1alpha1.OwnedBy(pod.Labels, x.migration.UID), pod.CreationTimestamp, nil
}

// AskBudget implements decide.API.
func (x executor) AskBudget(ctx context.Context, pod *corev1.Pod) (string, error) {
	if x.admission == nil {
		return "", nil
	}
	return x.admission.admit(ctx, x.migration, pod)
}

// Measure implements decide.API. A measurement that cannot be read is a missing one: a
// migration does not fail for it, and the status says so.
func (x executor) Measure(ctx context.Context, pod *corev1.Pod) *decide.Sample {
	sample, err := readSample(ctx, x.metrics, pod.Namespace, pod.Name)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cannot measure a pod", "pod", klog.KObj(pod))
	}
	return sample
}
