package simulate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
)

// Objects are those of a script when nothing happens any more, as the API has them.
type Objects struct {
	// Original is the pod that was to move, as it was when that was asked for.
	Original *corev1.Pod
	// Migration and Owner are nil when there is none.
	Migration *v1alpha1.PodMigration
	Owner     client.Object
	Pods      []corev1.Pod
	Claims    []corev1.PersistentVolumeClaim
}

// End is what came of a script, in words that do not depend on names, times and nodes. Two
// that are equal are the same end.
type End struct {
	// Migration is its phase, its reason and whether it was committed; "deleted" without one.
	Migration string
	// Owner is what the owner of the pod counts.
	Owner string
	// Pods and Claims are what is left, and what is written on it.
	Pods, Claims []string
}

// String is an end in lines.
func (e End) String() string {
	return fmt.Sprintf("migration: %s\nowner: %s\npods: %s\nclaims: %s", e.Migration, e.Owner, strings.Join(e.Pods, "; "), strings.Join(e.Claims, "; "))
}

// End puts the objects into words. continues tells whether a pod that is Ready makes
// progress with the work that the original had done.
func (o Objects) End(continues func(*corev1.Pod) bool) End {
	e := End{Migration: o.migration(), Owner: ownerStatus(o.Owner)}
	for i := range o.Pods {
		e.Pods = append(e.Pods, o.pod(&o.Pods[i], continues))
	}
	for i := range o.Claims {
		e.Claims = append(e.Claims, o.claim(&o.Claims[i]))
	}
	slices.Sort(e.Pods)
	slices.Sort(e.Claims)
	return e
}

func (o Objects) migration() string {
	m := o.Migration
	if m == nil {
		return "deleted"
	}
	text := fmt.Sprintf("%s (%s)", cmp.Or(m.Status.Phase, v1alpha1.PhasePending), migration.ReasonOf(m))
	if meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionCommitted) {
		text += ", committed"
	}
	return text + finalizersOf(m)
}

// role is what a pod is to the migration.
func (o Objects) role(p *corev1.Pod) string {
	switch {
	case p.UID == o.Original.UID:
		return "original"
	case p.Labels[v1alpha1.RoleLabel] != "":
		return p.Labels[v1alpha1.RoleLabel]
	case p.Labels[v1alpha1.MigrationUIDLabel] != "":
		return "replacement"
	}
	return "plain pod"
}

func (o Objects) pod(p *corev1.Pod, continues func(*corev1.Pod) bool) string {
	role := o.role(p)
	parts := []string{role}
	isOnSource := p.Spec.NodeName == o.Original.Spec.NodeName
	switch {
	case p.Spec.NodeName == "":
		parts = append(parts, "on no node")
	case role == "plain pod": // may be anywhere
	case isOnSource:
		parts = append(parts, "on the source")
	default:
		parts = append(parts, "on the destination")
	}
	switch {
	case p.DeletionTimestamp != nil:
		parts = append(parts, "terminating")
	case !isPodReady(p):
		parts = append(parts, string(p.Status.Phase)+", not ready")
	case continues(p):
		parts = append(parts, "continues")
	default:
		parts = append(parts, "started again")
	}
	restarts := int32(0)
	for _, c := range p.Status.ContainerStatuses {
		restarts += c.RestartCount
	}
	parts = append(parts, fmt.Sprintf("%d restarts", restarts))
	if c := metav1.GetControllerOf(p); c != nil {
		parts = append(parts, "owned by a "+c.Kind)
	}
	if n := len(p.Spec.SchedulingGates); n > 0 {
		parts = append(parts, fmt.Sprintf("%d scheduling gates", n))
	}
	return strings.Join(parts, ", ") + marksOf(p) + finalizersOf(p)
}

func (o Objects) claim(c *corev1.PersistentVolumeClaim) string {
	text := "claim of others"
	if c.Labels[v1alpha1.MigrationUIDLabel] != "" {
		text = "checkpoint"
	}
	if c.DeletionTimestamp != nil {
		text += ", terminating"
	}
	if len(c.OwnerReferences) == 0 {
		text += ", owned by nobody"
	}
	for _, owner := range c.OwnerReferences {
		i := slices.IndexFunc(o.Pods, func(p corev1.Pod) bool { return p.UID == owner.UID })
		if i < 0 {
			text += ", owned by a " + owner.Kind
		} else {
			text += ", owned by the " + o.role(&o.Pods[i])
		}
	}
	return text + finalizersOf(c)
}

// marksOf are the labels and annotations that a migration writes, and those by which it
// tells an owner which pod to delete.
func marksOf(p *corev1.Pod) string {
	var keys []string
	for _, key := range sortedKeys(p.Labels, p.Annotations) {
		short, ours := strings.CutPrefix(key, v1alpha1.GroupName+"/")
		if ours && key != v1alpha1.ExcludeAnnotation || key == corev1.PodDeletionCost {
			keys = append(keys, short)
		}
	}
	if len(keys) == 0 {
		return ""
	}
	return fmt.Sprintf(", marks %v", keys)
}

func finalizersOf(object client.Object) string {
	var ours []string
	for _, f := range object.GetFinalizers() {
		if short, is := strings.CutPrefix(f, v1alpha1.GroupName+"/"); is {
			ours = append(ours, short)
		}
	}
	if len(ours) == 0 {
		return ""
	}
	slices.Sort(ours)
	return fmt.Sprintf(", finalizers %v", ours)
}

func ownerStatus(owner client.Object) string {
	switch o := owner.(type) {
	case *appsv1.Deployment:
		return fmt.Sprintf("Deployment wants %d, has %d, %d updated, %d ready", *o.Spec.Replicas, o.Status.Replicas, o.Status.UpdatedReplicas, o.Status.ReadyReplicas)
	case *appsv1.StatefulSet:
		return fmt.Sprintf("StatefulSet wants %d, has %d, %d updated, %d ready", *o.Spec.Replicas, o.Status.Replicas, o.Status.UpdatedReplicas, o.Status.ReadyReplicas)
	case *batchv1.Job:
		return fmt.Sprintf("Job has %d active, %d failed, %d succeeded, suspended %t", o.Status.Active, o.Status.Failed, o.Status.Succeeded, ptr.Deref(o.Spec.Suspend, false))
	}
	return "none"
}
