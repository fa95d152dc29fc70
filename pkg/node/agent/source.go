package agent

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
	"github.com/ai-storage/orchestrator/pkg/node/checkpoint"
)

const (
	// maxPasses bounds the copying while the pod runs: a pod that writes faster
	// than it can be copied would never end it.
	maxPasses = 8
	// A pass that wrote this little, in bytes or in percent of all, is short enough for
	// the pod to be frozen for the next one.
	shortPassBytes   = 16 << 20
	shortPassPercent = 5
	// progressInterval is how often progress is reported.
	progressInterval = time.Second
)

// ReasonFreezeTooLong: the last copy took longer than a pod may stay frozen.
const ReasonFreezeTooLong = "FreezeTooLong"

func (a *agent) serveSource(ctx context.Context, m *v1alpha1.PodMigration) (ctrl.Result, error) {
	key := client.ObjectKeyFromObject(m)
	frozen, err := a.records.get(m.UID)
	if err != nil {
		return ctrl.Result{}, err
	}
	var original decide.Original
	if frozen != nil {
		found, err := a.pod(ctx, m.Namespace, m.Status.Original)
		if err != nil {
			return ctrl.Result{}, err
		}
		original = decide.Original{FrozenIn: frozen.Attempt, IsLeaving: found == nil || found.DeletionTimestamp != nil}
	}
	t := decide.SourceTask(m, original)
	if t != decide.TaskCopy && t != decide.TaskSeal && (m.Status.Checkpoint == nil || m.Status.Checkpoint.Step != v1alpha1.StepCopy) {
		a.closeWriter(key)
	}
	pod := m.Status.Original.UID
	switch t {
	case decide.TaskMeasure:
		return ctrl.Result{}, a.measure(ctx, m)
	case decide.TaskCopy:
		return ctrl.Result{}, a.copyWhileRunning(ctx, m)
	case decide.TaskSeal:
		return ctrl.Result{}, a.seal(ctx, m, frozen != nil)
	case decide.TaskReportAndThaw:
		err := a.report(ctx, m, func(c *v1alpha1.CheckpointStatus) { a.source(c).Phase = v1alpha1.SourceThawed })
		if err != nil {
			return ctrl.Result{}, err
		}
		return ctrl.Result{}, a.unfreeze(m.UID, pod)
	case decide.TaskThaw:
		return ctrl.Result{}, a.unfreeze(m.UID, pod)
	case decide.TaskKill:
		if err := a.ops.Kill(pod); err != nil {
			return ctrl.Result{}, err
		}
		ctrl.LoggerFrom(ctx).Info("Killing a frozen pod whose replacement has its state", "pod", klog.KRef(m.Namespace, m.Status.Original.Name))
		return ctrl.Result{}, a.unfreeze(m.UID, pod)
	case decide.TaskKeepFrozen:
		return ctrl.Result{RequeueAfter: lookAgain}, nil
	}
	return ctrl.Result{}, nil
}

func (a *agent) unfreeze(migration, pod types.UID) error {
	if err := a.ops.Thaw(pod); err != nil {
		return err
	}
	return a.records.remove(migration)
}

// source returns the report of this attempt, to be changed.
func (a *agent) source(c *v1alpha1.CheckpointStatus) *v1alpha1.SourceReport {
	if c.Source == nil || c.Source.Attempt != c.Attempt {
		c.Source = &v1alpha1.SourceReport{Attempt: c.Attempt}
	}
	c.Source.Node = a.node
	return c.Source
}

func (a *agent) measure(ctx context.Context, m *v1alpha1.PodMigration) error {
	var size checkpoint.Size
	err := a.while(ctx, m, func(ctx context.Context) error {
		moving, err := a.moving(ctx, m)
		if err != nil {
			return err
		}
		trees, err := a.sourceTrees(m, moving)
		if err != nil {
			return err
		}
		if size, err = checkpoint.Measure(ctx, trees); err != nil {
			return err
		}
		memory, err := a.movable(moving)
		size.Bytes += memory
		return err
	})
	if err != nil {
		return a.sourceFailed(ctx, m, err)
	}
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) {
		s := a.source(c)
		s.Phase, s.Bytes, s.Files = v1alpha1.SourceMeasured, size.Bytes, size.Files
	})
}

// sourceFailed reports a failure that will not pass by itself.
func (a *agent) sourceFailed(ctx context.Context, m *v1alpha1.PodMigration, failure error) error {
	if isTransient(failure) {
		return failure
	}
	reason := a.metrics.failed(failure)
	ctrl.LoggerFrom(ctx).Error(failure, "Failed to copy the volumes of a pod", "pod", klog.KRef(m.Namespace, m.Status.Original.Name), "reason", reason)
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) {
		s := a.source(c)
		s.Phase, s.Reason, s.Message = v1alpha1.SourceFailed, reason, failure.Error()
		if reason == ReasonFreezeTooLong {
			s.Message = fmt.Sprintf("the pod was frozen for %s, half of spec.checkpoint.maxFreezeSeconds, without a seal: %v", sealTimeout(m), failure)
		}
	})
}

// writer returns the open writer of this attempt, or opens one once the carrier
// has the claim.
func (a *agent) writer(ctx context.Context, m *v1alpha1.PodMigration) (*openWriter, error) {
	key, c := client.ObjectKeyFromObject(m), m.Status.Checkpoint
	a.mu.Lock()
	known := a.writers[key]
	a.mu.Unlock()
	if known != nil && known.migration == m.UID && known.attempt == c.Attempt {
		return known, nil
	}
	a.closeWriter(key)
	if c.Carrier == nil || c.Carrier.UID == "" {
		return nil, errNoProcess
	}
	carrier, err := a.pod(ctx, m.Namespace, c.Carrier)
	if err != nil {
		return nil, err
	}
	if carrier == nil || carrier.Status.Phase != corev1.PodRunning || len(carrier.Status.ContainerStatuses) == 0 {
		return nil, errNoProcess
	}
	directory, err := a.ops.ClaimDirectory(carrier.UID, containerID(carrier.Status.ContainerStatuses[0]))
	if err != nil {
		return nil, err
	}
	moving, err := a.moving(ctx, m)
	if err != nil {
		return nil, err
	}
	trees, err := a.sourceTrees(m, moving)
	if err != nil {
		return nil, err
	}
	w, err := checkpoint.OpenWriter(directory, m.UID, trees)
	if err != nil {
		return nil, err
	}
	open := &openWriter{Writer: w, migration: m.UID, attempt: c.Attempt, containers: moving}
	a.mu.Lock()
	a.writers[key] = open
	a.mu.Unlock()
	return open, nil
}

// copyWhileRunning copies in passes until the next one is short.
func (a *agent) copyWhileRunning(ctx context.Context, m *v1alpha1.PodMigration) error {
	w, err := a.writer(ctx, m)
	if err != nil {
		return a.sourceFailed(ctx, m, err)
	}
	var result checkpoint.PassResult
	err = a.while(ctx, m, func(ctx context.Context) (err error) {
		for pass := 1; ; pass++ {
			if result, err = w.Pass(ctx, false, a.progress(ctx, m)); err != nil {
				return err
			}
			a.metrics.passed(passCopy, result)
			if pass == maxPasses || isShort(m.Status.Checkpoint.Mode, result) {
				return nil
			}
		}
	})
	if err != nil {
		a.closeWriter(client.ObjectKeyFromObject(m))
		return a.sourceFailed(ctx, m, err)
	}
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) { a.copied(c, result).Phase = v1alpha1.SourceCopied })
}

// isShort reports whether the next pass is short. Without freezing only a pass
// without changes is.
func isShort(mode v1alpha1.CheckpointMode, r checkpoint.PassResult) bool {
	if mode == v1alpha1.CheckpointLive {
		return r.Written == 0 && r.Removed == 0
	}
	return r.Written <= shortPassBytes || r.Written*100 <= r.Bytes*shortPassPercent
}

func (a *agent) copied(c *v1alpha1.CheckpointStatus, r checkpoint.PassResult) *v1alpha1.SourceReport {
	s := a.source(c)
	s.Bytes, s.Files, s.Pass, s.PassBytes = r.Bytes, r.Files, r.Pass, r.Written
	return s
}

// progress reports at most once a second; a report that fails is not missed.
func (a *agent) progress(ctx context.Context, m *v1alpha1.PodMigration) func(checkpoint.Progress) {
	every := newThrottle(progressInterval, a.clock.Now())
	seen := m.DeepCopy()
	return func(p checkpoint.Progress) {
		if !every.isDue(a.clock.Now()) {
			return
		}
		now := &v1alpha1.PodMigration{}
		if err := a.live.Get(ctx, client.ObjectKeyFromObject(m), now); err != nil || !decide.IsSame(seen, now) {
			return
		}
		_ = a.report(ctx, now, func(c *v1alpha1.CheckpointStatus) {
			s := a.source(c)
			s.Phase, s.Bytes, s.Files = v1alpha1.SourceCopying, p.Bytes, p.Files
		})
	}
}

// seal makes the last copy. In mode Frozen the pod is frozen from before it until it
// is killed, or until the migration is rolled back.
func (a *agent) seal(ctx context.Context, m *v1alpha1.PodMigration, wasFrozen bool) error {
	pod := m.Status.Original.UID
	if wasFrozen {
		// By an agent that did not live to seal. What it knew of the files is lost:
		// the pod runs while they are copied again.
		if err := a.unfreeze(m.UID, pod); err != nil {
			return err
		}
	}
	w, err := a.writer(ctx, m)
	if err != nil {
		return a.sourceFailed(ctx, m, err)
	}
	defer a.closeWriter(client.ObjectKeyFromObject(m))
	defer a.removeDump(ctx, m)
	sealed := &v1alpha1.SourceReport{}
	err = a.while(ctx, m, func(ctx context.Context) error {
		result, err := w.Pass(ctx, false, nil)
		if err != nil {
			return err
		}
		a.metrics.passed(passCopy, result)
		return a.lastPass(ctx, m, w, sealed)
	})
	if err != nil {
		// Reported first, thawed after: no client takes this for a seal.
		return a.sourceFailed(ctx, m, err)
	}
	// From here on only an answer of the API server decides whether the pod may be
	// thawed: the report may have arrived although it seems lost.
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) {
		sealed.Attempt, sealed.Node = c.Attempt, a.node
		c.Source = sealed
	})
}

// sealTimeout bounds how long a pod may be frozen before there is a seal; the
// other half is the destination's.
func sealTimeout(m *v1alpha1.PodMigration) time.Duration { return m.Spec.Checkpoint.MaxFreeze() / 2 }

// lastPass freezes, copies and seals.
func (a *agent) lastPass(ctx context.Context, m *v1alpha1.PodMigration, w *openWriter, sealed *v1alpha1.SourceReport) error {
	frozen := m.Status.Checkpoint.Mode != v1alpha1.CheckpointLive
	if frozen {
		err := a.records.put(record{
			Namespace: m.Namespace, Name: m.Name, Migration: m.UID, Attempt: m.Status.Checkpoint.Attempt,
			Pod: m.Status.Original.UID, PodName: m.Status.Original.Name,
		})
		if err != nil {
			return err
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, sealTimeout(m))
		defer cancel()
		if err := a.freeze(ctx, m, w, sealed); err != nil {
			return err
		}
	}
	for pass := 1; ; pass++ {
		result, err := w.Pass(ctx, frozen, nil)
		if err != nil {
			return err
		}
		digest, err := w.Seal(ctx)
		if checkpoint.ReasonOf(err) == checkpoint.ReasonChanged && !frozen && pass < maxPasses {
			continue
		}
		if err == nil && len(w.containers) > 0 {
			err = a.ops.CheckFrozen(m.Status.Original.UID, ids(w.containers))
		}
		if err != nil {
			return fmt.Errorf("sealing: %w", err)
		}
		a.metrics.passed(passSeal, result)
		sealed.Phase, sealed.ManifestDigest, sealed.SealedAt = v1alpha1.SourceSealed, digest, microTime(a.now())
		sealed.Bytes, sealed.Files, sealed.Pass, sealed.PassBytes = result.Bytes, result.Files, result.Pass, result.Written
		if sealed.FrozenAt != nil {
			a.metrics.froze(sealed.FrozenAt.Time, sealed.SealedAt.Time)
		}
		return nil
	}
}
