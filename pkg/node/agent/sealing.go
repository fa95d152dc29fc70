package agent

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// hangGrace is how long work may take to notice that it was ended. What hangs in the
// storage of a volume does not: neither the pod nor other migrations wait for it.
const hangGrace = 2 * time.Second

// sealing is a seal that this process makes. Of those who make it and those who watch it
// one decides whether it is reported.
type sealing struct {
	// done is closed when the work on it has ended, or is to end.
	done <-chan struct{}

	mu       sync.Mutex
	state    sealingState
	doneSeen time.Time
}

type sealingState int

const (
	// sealBeingMade: nobody can have heard of it.
	sealBeingMade sealingState = iota
	// sealBeingReported: it may have been reported.
	sealBeingReported
	// sealVoid: it must not be reported any more.
	sealVoid
)

// mayReport asks whether the seal that is complete may be reported.
func (s *sealing) mayReport() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == sealBeingMade {
		s.state = sealBeingReported
	}
	return s.state == sealBeingReported
}

// abandon makes a seal void that nobody has heard of.
func (s *sealing) abandon() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == sealBeingReported {
		return false
	}
	s.state = sealVoid
	return true
}

// void ends all attempts to report. One that is under way may still arrive.
func (s *sealing) void() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = sealVoid
}

// hangs reports whether the work was to end some time ago and has not.
func (s *sealing) hangs(now time.Time) bool {
	select {
	case <-s.done:
	default:
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doneSeen.IsZero() {
		s.doneSeen = now
	}
	return s.state == sealBeingMade && now.Sub(s.doneSeen) >= hangGrace
}

// freezeFrom records that a pod is about to be frozen, by work that ends with ctx.
func (a *agent) freezeFrom(ctx context.Context, r record) (*sealing, error) {
	a.freezing.Lock()
	defer a.freezing.Unlock()
	s := &sealing{done: ctx.Done()}
	a.mu.Lock()
	a.seals[r.Migration] = s
	a.mu.Unlock()
	return s, a.records.put(r)
}

func (a *agent) sealOf(migration types.UID) *sealing {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seals[migration]
}

func (a *agent) endSeal(migration types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.seals, migration)
}
