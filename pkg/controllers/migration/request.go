package migration

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// gatherRequested reads what every request is checked against: the other migrations of its
// namespace, and the node that it names.
func (r *reconciler) gatherRequested(ctx context.Context, s *decide.State) error {
	m := s.Migration
	list := &v1alpha1.PodMigrationList{}
	if err := r.live.List(ctx, list, client.InNamespace(m.Namespace)); err != nil {
		return err
	}
	s.Others = list.Items
	if m.Spec.TargetNode != "" {
		node, err := read(ctx, r.live, "", m.Spec.TargetNode, &corev1.Node{})
		if err != nil {
			return err
		}
		s.TargetNodeExists = node != nil
	}
	return nil
}

// gatherRequest reads what a request to move a pod is checked against.
func (r *reconciler) gatherRequest(ctx context.Context, s *decide.State) error {
	m := s.Migration
	if err := r.gatherRequested(ctx, s); err != nil {
		return err
	}
	stored, err := readStored(ctx, r.live, m.Namespace, m.Spec.PodName)
	if err != nil || stored == nil {
		return err
	}
	if s.Pod, err = asPod(stored); err != nil {
		return err
	}
	s.Stored = stored.Object
	if class := s.Pod.Spec.RuntimeClassName; class != nil {
		found, err := read(ctx, r.live, "", *class, &nodev1.RuntimeClass{})
		if err != nil {
			return err
		}
		if found != nil {
			s.Handler = found.Handler
		}
	}
	if s.Migration.Spec.Checkpoint.Mode == v1alpha1.CheckpointProcess {
		if s.CarriesProcesses, err = r.carriesProcesses(ctx, s.Pod.Spec.NodeName); err != nil {
			return err
		}
	}
	if s.MissingPullSecrets, err = r.missingPullSecrets(ctx, m.Namespace); err != nil {
		return err
	}
	if s.HasStorageClass, err = r.hasClass(ctx, m.Spec.Checkpoint); err != nil {
		return err
	}
	s.Budgets, err = r.budgetsOf(ctx, s.Pod)
	return err
}

// missingPullSecrets are those of the configured ones that a namespace does not have. Only
// that they exist is read, not what is in them. Without the right to that, which comes with
// the chart's value, none is known to be missing.
func (r *reconciler) missingPullSecrets(ctx context.Context, namespace string) (missing []string, err error) {
	for _, name := range r.pullSecrets {
		secret := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}}
		found, err := read(ctx, r.live, namespace, name, secret)
		switch {
		case apierrors.IsForbidden(err):
		case err != nil:
			return nil, fmt.Errorf("looking for Secret %s, by which the node agent's image is pulled: %w", name, err)
		case found == nil:
			missing = append(missing, name)
		}
	}
	return missing, nil
}

// hasClass reports whether the class of a checkpoint claim exists: the one that is named, ""
// being none, or a default one. Without the right to read classes, which who only asks what
// would happen may lack, none is known to be missing.
func (r *reconciler) hasClass(ctx context.Context, spec v1alpha1.CheckpointSpec) (bool, error) {
	found, err := r.findClass(ctx, spec)
	if apierrors.IsForbidden(err) {
		return true, nil
	}
	return found, err
}

func (r *reconciler) findClass(ctx context.Context, spec v1alpha1.CheckpointSpec) (bool, error) {
	switch {
	case spec.ClaimPolicy() == v1alpha1.ClaimNever:
		return false, nil
	case spec.StorageClassName != nil && *spec.StorageClassName == "":
		return true, nil
	case spec.StorageClassName != nil:
		class, err := read(ctx, r.live, "", *spec.StorageClassName, &storagev1.StorageClass{})
		return class != nil, err
	}
	list := &storagev1.StorageClassList{}
	if err := r.live.List(ctx, list); err != nil {
		return false, fmt.Errorf("looking for a default StorageClass: %w", err)
	}
	return slices.ContainsFunc(list.Items, func(class storagev1.StorageClass) bool {
		return slices.ContainsFunc(defaultClassAnnotations, func(key string) bool { return class.Annotations[key] == "true" })
	}), nil
}

// defaultClassAnnotations with the value "true" are on a default StorageClass. Of several the
// API server takes the newest (k8s.io/kubernetes/plugin/pkg/admission/storage/storageclass/setdefault).
var defaultClassAnnotations = []string{"storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"}

// carriesProcesses reports whether a node can dump processes; a pod without a place
// is on none.
func (r *reconciler) carriesProcesses(ctx context.Context, node string) (bool, error) {
	if node == "" {
		return false, nil
	}
	source, err := read(ctx, r.live, "", node, &corev1.Node{})
	return source != nil && source.Labels[v1alpha1.ProcessNodeLabel] == "true", err
}

// budgetsOf names the PodDisruptionBudgets that cover a pod, as the Eviction API
// finds them (k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go).
func (r *reconciler) budgetsOf(ctx context.Context, pod *corev1.Pod) ([]string, error) {
	list := &policyv1.PodDisruptionBudgetList{}
	if err := r.live.List(ctx, list, client.InNamespace(pod.Namespace)); err != nil {
		return nil, err
	}
	var names []string
	for i := range list.Items {
		selector, err := metav1.LabelSelectorAsSelector(list.Items[i].Spec.Selector)
		if err == nil && selector.Matches(labels.Set(pod.Labels)) {
			names = append(names, list.Items[i].Name)
		}
	}
	return names, nil
}

// owner reads the controller of the pod, and what controls that.
func (r *reconciler) owner(ctx context.Context, s *decide.State) (owners.Owner, error) {
	var reference *metav1.OwnerReference
	if h := s.Migration.Status.Handover; h != nil {
		reference = h.Owner
	} else if s.Pod != nil {
		reference = metav1.GetControllerOf(s.Pod)
	}
	return owners.Readers{
		ReplicaSet: func(namespace, name string) (*appsv1.ReplicaSet, error) {
			return read(ctx, r.live, namespace, name, &appsv1.ReplicaSet{})
		},
		Deployment: func(namespace, name string) (*appsv1.Deployment, error) {
			return read(ctx, r.live, namespace, name, &appsv1.Deployment{})
		},
		StatefulSet: func(namespace, name string) (*appsv1.StatefulSet, error) {
			return read(ctx, r.live, namespace, name, &appsv1.StatefulSet{})
		},
		Job: func(namespace, name string) (*batchv1.Job, error) {
			return read(ctx, r.live, namespace, name, &batchv1.Job{})
		},
	}.Find(s.Migration.Namespace, reference)
}
