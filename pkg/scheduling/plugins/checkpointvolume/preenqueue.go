package checkpointvolume

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// ReasonNotSealed explains why a replacement is not considered at all yet.
const ReasonNotSealed = "the original stops first, and its state is not sealed yet"

// ReasonNotTheReplacement explains why a pod is not considered that its owner made
// without the admission webhook.
const ReasonNotTheReplacement = "a migration expects its replacement in place of this pod: the admission webhook did not answer when it was created"

// ReasonMigrationUnknown explains why a placeholder is not considered yet.
const ReasonMigrationUnknown = "the migration that the pod holds a place for is not in the cache of the scheduler yet"

// PreEnqueue keeps a replacement whose original stops first out of the queue until the
// state of that is sealed. The controller holds such a pod by a scheduling gate; this is the
// net below it, for a gate that a user removed.
//
// A pod that should have become a replacement, and did not, waits too: it would
// begin without the state, and beside the original. The controller removes it, or
// gives the migration up. It reads a cache only, since the queue is locked meanwhile.
func (p *Plugin) PreEnqueue(_ context.Context, pod *corev1.Pod) *fwk.Status {
	migration := types.UID(pod.Labels[v1alpha1.MigrationUIDLabel])
	if migration == "" && p.seals.expects(pod) {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, ReasonNotTheReplacement)
	}
	if isPlaceholder(pod) && p.seals.awaits(pod, migration) {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, ReasonMigrationUnknown)
	}
	// A placeholder has a role, and must come before the seal.
	if migration == "" || pod.Labels[v1alpha1.RoleLabel] != "" || !p.seals.holds(pod, migration) {
		return nil
	}
	return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, ReasonNotSealed)
}

// isUnsealed reports whether the replacement of a migration has to wait for the
// checkpoint. Where the original stops first, nothing of the replacement may
// come to a node before it did.
func isUnsealed(m *v1alpha1.PodMigration) bool {
	checkpoint := m.Status.Checkpoint
	if m.Status.Phase.IsFinished() || checkpoint == nil || !checkpoint.Mode.CarriesVolumes() || !checkpoint.Carries() {
		return false
	}
	stopsFirst := m.Status.Handover != nil && m.Status.Handover.Order == v1alpha1.OrderStopFirst
	return stopsFirst && !meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionSealed)
}
