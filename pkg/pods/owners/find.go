package owners

import (
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Readers get what controls pods, from the API server or from caches: nil when there is
// no object of that name.
type Readers struct {
	ReplicaSet  func(namespace, name string) (*appsv1.ReplicaSet, error)
	Deployment  func(namespace, name string) (*appsv1.Deployment, error)
	StatefulSet func(namespace, name string) (*appsv1.StatefulSet, error)
	Job         func(namespace, name string) (*batchv1.Job, error)
}

// Find reads what a reference of a pod names, and the Deployment above a ReplicaSet. An
// object that was recreated under the name is another. Errors are those of the readers.
func (r Readers) Find(namespace string, reference *metav1.OwnerReference) (Owner, error) {
	o := Owner{Reference: reference}
	var err error
	switch KindOf(reference) {
	case KindReplicaSet:
		if o.ReplicaSet, err = same(r.ReplicaSet, namespace, reference); err == nil && o.ReplicaSet != nil {
			if above := metav1.GetControllerOf(o.ReplicaSet); above != nil && above.Kind == "Deployment" {
				o.Deployment, err = same(r.Deployment, namespace, above)
			}
		}
	case KindStatefulSet:
		o.StatefulSet, err = same(r.StatefulSet, namespace, reference)
	case KindJob:
		o.Job, err = same(r.Job, namespace, reference)
	}
	return o, err
}

// same gets the very object that a reference names; nil when it is gone.
func same[T any, P interface {
	*T
	GetUID() types.UID
}](get func(namespace, name string) (P, error), namespace string, reference *metav1.OwnerReference) (P, error) {
	found, err := get(namespace, reference.Name)
	if err != nil || found == nil || found.GetUID() != reference.UID {
		return nil, err
	}
	return found, nil
}
