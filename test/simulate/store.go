package simulate

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// kind is an index of the store. The order is that in which kinds are listed.
type kind int

const (
	pods kind = iota
	claims
	volumes
	nodes
	replicaSets
	deployments
	statefulSets
	jobs
	budgets
	migrations
	namespaces
	kinds
)

var kindNames = [kinds]string{
	"Pod", "PersistentVolumeClaim", "PersistentVolume", "Node", "ReplicaSet", "Deployment", "StatefulSet", "Job",
	"PodDisruptionBudget", "PodMigration", "Namespace",
}

var resourceNames = [kinds]string{
	"pods", "persistentvolumeclaims", "persistentvolumes", "nodes", "replicasets", "deployments", "statefulsets", "jobs",
	"poddisruptionbudgets", "podmigrations", "namespaces",
}

func kindOf(object client.Object) kind {
	switch object.(type) {
	case *corev1.Pod:
		return pods
	case *corev1.PersistentVolumeClaim:
		return claims
	case *corev1.PersistentVolume:
		return volumes
	case *corev1.Node:
		return nodes
	case *appsv1.ReplicaSet:
		return replicaSets
	case *appsv1.Deployment:
		return deployments
	case *appsv1.StatefulSet:
		return statefulSets
	case *batchv1.Job:
		return jobs
	case *policyv1.PodDisruptionBudget:
		return budgets
	case *v1alpha1.PodMigration:
		return migrations
	case *corev1.Namespace:
		return namespaces
	}
	return kinds
}

// copyInto writes a deep copy of what is stored into an object of the same type.
func copyInto(stored, into client.Object) {
	switch into := into.(type) {
	case *corev1.Pod:
		stored.(*corev1.Pod).DeepCopyInto(into)
	case *corev1.PersistentVolumeClaim:
		stored.(*corev1.PersistentVolumeClaim).DeepCopyInto(into)
	case *corev1.PersistentVolume:
		stored.(*corev1.PersistentVolume).DeepCopyInto(into)
	case *corev1.Node:
		stored.(*corev1.Node).DeepCopyInto(into)
	case *appsv1.ReplicaSet:
		stored.(*appsv1.ReplicaSet).DeepCopyInto(into)
	case *appsv1.Deployment:
		stored.(*appsv1.Deployment).DeepCopyInto(into)
	case *appsv1.StatefulSet:
		stored.(*appsv1.StatefulSet).DeepCopyInto(into)
	case *batchv1.Job:
		stored.(*batchv1.Job).DeepCopyInto(into)
	case *policyv1.PodDisruptionBudget:
		stored.(*policyv1.PodDisruptionBudget).DeepCopyInto(into)
	case *v1alpha1.PodMigration:
		stored.(*v1alpha1.PodMigration).DeepCopyInto(into)
	case *corev1.Namespace:
		stored.(*corev1.Namespace).DeepCopyInto(into)
	}
}

// store holds the objects. What is stored is never changed, only replaced, so models
// read it without copying.
type store struct {
	byKind [kinds][]client.Object
	// byUID has what exists, for owner references.
	byUID    map[types.UID]client.Object
	revision int64
	uids     int
}

func newStore() *store { return &store{byUID: map[types.UID]client.Object{}} }

func order(namespace, name string, object client.Object) int {
	return cmp.Or(cmp.Compare(object.GetNamespace(), namespace), cmp.Compare(object.GetName(), name))
}

func (s *store) find(k kind, namespace, name string) (int, bool) {
	return slices.BinarySearchFunc(s.byKind[k], name, func(object client.Object, name string) int {
		return order(namespace, name, object)
	})
}

// get returns what is stored, or nil.
func (s *store) get(k kind, namespace, name string) client.Object {
	if i, found := s.find(k, namespace, name); found {
		return s.byKind[k][i]
	}
	return nil
}

// put stores an object, which must not be changed any more, under the next revision.
func (s *store) put(object client.Object) {
	s.revision++
	object.SetResourceVersion(strconv.FormatInt(s.revision, 10))
	k := kindOf(object)
	i, found := s.find(k, object.GetNamespace(), object.GetName())
	if found {
		// A list that is being read stays as it was.
		s.byKind[k] = slices.Clone(s.byKind[k])
		s.byKind[k][i] = object
	} else {
		s.byKind[k] = slices.Insert(slices.Clone(s.byKind[k]), i, object)
	}
	s.byUID[object.GetUID()] = object
}

func (s *store) remove(object client.Object) {
	s.revision++
	k := kindOf(object)
	if i, found := s.find(k, object.GetNamespace(), object.GetName()); found {
		s.byKind[k] = slices.Delete(slices.Clone(s.byKind[k]), i, i+1)
	}
	delete(s.byUID, object.GetUID())
}

// newUID counts: the UIDs of a run are the same each time.
func (s *store) newUID() types.UID {
	s.uids++
	return types.UID("uid-" + strconv.Itoa(s.uids))
}

// each calls visit for every object of a kind as of now, also when visit changes some.
func each[T client.Object](s *store, k kind, visit func(T)) {
	for _, object := range s.byKind[k] {
		visit(object.(T))
	}
}

// lookup returns what is stored; the zero T when there is none.
func lookup[T client.Object](s *store, k kind, namespace, name string) T {
	var none T
	if object := s.get(k, namespace, name); object != nil {
		return object.(T)
	}
	return none
}

// moment is virtual time since the start of a run.
type moment = time.Duration
