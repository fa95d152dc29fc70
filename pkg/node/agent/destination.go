package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
	"github.com/ai-storage/orchestrator/pkg/node/checkpoint"
)

func (a *agent) serveDestination(ctx context.Context, m *v1alpha1.PodMigration) (ctrl.Result, error) {
	t := decide.DestinationTask(m)
	if t == decide.TaskNone {
		if c := m.Status.Checkpoint; c == nil || c.Step != v1alpha1.StepCopy && c.Step != v1alpha1.StepSeal {
			a.closeReader(client.ObjectKeyFromObject(m))
		}
		return ctrl.Result{}, nil
	}
	pod, err := a.pod(ctx, m.Namespace, m.Status.Replacement)
	if err != nil || pod == nil {
		return ctrl.Result{}, err
	}
	switch t {
	case decide.TaskRelease:
		return ctrl.Result{}, a.release(ctx, m)
	case decide.TaskPrepare:
		return ctrl.Result{}, a.openGate(pod.UID)
	case decide.TaskCancel:
		return ctrl.Result{}, a.cancelRestore(m)
	}
	var result checkpoint.PassResult
	err = a.while(ctx, m, func(ctx context.Context) (err error) {
		result, err = a.restoreInto(ctx, m, pod, t)
		return err
	})
	if t == decide.TaskWarmUp && isPassing(err) {
		return ctrl.Result{RequeueAfter: lookAgain}, a.stillPassing(ctx, m, err)
	}
	if err != nil {
		a.closeReader(client.ObjectKeyFromObject(m))
		return ctrl.Result{}, a.destinationFailed(ctx, m, err)
	}
	a.metrics.passed(map[decide.Task]string{decide.TaskWarmUp: passWarmUp, decide.TaskRestore: passRestore}[t], result)
	return ctrl.Result{}, a.restored(ctx, m, t, result)
}

// restoreInto restores the volumes of the replacement and, once they are sealed, the
// processes of its containers.
func (a *agent) restoreInto(ctx context.Context, m *v1alpha1.PodMigration, pod *corev1.Pod, t decide.Task) (checkpoint.PassResult, error) {
	source := m.Status.Checkpoint.Source
	if t == decide.TaskRestore && a.isTaken(m) {
		// An earlier agent got so far.
		return checkpoint.PassResult{Pass: source.Pass, Bytes: source.Bytes, Files: source.Files}, a.restoreProcesses(ctx, m)
	}
	r, err := a.reader(ctx, m, pod)
	if err != nil {
		return checkpoint.PassResult{}, err
	}
	if t == decide.TaskWarmUp {
		return r.Restore(ctx, a.warming(ctx, m))
	}
	var progress func(checkpoint.Progress)
	if m.Status.Checkpoint.RecoveredFrom != "" {
		// Nothing was restored before, so that this takes its time.
		progress = a.warming(ctx, m)
		progress(checkpoint.Progress{})
	}
	result, err := r.RestoreSealed(ctx, source.ManifestDigest, progress)
	if err == nil && len(m.Status.Checkpoint.Processes) > 0 {
		err = a.restoreProcesses(ctx, m)
	}
	return result, err
}

// isPassing reports whether a failure only says that the next pass is being written.
func isPassing(err error) bool {
	reason := checkpoint.ReasonOf(err)
	return reason == checkpoint.ReasonNoManifest || reason == checkpoint.ReasonCorrupt
}

// stillPassing reports, once, that there is nothing on the claim to restore.
func (a *agent) stillPassing(ctx context.Context, m *v1alpha1.PodMigration, failure error) error {
	report := decide.CurrentDestination(m)
	if checkpoint.ReasonOf(failure) != checkpoint.ReasonNoManifest || report != nil && report.Reason == checkpoint.ReasonNoManifest {
		return nil
	}
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) {
		c.Destination = a.destination(m, v1alpha1.DestinationRestoring)
		c.Destination.Reason, c.Destination.Message = checkpoint.ReasonNoManifest, message(failure)
	})
}

// warming reports that the first restoration is under way, at once and then at most
// once a second: it may take minutes.
func (a *agent) warming(ctx context.Context, m *v1alpha1.PodMigration) func(checkpoint.Progress) {
	every, seen := newThrottle(progressInterval, time.Time{}), m.DeepCopy()
	return func(p checkpoint.Progress) {
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

// destination is a report on the replacement of this attempt.
func (a *agent) destination(m *v1alpha1.PodMigration, phase v1alpha1.DestinationPhase) *v1alpha1.DestinationReport {
	return &v1alpha1.DestinationReport{Node: a.node, Attempt: m.Status.Checkpoint.Attempt, PodUID: m.Status.Replacement.UID, Phase: phase}
}

func (a *agent) restored(ctx context.Context, m *v1alpha1.PodMigration, t decide.Task, r checkpoint.PassResult) error {
	report := a.destination(m, v1alpha1.DestinationWarm)
	report.Pass, report.Bytes, report.Files = r.Pass, r.Bytes, r.Files
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) {
		c.Destination = report
		if t == decide.TaskRestore {
			c.Destination.Phase, c.Destination.RestoredAt = v1alpha1.DestinationRestored, microTime(a.now())
		}
	})
}

func (a *agent) destinationFailed(ctx context.Context, m *v1alpha1.PodMigration, failure error) error {
	if isTransient(failure) {
		return failure
	}
	report := a.destination(m, v1alpha1.DestinationFailed)
	report.Reason, report.Message = a.metrics.failed(failure), message(failure)
	ctrl.LoggerFrom(ctx).Error(failure, "Failed to restore the volumes of a pod", "pod", klog.KRef(m.Namespace, m.Status.Replacement.Name), "reason", report.Reason)
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) { c.Destination = report })
}

// reader returns the open reader of this attempt, or opens one once the gate of
// the replacement has the claim.
func (a *agent) reader(ctx context.Context, m *v1alpha1.PodMigration, pod *corev1.Pod) (*openReader, error) {
	key, c := client.ObjectKeyFromObject(m), m.Status.Checkpoint
	a.mu.Lock()
	known := a.readers[key]
	a.mu.Unlock()
	if known != nil && known.pod == pod.UID && known.attempt == c.Attempt {
		return known, nil
	}
	a.closeReader(key)
	gate := ""
	for _, s := range pod.Status.InitContainerStatuses {
		switch {
		case s.Name != v1alpha1.GateContainer:
		case s.State.Running != nil:
			gate = containerID(s)
		case s.State.Terminated != nil:
			// The original is frozen meanwhile, and is thawed the sooner.
			return nil, errors.New("the gate that held the claim has ended, and with it the way to the claim: this node agent was restarted after it let containers wait for their processes")
		}
	}
	if gate == "" {
		return nil, errNoProcess
	}
	directory, err := a.ops.ClaimDirectory(pod.UID, gate)
	if err != nil {
		return nil, err
	}
	trees, err := a.destinationTrees(m, pod, gate)
	if err != nil {
		return nil, err
	}
	r, err := checkpoint.OpenReader(directory, m.CheckpointUID(), trees)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, r.Close()) // it took so long that nobody waits for it
	}
	open := &openReader{Reader: r, pod: pod.UID, attempt: c.Attempt}
	a.mu.Lock()
	a.readers[key] = open
	a.mu.Unlock()
	return open, nil
}

// openGate lets the containers of the replacement start.
func (a *agent) openGate(pod types.UID) error {
	directory := a.ops.EmptyDir(pod, v1alpha1.GateVolumeName)
	// It must not wait for the other end of a FIFO, nor follow a link.
	file, err := os.OpenFile(filepath.Join(directory, v1alpha1.GateOpenFile), os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return fmt.Errorf("opening the gate: %w", err)
	}
	return file.Close()
}

// release lets the replacement run: its containers start, or its restored processes
// continue.
func (a *agent) release(ctx context.Context, m *v1alpha1.PodMigration) error {
	a.closeReader(client.ObjectKeyFromObject(m))
	released := a.now()
	if err := a.continueProcesses(m); checkpoint.ReasonOf(err) == v1alpha1.ReportProcessNotMovable {
		return a.destinationFailed(ctx, m, err)
	} else if err != nil {
		return err
	}
	if err := a.openGate(m.Status.Replacement.UID); err != nil {
		return err
	}
	ctrl.LoggerFrom(ctx).Info("Released a replacement", "pod", klog.KRef(m.Namespace, m.Status.Replacement.Name), "duration", time.Since(released.Time))
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) {
		if c.Destination != nil {
			c.Destination.Phase, c.Destination.ReleasedAt = v1alpha1.DestinationReleased, &released
		}
	})
}

// containerID is the ID without the name of the runtime, "containerd://<id>".
func containerID(s corev1.ContainerStatus) string {
	_, id, _ := strings.Cut(s.ContainerID, "://")
	return id
}
