package rebalance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// ended makes migrations of the loop from a text: each letter is one that ended a
// minute after the one before, S succeeded, F failed, C cancelled; f failed too,
// but another client requested it; r has not ended; a dot is a minute without one.
func ended(text string) []v1alpha1.PodMigration {
	phases := map[rune]v1alpha1.Phase{'S': v1alpha1.PhaseSucceeded, 'F': v1alpha1.PhaseFailed, 'f': v1alpha1.PhaseFailed,
		'C': v1alpha1.PhaseCancelled, 'r': v1alpha1.PhasePlacing}
	var migrations []v1alpha1.PodMigration
	for i, letter := range text {
		if letter == '.' {
			continue
		}
		m := v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("m", i)}}
		m.Status.Phase = phases[letter]
		if letter != 'f' {
			m.Labels = map[string]string{v1alpha1.CreatedByLabel: v1alpha1.CreatedByRebalancer}
		}
		if letter != 'r' {
			m.Status.Times.Finished = &metav1.MicroTime{Time: noon.Add(time.Duration(i+1) * time.Minute)}
		}
		migrations = append(migrations, m)
	}
	return migrations
}

func TestBreaker(t *testing.T) {
	// Two failures of the last four within an hour open it for five minutes.
	args := config.CircuitBreakerArgs{FailurePercent: 50, Migrations: 4,
		Window: metav1.Duration{Duration: time.Hour}, OpenFor: metav1.Duration{Duration: 5 * time.Minute}}
	for _, tt := range []struct {
		migrations string
		at         int // minutes after noon
		want       BreakerState
		failed     int
		finished   int
	}{
		{"", 1, BreakerClosed, 0, 0},
		{"F", 1, BreakerClosed, 1, 1},  // one of one is not two of four
		{"FF", 2, BreakerOpen, 0, 0},   // opened by the second
		{"FF", 6, BreakerOpen, 0, 0},   // a minute before its time
		{"FF", 7, BreakerTrying, 0, 0}, // and at its time
		{"FF", 1000, BreakerTrying, 0, 0},
		{"FSSSF", 5, BreakerClosed, 1, 4},                              // the first is no longer among four
		{"FSSF", 4, BreakerOpen, 0, 0},                                 // and here it is
		{"FF....S", 8, BreakerClosed, 0, 1},                            // tried with success
		{"FF....SF", 9, BreakerClosed, 1, 2},                           // what came before it was opened does not count
		{"FF.....F", 9, BreakerOpen, 0, 0},                             // tried without success
		{"FF.....F", 13, BreakerTrying, 0, 0},                          // and again after as long
		{"FFFFSS", 6, BreakerOpen, 0, 0},                               // what was in flight changes nothing
		{"FffffC", 6, BreakerClosed, 1, 1},                             // neither do others', nor cancelled ones
		{"FCFC", 4, BreakerOpen, 0, 0},                                 //
		{"F", 62, BreakerClosed, 0, 0},                                 // too long ago
		{"SSF", 3, BreakerClosed, 1, 3},                                //
		{"FF....rC", 8, BreakerTrying, 0, 0},                           // still tried
		{"FF" + strings.Repeat(".", 98) + "F", 101, BreakerOpen, 0, 0}, // tried in vain, long after the window
	} {
		b := breakerOf(ended(tt.migrations), args, noon.Add(time.Duration(tt.at)*time.Minute))
		if b.State != tt.want || b.Failed != tt.failed || b.Finished != tt.finished {
			t.Errorf("%s after %d minutes: %+v, want %s with %d of %d", tt.migrations, tt.at, b, tt.want, tt.failed, tt.finished)
		}
		if (b.Until != nil) != (b.State == BreakerOpen) {
			t.Errorf("%s after %d minutes: open until %v", tt.migrations, tt.at, b.Until)
		}
	}
}

func TestBreakerMayMove(t *testing.T) {
	until := noon
	for _, tt := range []struct {
		breaker Breaker
		want    int
		why     string
	}{
		{Breaker{State: BreakerClosed, inFlight: 3}, 5, ""},
		{Breaker{State: BreakerOpen, Until: &until}, 0, "open until 2026-01-01T12:00:00Z"},
		{Breaker{State: BreakerTrying}, 1, "one migration"},
		{Breaker{State: BreakerTrying, inFlight: 1}, 0, "waits for the end"},
	} {
		moves, why := tt.breaker.mayMove(5)
		if moves != tt.want || !strings.Contains(why, tt.why) || (why == "") != (tt.why == "") {
			t.Errorf("%+v lets %d move: %q", tt.breaker, moves, why)
		}
	}
}

// endAll lets every migration end and returns how many did.
func (w *world) endAll(t *testing.T, clock *clocktesting.FakeClock, phase v1alpha1.Phase) (count int) {
	clock.Step(time.Minute)
	for _, m := range migrations(t, w) {
		if !m.Status.Phase.IsFinished() {
			m.Status.Phase = phase
			m.Status.Times.Finished = &metav1.MicroTime{Time: clock.Now()}
			must(t, w.Status().Update(t.Context(), &m))
			count++
		}
	}
	w.measureAt(clock.Now())
	return count
}

// The loop stops when its migrations fail, shows what it would do, and tries one
// when the time has come, all across restarts.
func TestBreakerStopsTheLoop(t *testing.T) {
	w := newWorld(t, 8)
	clock := clocktesting.NewFakeClock(noon)
	args := defaultArgs(t)
	args.AbnormalCycles, args.Cooldown.Duration = 1, 0
	args.CircuitBreaker.Migrations = 2
	cycle := func() *Status {
		loop := newLoopWith(t, w, clock, args)
		must(t, loop.cycle(t.Context()))
		return loop.Status()
	}
	end := func(phase v1alpha1.Phase) int { return w.endAll(t, clock, phase) }
	status := cycle()
	if status.Held != "" || status.Breaker.State != BreakerClosed {
		t.Fatalf("held at first: %q, %+v", status.Held, status.Breaker)
	}
	if failed := end(v1alpha1.PhaseFailed); failed != 2 {
		t.Fatalf("%d migrations at first, want 2", failed)
	}
	for range 3 {
		if status = cycle(); !strings.Contains(status.Held, "circuit breaker is open") || status.Moves == 0 {
			t.Errorf("open: held %q with %d moves in the plan", status.Held, status.Moves)
		}
		if created := end(v1alpha1.PhaseFailed); created != 0 {
			t.Errorf("%d migrations while it was open", created)
		}
	}
	clock.Step(args.CircuitBreaker.OpenFor.Duration)
	w.measureAt(clock.Now())
	if status = cycle(); status.Breaker.State != BreakerTrying || status.Moves != 1 {
		t.Errorf("trying: %+v with %d moves", status.Breaker, status.Moves)
	}
	if status = cycle(); !strings.Contains(status.Held, "waits for the end") {
		t.Errorf("while one is tried: held %q", status.Held)
	}
	if created := end(v1alpha1.PhaseSucceeded); created != 1 {
		t.Errorf("%d migrations were tried, want 1", created)
	}
	if status = cycle(); status.Held != "" || status.Breaker.State != BreakerClosed {
		t.Errorf("after a success: held %q, %+v", status.Held, status.Breaker)
	}
}
