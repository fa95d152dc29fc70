package observe

import (
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	appslisters "k8s.io/client-go/listers/apps/v1"
	batchlisters "k8s.io/client-go/listers/batch/v1"

	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// ownerListers find the owners of pods in informers.
type ownerListers struct {
	replicaSets appslisters.ReplicaSetLister
	deployments appslisters.DeploymentLister
	statefuls   appslisters.StatefulSetLister
	jobs        batchlisters.JobLister
}

// newOwnerListers registers the informers with the factory.
func newOwnerListers(factory informers.SharedInformerFactory) ownerListers {
	apps := factory.Apps().V1()
	return ownerListers{
		replicaSets: apps.ReplicaSets().Lister(), deployments: apps.Deployments().Lister(),
		statefuls: apps.StatefulSets().Lister(), jobs: factory.Batch().V1().Jobs().Lister(),
	}
}

// Slim is a transform for the factory of the informers. It leaves out what nobody
// reads and what is most of an object: who wrote which field, and the templates of
// Jobs and Deployments.
func Slim(object any) (any, error) {
	if o, err := meta.Accessor(object); err == nil {
		o.SetManagedFields(nil)
	}
	switch o := object.(type) {
	case *appsv1.Deployment:
		o.Spec.Template = corev1.PodTemplateSpec{}
	case *batchv1.Job:
		o.Spec.Template = corev1.PodTemplateSpec{}
	}
	return object, nil
}

// owner finds the owner of a pod; listers fail only where nothing is found. One that
// was recreated under the name is another.
func (l ownerListers) owner(pod *corev1.Pod) owners.Owner {
	o := owners.Owner{Reference: metav1.GetControllerOf(pod)}
	switch owners.KindOf(o.Reference) {
	case owners.KindReplicaSet:
		if rs, err := l.replicaSets.ReplicaSets(pod.Namespace).Get(o.Reference.Name); err == nil && rs.UID == o.Reference.UID {
			o.ReplicaSet, o.Deployment = rs, l.deployment(rs)
		}
	case owners.KindJob:
		if job, err := l.jobs.Jobs(pod.Namespace).Get(o.Reference.Name); err == nil && job.UID == o.Reference.UID {
			o.Job = job
		}
	case owners.KindStatefulSet:
		if set, err := l.statefuls.StatefulSets(pod.Namespace).Get(o.Reference.Name); err == nil && set.UID == o.Reference.UID {
			o.StatefulSet = set
		}
	}
	return o
}

// deployment is the one that a ReplicaSet belongs to; nil when it belongs to none.
func (l ownerListers) deployment(rs *appsv1.ReplicaSet) *appsv1.Deployment {
	above := metav1.GetControllerOf(rs)
	if above == nil || above.Kind != "Deployment" {
		return nil
	}
	d, err := l.deployments.Deployments(rs.Namespace).Get(above.Name)
	if err != nil || d.UID != above.UID {
		return nil
	}
	return d
}
