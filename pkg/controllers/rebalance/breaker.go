package rebalance

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// BreakerState says whether the loop may act.
type BreakerState string

const (
	// BreakerClosed: migrations succeed, or fail seldom.
	BreakerClosed BreakerState = "Closed"
	// BreakerOpen: too many failed, nothing is moved for a while.
	BreakerOpen BreakerState = "Open"
	// BreakerTrying: one migration at a time, until one has succeeded.
	BreakerTrying BreakerState = "Trying"
)

// Breaker is the circuit breaker as the PodMigrations of the loop tell it, so it
// is the same after a restart.
type Breaker struct {
	State BreakerState `json:"state"`
	// Failed of the Finished migrations that are looked at.
	Failed   int `json:"failed"`
	Finished int `json:"finished"`
	// Until is when an open breaker lets a migration be tried.
	Until *time.Time `json:"until,omitempty"`
	// inFlight are the migrations of the loop that have not finished.
	inFlight int
}

// breakerOf replays the ends of the loop's migrations in order. What the breaker
// has answered with a pause does not count once more after it. A cancelled
// migration says nothing.
func breakerOf(migrations []v1alpha1.PodMigration, args config.CircuitBreakerArgs, now time.Time) Breaker {
	b := Breaker{State: BreakerClosed}
	var ends []*v1alpha1.PodMigration
	for i := range migrations {
		m := &migrations[i]
		switch {
		case m.Labels[v1alpha1.CreatedByLabel] != v1alpha1.CreatedByRebalancer:
		case !m.Status.Phase.IsFinished():
			b.inFlight++
		case m.Status.Phase != v1alpha1.PhaseCancelled && m.Status.Times.Finished != nil:
			ends = append(ends, m)
		}
	}
	slices.SortFunc(ends, func(x, y *v1alpha1.PodMigration) int {
		return cmp.Or(x.Status.Times.Finished.Compare(y.Status.Times.Finished.Time), cmp.Compare(x.UID, y.UID))
	})
	var recent []*v1alpha1.PodMigration
	for _, m := range ends {
		at := m.Status.Times.Finished.Time
		b.pass(at)
		if b.State == BreakerOpen {
			continue // it was in flight when the breaker opened
		}
		recent = lastWithin(append(recent, m), args, at)
		failed := m.Status.Phase == v1alpha1.PhaseFailed
		switch {
		case failed && (b.State == BreakerTrying || isTooMany(countFailed(recent), args)):
			b.State, b.Until, recent = BreakerOpen, new(at.Add(args.OpenFor.Duration)), nil
		case !failed && b.State == BreakerTrying:
			b.State = BreakerClosed
		}
	}
	b.pass(now)
	recent = lastWithin(recent, args, now)
	b.Failed, b.Finished = countFailed(recent), len(recent)
	return b
}

// pass ends the time that the breaker is open, if it is over by now.
func (b *Breaker) pass(now time.Time) {
	if b.State == BreakerOpen && !now.Before(*b.Until) {
		b.State, b.Until = BreakerTrying, nil
	}
}

func lastWithin(ends []*v1alpha1.PodMigration, args config.CircuitBreakerArgs, now time.Time) []*v1alpha1.PodMigration {
	ends = ends[max(0, len(ends)-int(args.Migrations)):]
	old := 0
	for old < len(ends) && now.Sub(ends[old].Status.Times.Finished.Time) > args.Window.Duration {
		old++
	}
	return ends[old:]
}

func countFailed(ends []*v1alpha1.PodMigration) int {
	failed := 0
	for _, m := range ends {
		if m.Status.Phase == v1alpha1.PhaseFailed {
			failed++
		}
	}
	return failed
}

// isTooMany counts migrations that have not taken place as good: one failure of
// one is not yet a pattern.
func isTooMany(failed int, args config.CircuitBreakerArgs) bool {
	return 100*failed >= int(args.FailurePercent)*int(args.Migrations)
}

// mayMove says how many more migrations the breaker lets begin, of so many that
// the loop may want, and why not more; "" when it does not limit.
func (b *Breaker) mayMove(wanted int) (moves int, why string) {
	switch {
	case b.State == BreakerOpen:
		return 0, fmt.Sprintf("the circuit breaker is open until %s: too many migrations have failed", b.Until.UTC().Format(time.RFC3339))
	case b.State == BreakerTrying && b.inFlight > 0:
		return 0, "the circuit breaker waits for the end of the migration that is tried"
	case b.State == BreakerTrying:
		return min(1, wanted), "the circuit breaker lets one migration be tried"
	}
	return wanted, ""
}
