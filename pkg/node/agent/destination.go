package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
	"github.com/ai-storage/orchestrator/pkg/node/transfer"
)

// volumeName is what the API server takes for the name of a volume of a pod.
var volumeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// knows returns what this node knows of a migration.
func (a *agent) knows(m *v1alpha1.PodMigration) (decide.Destination, error) {
	c, pod := m.Status.Checkpoint, m.DestinationPod()
	d := decide.Destination{Node: a.node, IsTaken: a.isTaken(m), Keeps: a.hasState(m.UID)}
	if r := a.receivingOf(m.UID); r != nil {
		d.Keeps = true
		if pod != nil && r.attempt == c.Attempt && r.pod == pod.UID && !r.isClosing() {
			report := decide.CurrentDestination(m)
			d.IsOpen = report != nil && report.Address == a.address && report.Fingerprint == a.identity.Fingerprint()
			d.Pass, d.Sealed = int32(r.last().Pass), r.sealed()
		}
	}
	waiting, err := a.getWaits(m)
	if err != nil {
		return d, err
	}
	if s := c.Source; waiting != nil && s != nil && pod != nil {
		d.Waits = waiting.Digest == s.ManifestDigest && (waiting.Pod == "" || waiting.Pod == pod.UID)
	}
	return d, nil
}

func (a *agent) serveDestination(ctx context.Context, m *v1alpha1.PodMigration) error {
	knows, err := a.knows(m)
	if err != nil {
		return err
	}
	t := decide.DestinationTask(m, knows)
	switch t {
	case decide.TaskNone:
		return nil
	case decide.TaskClose:
		return a.closeReceiving(m.UID)
	case decide.TaskCancel:
		return errors.Join(a.cancelRestore(m), a.discard(ctx, m))
	case decide.TaskDiscard:
		return a.discard(ctx, m)
	}
	pod, err := a.podHere(ctx, m.Namespace, m.DestinationPod())
	if errors.Is(err, errNoProcess) {
		return nil // the controller sees that it has gone
	}
	if err != nil {
		return a.destinationFailed(ctx, m, err)
	}
	r := a.receivingOf(m.UID)
	switch t {
	case decide.TaskReceive:
		return a.receive(ctx, m, pod)
	case decide.TaskWarm:
		return a.warm(ctx, m, r)
	case decide.TaskConfirm:
		return a.confirm(ctx, m, r)
	case decide.TaskPrepare:
		return a.openGate(pod.UID)
	case decide.TaskRelease:
		return a.release(ctx, m, pod)
	case decide.TaskMiss:
		return a.destinationFailed(ctx, m, a.missing(m))
	}
	return a.restore(ctx, m, pod, t)
}

// restore gives the replacement what was sealed, in one of three ways, and reports it.
func (a *agent) restore(ctx context.Context, m *v1alpha1.PodMigration, pod *corev1.Pod, t decide.Task) error {
	report := a.destination(m, v1alpha1.DestinationRestored)
	report.ManifestDigest = m.Status.Checkpoint.Source.ManifestDigest
	report.Bytes, report.Files, report.Pass = m.Status.Checkpoint.Source.Bytes, m.Status.Checkpoint.Source.Files, m.Status.Checkpoint.Source.Pass
	err := a.while(ctx, m, func(ctx context.Context) error {
		switch t {
		case decide.TaskAdopt:
			return a.adopt(ctx, m, pod, report)
		case decide.TaskRestore:
			return a.restoreFromClaim(ctx, m, pod, report)
		case decide.TaskRestoreProcesses:
			if r := a.receivingOf(m.UID); r != nil {
				report.ClaimSealed = r.hasCopy
			}
			return a.restoreProcesses(ctx, m)
		}
		return fmt.Errorf("there is no task %q", t)
	})
	if err != nil {
		return a.destinationFailed(ctx, m, err)
	}
	report.RestoredAt = microTime(a.now())
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) { c.Destination = report })
}

// adopt gives the replacement what waits on this node.
func (a *agent) adopt(ctx context.Context, m *v1alpha1.PodMigration, pod *corev1.Pod, report *v1alpha1.DestinationReport) error {
	waiting, err := a.getWaits(m)
	if err != nil || waiting == nil {
		return errors.Join(err, errNoProcess)
	}
	if err := a.closeReceiving(m.UID); err != nil {
		return err
	}
	if err := isHeldBack(pod); err != nil {
		return err
	}
	volumes, err := a.destinationTrees(m, pod)
	if err != nil {
		return err
	}
	// From here on no other pod can have it.
	waiting.Pod = pod.UID
	if err := a.putWaits(m, *waiting); err != nil {
		return err
	}
	report.ClaimSealed = waiting.ClaimSealed
	if err := transfer.Adopt(ctx, m.UID, a.waitingVolumes(m), volumes, a.stateIn(m, string(pod.UID)+".adoption")); err != nil {
		return err
	}
	a.metrics.passed(passAdopt, transfer.PassResult{})
	return nil
}

// restoreFromClaim restores the sealed copy on the claim.
func (a *agent) restoreFromClaim(ctx context.Context, m *v1alpha1.PodMigration, pod *corev1.Pod, report *v1alpha1.DestinationReport) error {
	digest, err := digestOf(report.ManifestDigest)
	if err != nil {
		return err
	}
	if err := isHeldBack(pod); err != nil {
		return err
	}
	from, err := a.sealedCopy(m, pod)
	if err != nil {
		return err
	}
	volumes, err := a.destinationTrees(m, pod)
	if err != nil {
		return err
	}
	if err := a.makeState(m); err != nil {
		return err
	}
	restoring := a.restoring(ctx, m)
	restoring(transfer.Progress{})
	to, err := transfer.OpenDestination(ctx, transfer.DestinationConfig{Migration: m.UID, Volumes: volumes, State: a.stateIn(m, string(pod.UID)), Progress: restoring})
	if err != nil {
		return err
	}
	result, err := transfer.Restore(ctx, from, digest, a.stateIn(m, string(pod.UID)+".copy"), to)
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	a.metrics.passed(passRestore, result)
	report.Bytes, report.Files = result.Bytes, result.Files
	return nil
}

// restoring reports, at once and then at most once a second, that a copy is being restored:
// it may take minutes.
func (a *agent) restoring(ctx context.Context, m *v1alpha1.PodMigration) func(transfer.Progress) {
	every, seen := newThrottle(progressInterval, time.Time{}), m.DeepCopy()
	return func(p transfer.Progress) {
		if !every.isDue(a.clock.Now()) {
			return
		}
		// Work that is not wanted any more is ended by while.
		_ = a.reportLate(ctx, seen.DeepCopy(), func(c *v1alpha1.CheckpointStatus) {
			c.Destination = a.destination(seen, v1alpha1.DestinationRestoring)
			c.Destination.Bytes, c.Destination.Files = p.Bytes, p.Files
		})
	}
}

// missing says where the state is that a replacement would need here.
func (a *agent) missing(m *v1alpha1.PodMigration) error {
	return fmt.Errorf("the state of the pod waits on node %s, in %s, and not on %s, and there is no claim that it could be restored from",
		m.HeldNode(), a.waitingPath(m), a.node)
}

// waitingPath is how a node names the directory of what waits.
func (a *agent) waitingPath(m *v1alpha1.PodMigration) string {
	return filepath.Join(a.kubelet, v1alpha1.WaitingDirectory(m.UID, m.Status.Checkpoint.Attempt))
}

// destination is a report on the pod that the destination works for, of this attempt.
func (a *agent) destination(m *v1alpha1.PodMigration, phase v1alpha1.DestinationPhase) *v1alpha1.DestinationReport {
	report := &v1alpha1.DestinationReport{Node: a.node, Attempt: m.Status.Checkpoint.Attempt, Phase: phase, Address: a.address, Fingerprint: a.identity.Fingerprint()}
	if pod := m.DestinationPod(); pod != nil {
		report.PodUID = pod.UID
	}
	return report
}

func (a *agent) destinationFailed(ctx context.Context, m *v1alpha1.PodMigration, failure error) error {
	if isTransient(failure) {
		return failure
	}
	report := a.destination(m, v1alpha1.DestinationFailed)
	report.Reason, report.Message = a.metrics.failed(failure), message(failure)
	ctrl.LoggerFrom(ctx).Error(failure, "Failed to restore the volumes of a pod", "migration", klog.KObj(m), "pod", report.PodUID, "reason", report.Reason)
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) { c.Destination = report })
}

// release lets the replacement run: its containers start, or its restored processes
// continue.
func (a *agent) release(ctx context.Context, m *v1alpha1.PodMigration, pod *corev1.Pod) error {
	// Nothing is written to its volumes any more once its containers write.
	if err := a.closeReceiving(m.UID); err != nil {
		return err
	}
	if !slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == v1alpha1.GateContainer }) {
		return a.destinationFailed(ctx, m, refused("pod %s/%s has no gate", pod.Namespace, pod.Name))
	}
	released := a.now()
	if err := a.continueProcesses(m); transfer.ReasonOf(err) == v1alpha1.ReportProcessNotMovable {
		return a.destinationFailed(ctx, m, err)
	} else if err != nil {
		return err
	}
	if err := a.openGate(pod.UID); err != nil {
		return err
	}
	ctrl.LoggerFrom(ctx).Info("Released a replacement", "pod", klog.KObj(pod), "duration", time.Since(released.Time))
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) {
		if c.Destination != nil {
			c.Destination.Phase, c.Destination.ReleasedAt = v1alpha1.DestinationReleased, &released
		}
	})
}

// discard removes what this node keeps of a migration. What says that there is something
// goes last.
func (a *agent) discard(ctx context.Context, m *v1alpha1.PodMigration) error {
	if err := a.closeReceiving(m.UID); err != nil {
		return err
	}
	a.closeSending(types.NamespacedName{Namespace: m.Namespace, Name: m.Name})
	if m.Status.Phase == v1alpha1.PhaseSucceeded && decide.MayRemove(m) {
		if err := a.removeCopy(ctx, m); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "A sealed copy stays on its claim", "migration", klog.KObj(m))
		}
	}
	return a.removeState(m.UID)
}
