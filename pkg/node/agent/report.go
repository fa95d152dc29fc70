package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
	"github.com/ai-storage/orchestrator/pkg/pods"
)

// reportBackoff is the pause between two attempts to report. Most fail because
// another client wrote in between: a pod may be frozen meanwhile, so the first pauses
// are short.
var reportBackoff = wait.Backoff{Duration: 10 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 10, Cap: lookAgain}

// errNotWanted says that the migration no longer asks for what was being done: it is
// gone, in another step, or being rolled back.
var errNotWanted = errors.New("the migration no longer asks for it")

// isTransient reports whether an error says nothing of the work: it is not wanted any
// more, not possible yet, or the agent itself ends.
func isTransient(err error) bool {
	return errors.Is(err, errNotWanted) || errors.Is(err, errNoProcess) || errors.Is(err, context.Canceled)
}

// while runs work that may take long, and ends it as soon as it is not wanted
// any more: no rollback has to wait for a copy. The error is errNotWanted then,
// whatever the work says of its end. Work that hangs may continue after while has returned.
func (a *agent) while(ctx context.Context, m *v1alpha1.PodMigration, work func(ctx context.Context) error) error {
	working, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		// It ends with the context, which the work does.
		_ = wait.PollUntilContextCancel(working, lookAgain, false, func(ctx context.Context) (bool, error) {
			now := &v1alpha1.PodMigration{}
			err := a.live.Get(ctx, client.ObjectKeyFromObject(m), now)
			isWanted := err == nil && decide.IsSame(m, now) || err != nil && !apierrors.IsNotFound(err)
			if !isWanted {
				cancel(errNotWanted)
			}
			return !isWanted, nil
		})
	})
	err := untilEnd(working, work)
	cancel(nil)
	watching.Wait()
	if err != nil && errors.Is(context.Cause(working), errNotWanted) {
		return errNotWanted
	}
	return err
}

// untilEnd runs work, and leaves it to itself when it does not end although its context
// has: what hangs in the storage of a volume can be neither interrupted nor waited for.
func untilEnd(ctx context.Context, work func(ctx context.Context) error) error {
	finished := make(chan error, 1)
	go func() { finished <- work(ctx) }()
	select {
	case err := <-finished:
		return err
	case <-ctx.Done():
	}
	grace := time.NewTimer(hangGrace)
	defer grace.Stop()
	select {
	case err := <-finished:
		return err
	case <-grace.C:
		return fmt.Errorf("the work hangs: %w", ctx.Err())
	}
}

// report changes the status, unless the migration has changed since it was read.
func (a *agent) report(ctx context.Context, m *v1alpha1.PodMigration, change func(*v1alpha1.CheckpointStatus)) error {
	base := m.DeepCopy()
	change(m.Status.Checkpoint)
	err := a.client.Status().Patch(ctx, m, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
	if err != nil {
		base.DeepCopyInto(m)
		return fmt.Errorf("reporting on PodMigration %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}

// reportLate reports on work that took its time: what others wrote meanwhile
// does not matter, as long as the work is still wanted. It tries until there is an
// answer, since no report of what was done may be lost. The error is errNotWanted
// when the migration no longer asks for the work, or that of the context.
func (a *agent) reportLate(ctx context.Context, m *v1alpha1.PodMigration, change func(*v1alpha1.CheckpointStatus)) error {
	return a.reportWhile(ctx, m, func() bool { return true }, change)
}

// reportWhile is reportLate for what is to be reported only as long as isWanted says so.
func (a *agent) reportWhile(ctx context.Context, m *v1alpha1.PodMigration, isWanted func() bool, change func(*v1alpha1.CheckpointStatus)) error {
	return reportBackoff.DelayFunc().Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		now := &v1alpha1.PodMigration{}
		err := a.live.Get(ctx, client.ObjectKeyFromObject(m), now)
		// Asked after the migration was read: a report that is void by now is based on
		// an older one, and does not arrive.
		if apierrors.IsNotFound(err) || err == nil && !decide.IsSame(m, now) || !isWanted() {
			return false, errNotWanted
		}
		if err == nil {
			err = a.report(ctx, now, change)
		}
		switch {
		case err == nil:
			now.DeepCopyInto(m)
			return true, nil
		case apierrors.IsNotFound(err):
			return false, errNotWanted
		case !apierrors.IsConflict(err):
			ctrl.LoggerFrom(ctx).Error(err, "Failed to report, trying again", "migration", klog.KObj(m))
		}
		return false, nil
	})
}

// maxMessage bounds the message of a report, in bytes. It may quote names of files, and
// an API server refuses requests that are too long.
const maxMessage = 1024

func message(failure error) string { return pods.Truncate(failure.Error(), maxMessage) }

// throttle lets through one call in an interval.
type throttle struct {
	interval time.Duration
	mu       sync.Mutex
	last     time.Time
}

func newThrottle(interval time.Duration, start time.Time) *throttle {
	return &throttle{interval: interval, last: start}
}

func (t *throttle) isDue(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.last) < t.interval {
		return false
	}
	t.last = now
	return true
}

func microTime(t metav1.MicroTime) *metav1.MicroTime { return &t }
