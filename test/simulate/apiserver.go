package simulate

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

func resourceOf(k kind) schema.GroupResource { return schema.GroupResource{Resource: resourceNames[k]} }

func notFound(k kind, name string) error { return apierrors.NewNotFound(resourceOf(k), name) }

func conflict(object client.Object, why string) error {
	return apierrors.NewConflict(resourceOf(kindOf(object)), object.GetName(), fmt.Errorf("%s", why))
}

func invalid(object client.Object, path, why string) error {
	return apierrors.NewInvalid(schema.GroupKind{Kind: kindNames[kindOf(object)]}, object.GetName(),
		field.ErrorList{field.Forbidden(field.NewPath(path), why)})
}

// create stores a new object, and changes it as the API server does. A dry run stops
// before it is stored.
func (w *world) create(object client.Object, dryRun bool) error {
	k := kindOf(object)
	if object.GetName() == "" {
		object.SetName(object.GetGenerateName() + strconv.FormatInt(w.random.Int64N(90000)+10000, 10))
	}
	if namespace := lookup[*corev1.Namespace](w.store, namespaces, "", object.GetNamespace()); namespace != nil && namespace.DeletionTimestamp != nil {
		return apierrors.NewForbidden(resourceOf(k), object.GetName(), fmt.Errorf("unable to create new content in namespace %s because it is being terminated", namespace.Name))
	}
	if w.get(k, object.GetNamespace(), object.GetName()) != nil {
		return apierrors.NewAlreadyExists(resourceOf(k), object.GetName())
	}
	if quota := w.scenario.podQuota; k == pods && quota > 0 && w.countPods() >= quota {
		return apierrors.NewForbidden(resourceOf(k), object.GetName(), fmt.Errorf("exceeded quota: pods=%d", quota))
	}
	object.SetUID(w.newUID())
	object.SetCreationTimestamp(w.stamp())
	object.SetGeneration(1)
	switch object := object.(type) {
	case *corev1.Pod:
		object.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBurstable}
	case *batchv1.Job:
		completeJob(object, object.UID)
	case *corev1.PersistentVolumeClaim:
		object.Finalizers = append(object.Finalizers, protectionFinalizer)
		object.Status.Phase = corev1.ClaimPending
		if object.Spec.StorageClassName == nil && !w.scenario.noClass {
			object.Spec.StorageClassName = ptr.To(standardClassName)
		}
	}
	if dryRun {
		return nil
	}
	stored := object.DeepCopyObject().(client.Object)
	w.put(stored)
	object.SetResourceVersion(stored.GetResourceVersion())
	w.say(w.actor, "creates %s", describe(stored))
	w.wrote(nil, stored)
	return nil
}

// protectionFinalizer keeps a claim until no pod uses it.
const protectionFinalizer = "kubernetes.io/pvc-protection"

func (w *world) countPods() (count int) {
	each(w.store, pods, func(p *corev1.Pod) {
		if !isTerminal(p) {
			count++
		}
	})
	for _, at := range w.gone {
		// The quota controller counts later what is gone; what is created counts at once.
		if w.now-at < w.scenario.quotaLag {
			count++
		}
	}
	return count
}

func isTerminal(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// preconditions are those of a write; a nil one is not checked.
type preconditions struct {
	uid     *string
	version *string
	// grace is what an eviction asks for, in seconds.
	grace *int64
}

func (p preconditions) check(stored client.Object) error {
	if p.uid != nil && *p.uid != string(stored.GetUID()) {
		return conflict(stored, "the UID in the precondition does not match the UID in record")
	}
	if p.version != nil && *p.version != stored.GetResourceVersion() {
		return conflict(stored, "the ResourceVersion in the precondition does not match the ResourceVersion in record")
	}
	return nil
}

// update stores a changed copy of an object. Of a status update only the status counts,
// of another one all but the status, where the kind has a status of its own.
func (w *world) update(becomes client.Object, status bool) error {
	k := kindOf(becomes)
	stored := w.get(k, becomes.GetNamespace(), becomes.GetName())
	if stored == nil || stored.GetUID() != becomes.GetUID() {
		return notFound(k, becomes.GetName())
	}
	becomes = becomes.DeepCopyObject().(client.Object)
	if status {
		onlyStatus(stored, becomes)
	} else {
		withoutStatus(stored, becomes)
		if err := validate(stored, becomes); err != nil {
			return err
		}
	}
	becomes.SetResourceVersion(stored.GetResourceVersion())
	if apiequality.Semantic.DeepEqual(stored, becomes) {
		return nil
	}
	if becomes.GetDeletionTimestamp() != nil && len(becomes.GetFinalizers()) == 0 && ptr.Deref(becomes.GetDeletionGracePeriodSeconds(), 0) == 0 {
		w.remove(stored)
		w.say(w.actor, "takes the last finalizer from %s, which is gone", describe(stored))
		w.wrote(stored, nil)
		return nil
	}
	w.put(becomes)
	if w.traced {
		w.say(w.actor, "changes %s: %s", describe(becomes), difference(stored, becomes))
	}
	w.wrote(stored, becomes)
	return nil
}

// onlyStatus takes everything but the status from what is stored.
func onlyStatus(stored, becomes client.Object) {
	switch becomes := becomes.(type) {
	case *corev1.Pod:
		status := becomes.Status
		stored.(*corev1.Pod).DeepCopyInto(becomes)
		becomes.Status = status
	case *v1alpha1.PodMigration:
		status := becomes.Status
		stored.(*v1alpha1.PodMigration).DeepCopyInto(becomes)
		becomes.Status = status
	}
}

// withoutStatus takes the status from what is stored, and counts the generation.
func withoutStatus(stored, becomes client.Object) {
	changed := false
	switch becomes := becomes.(type) {
	case *corev1.Pod:
		becomes.Status = stored.(*corev1.Pod).Status
	case *v1alpha1.PodMigration:
		becomes.Status = stored.(*v1alpha1.PodMigration).Status
		changed = !apiequality.Semantic.DeepEqual(becomes.Spec, stored.(*v1alpha1.PodMigration).Spec)
	case *appsv1.ReplicaSet:
		changed = !apiequality.Semantic.DeepEqual(becomes.Spec, stored.(*appsv1.ReplicaSet).Spec)
	case *appsv1.Deployment:
		changed = !apiequality.Semantic.DeepEqual(becomes.Spec, stored.(*appsv1.Deployment).Spec)
	case *appsv1.StatefulSet:
		changed = !apiequality.Semantic.DeepEqual(becomes.Spec, stored.(*appsv1.StatefulSet).Spec)
	case *batchv1.Job:
		changed = !apiequality.Semantic.DeepEqual(becomes.Spec, stored.(*batchv1.Job).Spec)
	}
	becomes.SetGeneration(stored.GetGeneration())
	if changed {
		becomes.SetGeneration(stored.GetGeneration() + 1)
	}
}

// validate refuses what the API server does not take of a changed pod.
func validate(stored, becomes client.Object) error {
	if stored.GetDeletionTimestamp() != nil {
		for _, f := range becomes.GetFinalizers() {
			if !slices.Contains(stored.GetFinalizers(), f) {
				return invalid(becomes, "metadata.finalizers", "no new finalizers can be added if the object is being deleted, found new finalizers "+f)
			}
		}
		// A client cannot undelete.
		becomes.SetDeletionTimestamp(stored.GetDeletionTimestamp())
		becomes.SetDeletionGracePeriodSeconds(stored.GetDeletionGracePeriodSeconds())
	}
	before, isPod := stored.(*corev1.Pod)
	if !isPod {
		return nil
	}
	after := becomes.(*corev1.Pod)
	for _, g := range after.Spec.SchedulingGates {
		if !slices.Contains(before.Spec.SchedulingGates, g) {
			return invalid(becomes, "spec.schedulingGates", "only deletion is allowed")
		}
	}
	if before.Spec.NodeName != after.Spec.NodeName {
		return invalid(becomes, "spec.nodeName", "may not change")
	}
	return nil
}

// remove begins the deletion of an object, and completes it where nothing holds it.
// seconds is the grace period of a pod that the client asks for; nil takes the pod's.
func (w *world) delete(k kind, namespace, name string, p preconditions, seconds *int64, dryRun bool) error {
	stored := w.get(k, namespace, name)
	if stored == nil {
		return notFound(k, name)
	}
	if err := p.check(stored); err != nil {
		return err
	}
	if dryRun {
		return nil
	}
	grace := int64(0)
	if pod, is := stored.(*corev1.Pod); is {
		grace = gracePeriod(pod, seconds)
	}
	already := stored.GetDeletionTimestamp() != nil
	if already && grace >= ptr.Deref(stored.GetDeletionGracePeriodSeconds(), 0) && (grace > 0 || len(stored.GetFinalizers()) > 0) {
		return nil
	}
	if grace == 0 && len(stored.GetFinalizers()) == 0 {
		w.remove(stored)
		w.say(w.actor, "deletes %s, which is gone", describe(stored))
		w.wrote(stored, nil)
		return nil
	}
	becomes := stored.DeepCopyObject().(client.Object)
	deleted := metav1.NewTime(w.stamp().Add(time.Duration(grace) * time.Second))
	becomes.SetDeletionTimestamp(&deleted)
	becomes.SetDeletionGracePeriodSeconds(&grace)
	becomes.SetGeneration(stored.GetGeneration() + 1)
	w.put(becomes)
	w.say(w.actor, "deletes %s, with %d s of grace", describe(becomes), grace)
	w.wrote(stored, becomes)
	return nil
}

// gracePeriod is that of a pod (k8s.io/kubernetes/pkg/registry/core/pod, CheckGracefulDelete).
func gracePeriod(pod *corev1.Pod, seconds *int64) int64 {
	if pod.Spec.NodeName == "" || isTerminal(pod) {
		return 0
	}
	if seconds != nil {
		return *seconds
	}
	return ptr.Deref(pod.Spec.TerminationGracePeriodSeconds, 30)
}

// change stores what edit makes of an object, in the name of the current actor. It is
// what models do, which read and write at one moment.
func change[T client.Object](w *world, object T, status bool, edit func(T)) {
	stored := w.get(kindOf(object), object.GetNamespace(), object.GetName())
	if stored == nil || stored.GetUID() != object.GetUID() {
		return
	}
	becomes := stored.DeepCopyObject().(T)
	edit(becomes)
	if err := w.update(becomes, status); err != nil {
		w.say(w.actor, "cannot change %s: %v", describe(stored), err)
	}
}
