package kubectl

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// drainPod is one pod of a node that is drained.
type drainPod struct {
	key      cluster.PodKey
	uid      types.UID
	workload string
	// reason explains where the pod is sorted.
	reason string
	// underWay is a migration of the pod that exists already.
	underWay *v1alpha1.PodMigration
}

// pods of a node, sorted by what a drain does with them.
type pods struct {
	moving, staying, skipped, failed []*drainPod
}

// look sorts the pods of the node.
func (d *drain) look(ctx context.Context) (*pods, error) {
	list := &corev1.PodList{}
	if err := d.client.List(ctx, list, client.MatchingFields{"spec.nodeName": d.node.Name}); err != nil {
		return nil, fmt.Errorf("listing the pods of node %s: %w", d.node.Name, err)
	}
	migrations := &v1alpha1.PodMigrationList{}
	if err := d.client.List(ctx, migrations); err != nil {
		return nil, fmt.Errorf("listing the migrations of all namespaces: %w", err)
	}
	underWay := map[cluster.PodKey]*v1alpha1.PodMigration{}
	for i := range migrations.Items {
		if m := &migrations.Items[i]; !m.Status.Phase.IsFinished() {
			underWay[cluster.PodKey{Namespace: m.Namespace, Name: m.Spec.PodName}] = m
		}
	}
	slices.SortFunc(list.Items, func(a, b corev1.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	found := &pods{}
	for i := range list.Items {
		if err := d.sort(ctx, &list.Items[i], underWay, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (d *drain) sort(ctx context.Context, pod *corev1.Pod, underWay map[cluster.PodKey]*v1alpha1.PodMigration, found *pods) error {
	p := &drainPod{
		key: cluster.PodKey{Namespace: pod.Namespace, Name: pod.Name}, uid: pod.UID,
		workload: budget.WorkloadOf(pod.Namespace, pod.Name, metav1.GetControllerOf(pod)),
	}
	if p.reason = skips(pod); p.reason != "" {
		found.skipped = append(found.skipped, p)
		return nil
	}
	if before := d.tried[pod.UID]; before != nil && before.over {
		p.reason = before.reason
		found.failed = append(found.failed, p)
		return nil
	}
	if p.underWay = underWay[p.key]; p.underWay != nil {
		p.reason = fmt.Sprintf("migration %s is under way", p.underWay.Name)
		found.moving = append(found.moving, p)
		return nil
	}
	judged, err := d.judgeRequest(ctx, d.request(p))
	switch {
	case apierrors.IsNotFound(err):
		return nil // deleted meanwhile
	case err != nil:
		return fmt.Errorf("judging pod %s: %w", p.key, err)
	case judged.refusal != nil:
		p.reason = judged.refusal.Message
		found.staying = append(found.staying, p)
	default:
		p.reason = whatMoves(judged)
		found.moving = append(found.moving, p)
	}
	return nil
}

// skips says why a drain skips a pod; "" when kubectl drain would evict it.
func skips(pod *corev1.Pod) string {
	_, static := pod.Annotations[corev1.MirrorPodAnnotationKey]
	owner := metav1.GetControllerOf(pod)
	switch {
	case static:
		return "a static pod belongs to its node"
	case owner != nil && owner.Kind == "DaemonSet":
		return fmt.Sprintf("belongs to DaemonSet %s, which runs one on each node", owner.Name)
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return fmt.Sprintf("has finished (%s)", pod.Status.Phase)
	case pod.DeletionTimestamp != nil:
		return "is being deleted"
	case pod.Labels[v1alpha1.RoleLabel] != "":
		return fmt.Sprintf("is the %s of a migration, and ends with it", pod.Labels[v1alpha1.RoleLabel])
	}
	return ""
}

func whatMoves(judged judgement) string {
	var left []string
	for _, v := range judged.verdicts {
		if !v.ShouldMigrate && v.Kind != v1alpha1.KindEphemeral {
			left = append(left, v.Name)
		}
	}
	text := "all containers move"
	if len(left) > 0 {
		text = "left out: " + strings.Join(left, ", ")
	}
	if judged.waits != "" {
		text += "; waits first: " + judged.waits
	}
	return text
}

// show writes pods that were not shown before.
func (d *drain) show(found *pods) {
	table := newTable(d.Out)
	rows := 0
	for _, group := range []struct {
		word string
		pods []*drainPod
	}{{"moves", found.moving}, {"stays", found.staying}, {"skipped", found.skipped}} {
		for _, p := range group.pods {
			if d.shown[p.uid] {
				continue
			}
			if rows == 0 {
				fmt.Fprintln(table, "POD\tDRAIN\tREASON")
			}
			d.shown[p.uid] = true
			rows++
			fmt.Fprintf(table, "%s\t%s\t%s\n", p.key, group.word, p.reason)
		}
	}
	if rows > 0 {
		fmt.Fprintln(table)
	}
	table.Flush()
}

func (d *drain) request(p *drainPod) *v1alpha1.PodMigration {
	m := d.options.request(client.ObjectKey{Namespace: p.key.Namespace, Name: p.key.Name}, "")
	m.Spec.PodUID, m.Spec.SourceNode = p.uid, d.node.Name
	return m
}
