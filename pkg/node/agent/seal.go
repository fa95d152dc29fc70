package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
	"github.com/ai-storage/orchestrator/pkg/node/transfer"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// seal sends what has changed for the last time. In mode Frozen the pod is frozen from before it until it
// is killed, or until the migration is rolled back.
func (a *agent) seal(ctx context.Context, m *v1alpha1.PodMigration) error {
	defer a.closeSending(client.ObjectKeyFromObject(m))
	defer a.removeDump(ctx, m)
	defer a.endSeal(m.UID)
	sealed := &v1alpha1.SourceReport{}
	err := a.while(ctx, m, func(ctx context.Context) error {
		s, done, err := a.sendingOf(ctx, m)
		if err != nil {
			return err
		}
		defer done()
		result, err := a.send(ctx, m, s, transfer.PassOptions{})
		if err != nil {
			return err
		}
		a.metrics.passed(passCopy, result)
		return a.lastPass(ctx, m, s, sealed)
	})
	if err != nil {
		return errors.Join(a.thawUnsealed(m.UID), a.sealFailed(ctx, m, err))
	}
	// From here on only an answer of the API server decides whether the pod may be
	// thawed: the report may have arrived although it seems lost.
	isWanted := func() bool { return true }
	if s := a.sealOf(m.UID); s != nil {
		isWanted = s.mayReport
	}
	return a.reportWhile(ctx, m, isWanted, func(c *v1alpha1.CheckpointStatus) {
		sealed.Attempt, sealed.Node, sealed.Fingerprint = c.Attempt, a.node, a.identity.Fingerprint()
		c.Source = sealed
	})
}

// voidSeal thaws a pod that was frozen by an agent that died before its seal was reported.
// A report of that agent may still be on its way, and must not arrive after this one.
func (a *agent) voidSeal(ctx context.Context, m *v1alpha1.PodMigration, r record, t decide.Task) error {
	err := a.report(ctx, m, func(c *v1alpha1.CheckpointStatus) {
		s := a.source(c)
		s.Phase = v1alpha1.SourceSealing
		if t == decide.TaskVoidSeal {
			s.Phase, s.Reason, s.Message = v1alpha1.SourceThawed, transfer.ReasonFailed, "the node agent was started again before it had reported the seal"
		}
	})
	if err != nil {
		return err
	}
	return a.thaw(r)
}

// sealFailed reports why there is no seal.
func (a *agent) sealFailed(ctx context.Context, m *v1alpha1.PodMigration, failure error) error {
	if transfer.ReasonOf(failure) != transfer.ReasonRefused || !a.isSealedThere(ctx, m) {
		return a.sourceFailed(ctx, m, failure)
	}
	// It was sealed by an agent that died, and the pod has run since.
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) {
		s := a.source(c)
		s.Phase, s.Reason, s.Message = v1alpha1.SourceThawed, a.metrics.failed(failure), message(failure)
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
		return 0, "", &transfer.Error{Reason: v1alpha1.ReportFreezeTooLong, Err: fmt.Errorf("the pod cannot be frozen: the first failure of a probe would make the kubelet restart container %s: raise failureThreshold of its livenessProbe, or wait until it has started", container)}
	}
	return bound, why, nil
}

// lastPass freezes, sends the last changes and seals.
func (a *agent) lastPass(ctx context.Context, m *v1alpha1.PodMigration, s *sending, sealed *v1alpha1.SourceReport) error {
	if m.Status.Checkpoint.Mode == v1alpha1.CheckpointLive {
		return a.sealPass(ctx, m, s, sealed, false)
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
	own, err := a.freezeFrom(ctx, r)
	if err == nil {
		err = a.freeze(ctx, m, s, sealed)
	}
	if err == nil {
		err = a.sealPass(ctx, m, s, sealed, true)
	}
	if err == nil {
		err = a.settle(r, own)
	}
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = &transfer.Error{Reason: v1alpha1.ReportFreezeTooLong, Err: fmt.Errorf("the pod was frozen for %s, half of %s, without a seal: %w", limit/2, why, err)}
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

// sealPass makes the last pass, which the destination seals.
func (a *agent) sealPass(ctx context.Context, m *v1alpha1.PodMigration, s *sending, sealed *v1alpha1.SourceReport, frozen bool) error {
	for pass := 1; ; pass++ {
		result, err := a.send(ctx, m, s, transfer.PassOptions{Frozen: frozen, Last: true})
		if transfer.ReasonOf(err) == transfer.ReasonChanged && !frozen && pass < maxPasses {
			continue
		}
		if err == nil && len(s.containers) > 0 {
			err = a.ops.CheckFrozen(m.Status.Original.UID, ids(s.containers))
		}
		if err != nil {
			return fmt.Errorf("sealing: %w", err)
		}
		a.metrics.passed(passSeal, result)
		sealed.Phase, sealed.ManifestDigest, sealed.SealedAt = v1alpha1.SourceSealed, digestPrefix+result.Digest, microTime(a.now())
		sealed.Bytes, sealed.Files, sealed.Pass, sealed.PassBytes = result.Bytes, result.Files, int32(result.Pass), result.Written
		if sealed.FrozenAt != nil {
			a.metrics.froze(sealed.FrozenAt.Time, sealed.SealedAt.Time)
		}
		return nil
	}
}
