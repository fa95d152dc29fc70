package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
	"github.com/ai-storage/orchestrator/pkg/node/transfer"
)

// sending is what this process sends of a migration. It stays open between two steps, so
// that what is known of the files need not be read again.
type sending struct {
	*transfer.Source
	migration types.UID
	attempt   int32
	// containers are those whose processes move, as they were when it was opened.
	containers []movingContainer
	// to is the pod whose destination it is connected to; "" without a connection.
	to types.UID
	// turn has a token while work uses it. Work that hangs keeps it.
	turn chan struct{}
}

// use waits until no other work uses it.
func (s *sending) use(ctx context.Context) (done func(), err error) {
	select {
	case s.turn <- struct{}{}:
		return func() { <-s.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dialBackoff is the pause between two attempts to reach the destination. A pod may be
// frozen meanwhile, so the first pauses are short.
var dialBackoff = wait.Backoff{Duration: 20 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 8, Cap: 2 * time.Second}

// refusalTime is how long an agent that refuses the connection, or is another one than the
// report says, is asked again: it may have been started again, and not have reported yet.
const refusalTime = 30 * time.Second

// sendingOf returns what is open of this attempt, or opens it, for the caller alone until it
// calls done.
func (a *agent) sendingOf(ctx context.Context, m *v1alpha1.PodMigration) (s *sending, done func(), err error) {
	key := client.ObjectKeyFromObject(m)
	a.mu.Lock()
	s = a.sendings[key]
	a.mu.Unlock()
	if s != nil && s.migration == m.UID && s.attempt == m.Status.Checkpoint.Attempt {
		done, err = s.use(ctx)
		return s, done, err
	}
	a.closeSending(key)
	if s, err = a.openSending(ctx, m); err != nil {
		return nil, nil, err
	}
	if done, err = s.use(ctx); err != nil {
		// It took so long that nobody waits for it.
		return nil, nil, errors.Join(err, s.Close())
	}
	a.mu.Lock()
	a.sendings[key] = s
	a.mu.Unlock()
	return s, done, nil
}

func (a *agent) openSending(ctx context.Context, m *v1alpha1.PodMigration) (*sending, error) {
	moving, volumes, err := a.sourceTrees(ctx, m)
	if err != nil {
		return nil, err
	}
	if err := a.makeState(m); err != nil {
		return nil, err
	}
	source, err := transfer.OpenSource(transfer.SourceConfig{
		Migration: m.UID, Attempt: m.Status.Checkpoint.Attempt, Volumes: volumes, State: a.stateIn(m, "source"), Limit: a.limit,
	})
	if err != nil {
		return nil, err
	}
	return &sending{Source: source, migration: m.UID, attempt: m.Status.Checkpoint.Attempt, containers: moving, turn: make(chan struct{}, 1)}, nil
}

// closeSending closes what is sent of a migration, as soon as no work uses it any more.
func (a *agent) closeSending(key types.NamespacedName) {
	a.mu.Lock()
	s := a.sendings[key]
	delete(a.sendings, key)
	a.mu.Unlock()
	if s == nil {
		return
	}
	closing := func() {
		// It only read.
		_ = s.Close()
	}
	select {
	case s.turn <- struct{}{}:
		closing()
	default:
		go func() {
			s.turn <- struct{}{}
			closing()
		}()
	}
}

// send makes a pass. Where the connection ends it connects again, for as long as the
// context allows, and makes the pass again: what has arrived is not sent twice.
func (a *agent) send(ctx context.Context, m *v1alpha1.PodMigration, s *sending, options transfer.PassOptions) (result transfer.PassResult, err error) {
	var refusedSince time.Time
	waitErr := dialBackoff.DelayFunc().Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		err = a.connect(ctx, m, s)
		if err == nil {
			result, err = s.Pass(ctx, options)
		}
		reason := transfer.ReasonOf(err)
		switch {
		case err == nil || ctx.Err() != nil:
			return true, nil //nolint:nilerr // it is what send returns
		case reason == transfer.ReasonDisconnected:
			refusedSince = time.Time{}
		case reason == transfer.ReasonRefused:
			if refusedSince.IsZero() {
				refusedSince = a.clock.Now()
			}
			if a.isSealedThere(ctx, m) || a.clock.Now().Sub(refusedSince) > refusalTime {
				return true, nil
			}
		default:
			if reason != transfer.ReasonChanged {
				s.to = ""
			}
			return true, nil
		}
		s.to = ""
		ctrl.LoggerFrom(ctx).V(1).Info("Not connected to the node agent of the destination, trying again", "reason", reason, "err", err)
		return false, nil
	})
	if err == nil && waitErr != nil {
		err = waitErr
	}
	if waitErr != nil && !errors.Is(err, waitErr) {
		err = fmt.Errorf("%w: %w", waitErr, err)
	}
	return result, err
}

// isSealedThere reports whether the destination has sealed what it has, and takes nothing
// else in this attempt.
func (a *agent) isSealedThere(ctx context.Context, m *v1alpha1.PodMigration) bool {
	now := &v1alpha1.PodMigration{}
	if err := a.live.Get(ctx, client.ObjectKeyFromObject(m), now); err != nil || !decide.IsSame(m, now) {
		return false
	}
	report := decide.CurrentDestination(now)
	return report != nil && slices.Contains([]v1alpha1.DestinationPhase{v1alpha1.DestinationStored, v1alpha1.DestinationRestored}, report.Phase)
}

// connect connects to the agent of the destination, unless that is done.
func (a *agent) connect(ctx context.Context, m *v1alpha1.PodMigration, s *sending) error {
	if pod := m.DestinationPod(); s.to != "" && pod != nil && s.to == pod.UID {
		return nil
	}
	// Where to is read anew: the agent there may have been started again.
	now := &v1alpha1.PodMigration{}
	if err := a.live.Get(ctx, client.ObjectKeyFromObject(m), now); err != nil {
		return &transfer.Error{Reason: transfer.ReasonDisconnected, Err: err}
	}
	if !decide.IsSame(m, now) {
		return errNotWanted
	}
	address, fingerprint, err := a.receiverOf(ctx, now)
	if err != nil && !errors.Is(err, errNoProcess) && transfer.ReasonOf(err) == transfer.ReasonFailed {
		// The API server did not answer.
		err = &transfer.Error{Reason: transfer.ReasonDisconnected, Err: err}
	}
	if err != nil {
		return err
	}
	conn, err := a.identity.Dial(ctx, address, fingerprint)
	if err != nil {
		return fmt.Errorf("connecting to the node agent at %s: %w", address, err)
	}
	// The connection outlives this work, but nobody waits for its beginning for longer.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := s.Connect(a.life, conn); err != nil { //nolint:contextcheck // see above
		return err
	}
	s.to = now.DestinationPod().UID
	return nil
}
