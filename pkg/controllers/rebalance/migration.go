package rebalance

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

// validate reads the pod of a move, and says why the move no longer holds; "" when it
// does.
func (l *Loop) validate(ctx context.Context, move *planner.Move, pod *corev1.Pod) (stale string, err error) {
	err = l.Live.Get(ctx, client.ObjectKey{Namespace: move.Pod.Namespace, Name: move.Pod.Name}, pod)
	switch {
	case apierrors.IsNotFound(err):
		return "the pod is gone", nil
	case err != nil:
		return "", fmt.Errorf("reading the pod: %w", err)
	case pod.UID != move.UID:
		return "another pod has taken the name", nil
	case pod.DeletionTimestamp != nil:
		return "the pod is being deleted", nil
	case pod.Spec.NodeName != move.From:
		return "the pod runs on node " + pod.Spec.NodeName, nil
	case pods.IsTerminal(pod):
		return "the pod has finished", nil
	case owners.Excluded(pod) != "":
		return owners.Excluded(pod), nil
	}
	node := &corev1.Node{}
	err = l.Live.Get(ctx, client.ObjectKey{Name: move.To}, node)
	switch {
	case apierrors.IsNotFound(err):
		return "node " + move.To + " is gone", nil
	case err != nil:
		return "", fmt.Errorf("reading node %s: %w", move.To, err)
	case node.Spec.Unschedulable:
		return "node " + move.To + " was cordoned", nil
	}
	return "", nil
}

// newMigration asks for a move. The planned node is a wish, not an order: the
// scheduler decides with what it knows when the replacement is there.
func newMigration(move *planner.Move, pod *corev1.Pod, args *config.RebalanceArgs) *v1alpha1.PodMigration {
	m := &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:    move.Pod.Namespace,
			GenerateName: move.Pod.Name + "-",
			Labels: map[string]string{
				v1alpha1.AppLabel:       v1alpha1.AppLabelValue,
				v1alpha1.CreatedByLabel: v1alpha1.CreatedByRebalancer,
			},
		},
		Spec: v1alpha1.PodMigrationSpec{
			PodName:                 move.Pod.Name,
			PodUID:                  move.UID,
			SourceNode:              move.From,
			PlannedNode:             move.To,
			TimeoutSeconds:          int32(args.MigrationTimeout.Seconds()),
			TTLSecondsAfterFinished: historySeconds(args),
			Reason:                  move.Reason,
		},
	}
	checkpoint := &m.Spec.Checkpoint
	checkpoint.Mode, checkpoint.Claim = containers.PreferredMode(pod), v1alpha1.ClaimNever
	if class := args.CheckpointStorageClassName; class != "" {
		// The pod brings the claim along, and could not be moved again were it for one node.
		checkpoint.Claim, checkpoint.StorageClassName, checkpoint.AccessMode = v1alpha1.ClaimAlways, &class, corev1.ReadWriteMany
	}
	return m
}
