package simulate

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// scheme knows what the webhook decodes.
var scheme = runtime.NewScheme()

func init() {
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
}

func labelSet(set map[string]string) labels.Set { return set }

// newOf returns an empty object of the same type.
func newOf(object client.Object) client.Object {
	switch object.(type) {
	case *corev1.Pod:
		return &corev1.Pod{}
	case *corev1.PersistentVolumeClaim:
		return &corev1.PersistentVolumeClaim{}
	case *corev1.Node:
		return &corev1.Node{}
	case *appsv1.ReplicaSet:
		return &appsv1.ReplicaSet{}
	case *batchv1.Job:
		return &batchv1.Job{}
	case *policyv1.PodDisruptionBudget:
		return &policyv1.PodDisruptionBudget{}
	case *v1alpha1.PodMigration:
		return &v1alpha1.PodMigration{}
	}
	panic(fmt.Sprintf("no patches of a %T are modelled", object))
}

// describe names an object for the trace.
func describe(object client.Object) string {
	name := kindNames[kindOf(object)] + " " + object.GetName()
	if pod, is := object.(*corev1.Pod); is {
		if role := pod.Labels[v1alpha1.RoleLabel]; role != "" {
			return role + " " + name
		}
		if pod.Labels[v1alpha1.MigrationUIDLabel] != "" {
			return "replacement " + name
		}
	}
	return name
}

// difference says in a few words what a change changes.
func difference(before, after client.Object) string {
	var parts []string
	add := func(format string, arguments ...any) { parts = append(parts, fmt.Sprintf(format, arguments...)) }
	if b, a := before.GetFinalizers(), after.GetFinalizers(); !slices.Equal(b, a) {
		add("finalizers %v", a)
	}
	if b, a := ownersOf(before), ownersOf(after); b != a {
		add("owners [%s]", a)
	}
	mapDifference(before.GetLabels(), after.GetLabels(), "label", add)
	mapDifference(before.GetAnnotations(), after.GetAnnotations(), "annotation", add)
	switch after := after.(type) {
	case *corev1.Pod:
		podDifference(before.(*corev1.Pod), after, add)
	case *v1alpha1.PodMigration:
		migrationDifference(before.(*v1alpha1.PodMigration), after, add)
	case *corev1.PersistentVolumeClaim:
		if after.Status.Phase != before.(*corev1.PersistentVolumeClaim).Status.Phase {
			add("%s", after.Status.Phase)
		}
	case *corev1.Node:
		add("unschedulable %t, ready %t", after.Spec.Unschedulable, isNodeReady(after))
	case *appsv1.ReplicaSet:
		add("wants %d, has %d, %d ready", *after.Spec.Replicas, after.Status.Replicas, after.Status.ReadyReplicas)
	case *batchv1.Job:
		add("%d active, %d succeeded, %d failed", after.Status.Active, after.Status.Succeeded, after.Status.Failed)
	}
	return strings.Join(parts, ", ")
}

func mapDifference(before, after map[string]string, what string, add func(string, ...any)) {
	for _, key := range sortedKeys(before, after) {
		b, had := before[key]
		a, has := after[key]
		short := strings.TrimPrefix(key, v1alpha1.GroupName+"/")
		switch {
		case had && !has:
			add("no %s %s", what, short)
		case b != a || !had:
			add("%s %s=%.40s", what, short, a)
		}
	}
}

func sortedKeys(sets ...map[string]string) (keys []string) {
	for _, set := range sets {
		for key := range set {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func podDifference(before, after *corev1.Pod, add func(string, ...any)) {
	if before.Spec.NodeName != after.Spec.NodeName {
		add("on %s", after.Spec.NodeName)
	}
	if before.Status.Phase != after.Status.Phase {
		add("%s", after.Status.Phase)
	}
	if isPodReady(before) != isPodReady(after) {
		add("ready %t", isPodReady(after))
	}
	if len(before.Spec.SchedulingGates) != len(after.Spec.SchedulingGates) {
		add("gates %v", after.Spec.SchedulingGates)
	}
	if before.Status.NominatedNodeName != after.Status.NominatedNodeName {
		add("nominated to %s", after.Status.NominatedNodeName)
	}
}

func migrationDifference(before, after *v1alpha1.PodMigration, add func(string, ...any)) {
	if before.Status.Phase != after.Status.Phase {
		add("phase %s", after.Status.Phase)
	}
	for _, c := range after.Status.Conditions {
		i := slices.IndexFunc(before.Status.Conditions, func(b metav1.Condition) bool { return b.Type == c.Type })
		if i < 0 || before.Status.Conditions[i].Status != c.Status || before.Status.Conditions[i].Reason != c.Reason {
			add("%s=%s (%s)", c.Type, c.Status, c.Reason)
		}
	}
	b, a := before.Status.Checkpoint, after.Status.Checkpoint
	if b != nil && a != nil {
		if b.Step != a.Step || b.Attempt != a.Attempt {
			add("step %s of attempt %d", a.Step, a.Attempt)
		}
		if !apiequality.Semantic.DeepEqual(b.Source, a.Source) && a.Source != nil {
			add("source %s %s", a.Source.Phase, a.Source.Reason)
		}
		if !apiequality.Semantic.DeepEqual(b.Destination, a.Destination) && a.Destination != nil {
			add("destination %s %s", a.Destination.Phase, a.Destination.Reason)
		}
	}
	if before.Status.Message != after.Status.Message {
		add("%q", after.Status.Message)
	}
	if before.Spec.Cancel != after.Spec.Cancel {
		add("cancel %t", after.Spec.Cancel)
	}
}

func ownersOf(object client.Object) string {
	var names []string
	for _, o := range object.GetOwnerReferences() {
		names = append(names, o.Kind+" "+o.Name)
	}
	return strings.Join(names, ", ")
}

func isNodeReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// controlledBy is a reference to a controller.
func controlledBy(object client.Object, apiVersion string) metav1.OwnerReference {
	yes := true
	return metav1.OwnerReference{APIVersion: apiVersion, Kind: kindNames[kindOf(object)], Name: object.GetName(), UID: object.GetUID(), Controller: &yes, BlockOwnerDeletion: &yes}
}

func isControlledBy(object, owner client.Object) bool {
	c := metav1.GetControllerOf(object)
	return c != nil && c.UID == owner.GetUID()
}
