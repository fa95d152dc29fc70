package observe

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// What is known of an owner is what its spec says, of that very owner and of the
// Deployment above; the templates of Jobs and Deployments are not kept.
func TestOwnersAreFound(t *testing.T) {
	named := func(name string, above *metav1.OwnerReference) metav1.ObjectMeta {
		named := metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name), ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "x"}}}
		if above != nil {
			named.OwnerReferences = []metav1.OwnerReference{*above}
		}
		return named
	}
	controller := func(apiVersion, kind, name string) *metav1.OwnerReference {
		return &metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name, UID: types.UID("uid-" + name), Controller: new(true)}
	}
	template := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	client := fake.NewClientset(
		&appsv1.Deployment{ObjectMeta: named("web", nil), Spec: appsv1.DeploymentSpec{Template: template, Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}}},
		&appsv1.ReplicaSet{ObjectMeta: named("web-1", controller("apps/v1", "Deployment", "web")), Spec: appsv1.ReplicaSetSpec{Template: template}},
		&appsv1.ReplicaSet{ObjectMeta: named("other-1", controller("example.org/v1", "Rollout", "web"))},
		&appsv1.StatefulSet{ObjectMeta: named("db", nil)},
		&batchv1.Job{ObjectMeta: named("sum", nil), Spec: batchv1.JobSpec{Parallelism: new(int32(3)), Template: template}},
	)
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(Slim))
	listers := newOwnerListers(factory)
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	of := func(reference *metav1.OwnerReference) owners.Owner {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}}
		if reference != nil {
			pod.OwnerReferences = []metav1.OwnerReference{*reference}
		}
		return listers.owner(pod)
	}

	if o := of(controller("apps/v1", "ReplicaSet", "web-1")); o.ReplicaSet == nil || o.Deployment == nil ||
		o.Deployment.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType || len(o.Deployment.Spec.Template.Spec.Containers) != 0 {
		t.Errorf("ReplicaSet of a Deployment: %+v", o)
	}
	if o := of(controller("apps/v1", "ReplicaSet", "other-1")); o.ReplicaSet == nil || o.Deployment != nil {
		t.Errorf("ReplicaSet of something else: %+v", o)
	}
	if o := of(controller("apps/v1", "StatefulSet", "db")); o.StatefulSet == nil {
		t.Errorf("StatefulSet: %+v", o)
	}
	if o := of(controller("batch/v1", "Job", "sum")); o.Job == nil || *o.Job.Spec.Parallelism != 3 || len(o.Job.Spec.Template.Spec.Containers) != 0 || len(o.Job.ManagedFields) != 0 {
		t.Errorf("Job: %+v", o)
	}
	recreated := controller("batch/v1", "Job", "sum")
	recreated.UID = "before"
	for name, reference := range map[string]*metav1.OwnerReference{"recreated": recreated, "gone": controller("apps/v1", "ReplicaSet", "x"), "none": nil} {
		if o := of(reference); o.Job != nil || o.ReplicaSet != nil || (o.Reference == nil) != (reference == nil) {
			t.Errorf("%s: %+v", name, o)
		}
	}
}
