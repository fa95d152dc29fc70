package agent

import (
	"context"
	"time"

	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
	"github.com/ai-storage/orchestrator/pkg/node/transfer"
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

func (a *agent) serveSource(ctx context.Context, m *v1alpha1.PodMigration) error {
	frozen, err := a.records.get(m.UID)
	if err != nil {
		return err
	}
	if frozen != nil && frozen.Sealed {
		held, err := a.hold(ctx, *frozen)
		if err != nil {
			return err
		}
		frozen = &held
	}
	original, err := a.look(ctx, m, frozen)
	if err != nil {
		return err
	}
	t := decide.SourceTask(m, original)
	if t != decide.TaskCopy && t != decide.TaskSeal && (m.Status.Checkpoint == nil || m.Status.Checkpoint.Step != v1alpha1.StepCopy) {
		a.closeSending(client.ObjectKeyFromObject(m))
	}
	switch t {
	case decide.TaskMeasure:
		return a.measure(ctx, m)
	case decide.TaskIntroduce:
		return a.introduce(ctx, m)
	case decide.TaskCopy:
		return a.copyWhileRunning(ctx, m)
	case decide.TaskSealAgain, decide.TaskVoidSeal:
		return a.voidSeal(ctx, m, *frozen, t)
	case decide.TaskSeal:
		return a.seal(ctx, m)
	case decide.TaskNone:
		return nil
	}
	if frozen == nil {
		frozen = &record{Namespace: m.Namespace, Name: m.Name, Migration: m.UID, Pod: m.Status.Original.UID, PodName: m.Status.Original.Name}
	}
	return a.attend(ctx, m, *frozen, t)
}

// source returns the report of this attempt, to be changed.
func (a *agent) source(c *v1alpha1.CheckpointStatus) *v1alpha1.SourceReport {
	if c.Source == nil || c.Source.Attempt != c.Attempt {
		c.Source = &v1alpha1.SourceReport{Attempt: c.Attempt}
	}
	c.Source.Node, c.Source.Fingerprint = a.node, a.identity.Fingerprint()
	return c.Source
}

// introduce reports the fingerprint with which this process connects.
func (a *agent) introduce(ctx context.Context, m *v1alpha1.PodMigration) error {
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) {
		if s := a.source(c); s.Phase == "" {
			s.Phase = v1alpha1.SourceCopying
		}
	})
}

func (a *agent) measure(ctx context.Context, m *v1alpha1.PodMigration) error {
	var size transfer.Size
	err := a.while(ctx, m, func(ctx context.Context) error {
		moving, volumes, err := a.sourceTrees(ctx, m)
		if err != nil {
			return err
		}
		if size, err = transfer.Measure(ctx, volumes); err != nil {
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

// copyWhileRunning sends in passes until the next one is short.
func (a *agent) copyWhileRunning(ctx context.Context, m *v1alpha1.PodMigration) error {
	var result transfer.PassResult
	err := a.while(ctx, m, func(ctx context.Context) error {
		s, done, err := a.sendingOf(ctx, m)
		if err != nil {
			return err
		}
		defer done()
		for pass := 1; ; pass++ {
			if result, err = a.send(ctx, m, s, transfer.PassOptions{Progress: a.progress(ctx, m)}); err != nil {
				return err
			}
			a.metrics.passed(passCopy, result)
			if pass == maxPasses || isShort(m.Status.Checkpoint.Mode, result) {
				return nil
			}
		}
	})
	if err != nil {
		if !isTransient(err) {
			a.closeSending(client.ObjectKeyFromObject(m))
		}
		return a.sourceFailed(ctx, m, err)
	}
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) { a.copied(c, result).Phase = v1alpha1.SourceCopied })
}

// isShort reports whether the next pass is short. Without freezing only a pass
// without changes is.
func isShort(mode v1alpha1.CheckpointMode, r transfer.PassResult) bool {
	if mode == v1alpha1.CheckpointLive {
		return r.Written == 0 && r.Removed == 0
	}
	return r.Written <= shortPassBytes || r.Written*100 <= r.Bytes*shortPassPercent
}

func (a *agent) copied(c *v1alpha1.CheckpointStatus, r transfer.PassResult) *v1alpha1.SourceReport {
	s := a.source(c)
	s.Bytes, s.Files, s.Pass, s.PassBytes = r.Bytes, r.Files, int32(r.Pass), r.Written
	return s
}

// progress reports at most once a second; a report that fails is not missed.
func (a *agent) progress(ctx context.Context, m *v1alpha1.PodMigration) func(transfer.Progress) {
	every := newThrottle(progressInterval, a.clock.Now())
	seen := m.DeepCopy()
	return func(p transfer.Progress) {
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
