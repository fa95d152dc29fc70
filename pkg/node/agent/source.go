package agent

import (
	"context"
	"errors"
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
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
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
	if frozen != nil && frozen.Sealed {
		held, err := a.hold(ctx, *frozen)
		if err != nil {
			return ctrl.Result{}, err
		}
		frozen = &held
	}
	original, err := a.look(ctx, m, frozen)
	if err != nil {
		return ctrl.Result{}, err
	}
	t := decide.SourceTask(m, original)
	if t != decide.TaskCopy && t != decide.TaskSeal && (m.Status.Checkpoint == nil || m.Status.Checkpoint.Step != v1alpha1.StepCopy) {
		a.closeWriter(key)
	}
	switch t {
	case decide.TaskMeasure:
		return ctrl.Result{}, a.measure(ctx, m)
	case decide.TaskCopy:
		return ctrl.Result{}, a.copyWhileRunning(ctx, m)
	case decide.TaskSeal:
		return ctrl.Result{}, a.seal(ctx, m, frozen)
	case decide.TaskNone:
		return ctrl.Result{}, nil
	}
	if frozen == nil {
		frozen = &record{Namespace: m.Namespace, Name: m.Name, Migration: m.UID, Pod: m.Status.Original.UID, PodName: m.Status.Original.Name}
	}
	return ctrl.Result{}, a.attend(ctx, m, *frozen, t)
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
		s.Phase, s.Reason, s.Message = v1alpha1.SourceFailed, reason, message(failure)
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
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, w.Close()) // it took so long that nobody waits for it
	}
	open := &openWriter{Writer: w, migration: m.UID, attempt: c.Attempt, containers: moving}
	a.mu.Lock()
	a.writers[key] = open
	a.mu.Unlock()
	return open, nil
}

// copyWhileRunning copies in passes until the next one is short.
func (a *agent) copyWhileRunning(ctx context.Context, m *v1alpha1.PodMigration) error {
	var result checkpoint.PassResult
	err := a.while(ctx, m, func(ctx context.Context) error {
		w, err := a.writer(ctx, m)
		if err != nil {
			return err
		}
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
func (a *agent) seal(ctx context.Context, m *v1alpha1.PodMigration, earlier *record) error {
	if earlier != nil {
		// By an agent that did not live to seal. What it knew of the files is lost:
		// the pod runs while they are copied again.
		if earlier.Sealed {
			// Its report may still be on its way, and must not arrive after this one.
			if err := a.report(ctx, m, func(c *v1alpha1.CheckpointStatus) { a.source(c).Phase = v1alpha1.SourceSealing }); err != nil {
				return err
			}
		}
		if err := a.thaw(*earlier); err != nil {
			return err
		}
	}
	defer a.closeWriter(client.ObjectKeyFromObject(m))
	defer a.removeDump(ctx, m)
	defer a.endSeal(m.UID)
	sealed := &v1alpha1.SourceReport{}
	err := a.while(ctx, m, func(ctx context.Context) error {
		w, err := a.writer(ctx, m)
		if err != nil {
			return err
		}
		result, err := w.Pass(ctx, false, nil)
		if err != nil {
			return err
		}
		a.metrics.passed(passCopy, result)
		return a.lastPass(ctx, m, w, sealed)
	})
	if err != nil {
		return errors.Join(a.thawUnsealed(m.UID), a.sourceFailed(ctx, m, err))
	}
	// From here on only an answer of the API server decides whether the pod may be
	// thawed: the report may have arrived although it seems lost.
	isWanted := func() bool { return true }
	if s := a.sealOf(m.UID); s != nil {
		isWanted = s.mayReport
	}
	return a.reportWhile(ctx, m, isWanted, func(c *v1alpha1.CheckpointStatus) {
		sealed.Attempt, sealed.Node = c.Attempt, a.node
		c.Source = sealed
	})
}

// thawUnsealed lets a pod run whose seal has failed. Nobody has heard of it, nor will: the
// pod need not wait for a report.
func (a *agent) thawUnsealed(migration types.UID) error {
	s := a.sealOf(migration)
	if s == nil {
		return nil // it was not frozen
	}
	s.void()
	r, err := a.records.get(migration)
	if err != nil || r == nil {
		return err
	}
	return a.thaw(*r)
}

// freezeLimit returns how long the original may stay frozen, and what says so. Half of it
// is for the seal, the other half is the destination's.
func (a *agent) freezeLimit(ctx context.Context, m *v1alpha1.PodMigration) (time.Duration, string, error) {
	limit, why := m.Spec.Checkpoint.MaxFreeze(), "spec.checkpoint.maxFreezeSeconds"
	original, err := a.pod(ctx, m.Namespace, m.Status.Original)
	if err != nil {
		return 0, "", err
	}
	if original == nil {
		return 0, "", errNoProcess
	}
	bound, container := containers.FreezeBound(original)
	if container == "" || bound >= limit {
		return limit, why, nil
	}
	why = fmt.Sprintf("what the probes of container %s allow before the kubelet restarts it", container)
	if bound == 0 {
		return 0, "", &checkpoint.Error{Reason: ReasonFreezeTooLong, Err: fmt.Errorf("the pod cannot be frozen: the first failure of a probe would make the kubelet restart container %s: raise failureThreshold of its livenessProbe, or wait until it has started", container)}
	}
	return bound, why, nil
}

// lastPass freezes, copies and seals.
func (a *agent) lastPass(ctx context.Context, m *v1alpha1.PodMigration, w *openWriter, sealed *v1alpha1.SourceReport) error {
	if m.Status.Checkpoint.Mode == v1alpha1.CheckpointLive {
		return a.sealPass(ctx, m, w, sealed, false)
	}
	limit, why, err := a.freezeLimit(ctx, m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit/2)
	defer cancel()
	now := a.clock.Now()
	r := record{
		Namespace: m.Namespace, Name: m.Name, Migration: m.UID, Attempt: m.Status.Checkpoint.Attempt,
		Pod: m.Status.Original.UID, PodName: m.Status.Original.Name, FrozenAt: now, Until: now.Add(limit),
	}
	s, err := a.freezeFrom(ctx, r)
	if err == nil {
		err = a.freeze(ctx, m, w, sealed)
	}
	if err == nil {
		err = a.sealPass(ctx, m, w, sealed, true)
	}
	if err == nil {
		err = a.settle(r, s)
	}
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = &checkpoint.Error{Reason: ReasonFreezeTooLong, Err: fmt.Errorf("the pod was frozen for %s, half of %s, without a seal: %w", limit/2, why, err)}
	}
	return err
}

// settle records how the pod stands with which a complete seal agrees, and that the seal
// is going to be reported.
func (a *agent) settle(r record, s *sealing) error {
	state, err := a.ops.State(r.Pod)
	if err != nil {
		return err
	}
	if !state.Frozen {
		return errors.New("the pod was thawed by another client while it was copied")
	}
	if r.Boot, err = a.ops.Boot(); err != nil {
		return err
	}
	if !s.mayReport() {
		return errors.New("the pod was thawed, since the last copy did not end in time")
	}
	a.freezing.Lock()
	defer a.freezing.Unlock()
	r.Containers, r.Sealed = state.Containers, true
	return a.records.put(r)
}

// sealPass makes the last pass and seals it.
func (a *agent) sealPass(ctx context.Context, m *v1alpha1.PodMigration, w *openWriter, sealed *v1alpha1.SourceReport, frozen bool) error {
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
