package simulate

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Sweep runs seeds with several workers.
type Sweep struct {
	Start, Count uint64
	// Until ends the sweep earlier; zero does not.
	Until   time.Time
	Workers int
	Options Options
	// Found is called with each run that violates, one at a time; false ends the sweep.
	Found func(Result) bool
}

// Summary is what a sweep was.
type Summary struct {
	Seeds      uint64
	Violations int
	Took       time.Duration
	Statistic  Statistic
}

// Run runs the seeds. Each is a run of its own, so the order does not matter.
func (s Sweep) Run() Summary {
	var mu sync.Mutex
	var wait sync.WaitGroup
	summary := Summary{Statistic: Statistic{Drawn: map[string]int{}, Ends: map[string]int{}}}
	next, begun, stopped := s.Start, time.Now(), false
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if stopped || s.Count > 0 && next >= s.Start+s.Count || !s.Until.IsZero() && time.Now().After(s.Until) {
			return 0, false
		}
		next++
		return next - 1, true
	}
	for range max(1, s.Workers) {
		wait.Go(func() {
			for seed, more := take(); more; seed, more = take() {
				o := s.Options
				o.Seed = seed
				r := Run(o)
				mu.Lock()
				summary.add(r)
				if r.Violation != nil && s.Found != nil && !stopped && !s.Found(r) {
					stopped = true
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	summary.Took = time.Since(begun)
	return summary
}

func (s *Summary) add(r Result) {
	s.Seeds++
	if r.Violation != nil {
		s.Violations++
	}
	s.Statistic.Steps += r.Statistic.Steps
	s.Statistic.Calls += r.Statistic.Calls
	s.Statistic.Reconciliations += r.Statistic.Reconciliations
	s.Statistic.Simulated += r.Statistic.Simulated
	for kind, n := range r.Statistic.Drawn {
		s.Statistic.Drawn[kind] += n
	}
	for phase, n := range r.Statistic.Ends {
		s.Statistic.Ends[phase] += n
	}
}

// Print writes a summary.
func (s Summary) Print(to io.Writer) {
	t := s.Statistic
	fmt.Fprintf(to, "%d seeds in %s, %.0f a second: %d violations\n", s.Seeds, s.Took.Round(time.Millisecond), float64(s.Seeds)/s.Took.Seconds(), s.Violations)
	fmt.Fprintf(to, "%s of virtual time, %d steps, %d calls to the API server, %d reconciliations\n", t.Simulated.Round(time.Hour), t.Steps, t.Calls, t.Reconciliations)
	fmt.Fprintf(to, "migrations ended: %s\n", counts(t.Ends))
	fmt.Fprintf(to, "disturbances: %s\n", counts(t.Drawn))
}

func counts(of map[string]int) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(of)) {
		parts = append(parts, fmt.Sprintf("%s %d", cmp.Or(key, "(none)"), of[key]))
	}
	return strings.Join(parts, ", ")
}

// Print writes a run that violates, with the trace if there is one.
func (r Result) Print(to io.Writer) {
	fmt.Fprintf(to, "seed %d: %s\n", r.Seed, r.Scenario)
	for _, d := range r.Disturbances {
		fmt.Fprintf(to, "  disturbed by %s\n", d)
	}
	for _, line := range r.Trace {
		fmt.Fprintln(to, line)
	}
	if r.Violation != nil {
		fmt.Fprintf(to, "VIOLATED %s\n", r.Violation)
	}
}
