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

// owner finds the owner of a pod; listers fail only where nothing is found.
func (l ownerListers) owner(pod *corev1.Pod) owners.Owner {
	found, _ := owners.Readers{
		ReplicaSet: func(namespace, name string) (*appsv1.ReplicaSet, error) {
			return l.replicaSets.ReplicaSets(namespace).Get(name)
		},
		Deployment: func(namespace, name string) (*appsv1.Deployment, error) {
			return l.deployments.Deployments(namespace).Get(name)
		},
		StatefulSet: func(namespace, name string) (*appsv1.StatefulSet, error) {
			return l.statefuls.StatefulSets(namespace).Get(name)
		},
		Job: func(namespace, name string) (*batchv1.Job, error) { return l.jobs.Jobs(namespace).Get(name) },
	}.Find(pod.Namespace, metav1.GetControllerOf(pod))
	return found
}
