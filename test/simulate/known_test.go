package simulate

import (
	"flag"
	"regexp"
	"testing"
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// known are violations by the product as it is, each with its cause. A run that breaks
// a promise in one of these ways does not fail TestSeeds. The list shrinks as the product
// is corrected; nothing is added to it for a fault of the simulation.
var known = []struct {
	cause     string
	invariant Invariant
	what      string
	// scenario and disturbance limit it further; empty ones do not.
	scenario, disturbance string
}{
	{cause: "Jobs that replace only failed pods, and Deployments that recreate, start first",
		invariant: OneWorks, what: `work at the same time`, scenario: `podReplacementPolicy Failed|strategy Recreate`},
	{cause: "a leader that stalled deletes what was made since, by what it read before",
		invariant: NothingLost, what: `deleted by .*\(stale\)`},
	{cause: "the same", invariant: OneWorks, what: `deleted by .*\(stale\)`},
	{cause: "a leader that stalled marks or releases an original by what it read before",
		invariant: OnlyOurs, what: `\(stale\) writes Pod`},
	{cause: "the same", invariant: ItEnds, what: `is released from its owner|has our finalizer`, disturbance: `Stall`},
	{cause: "what a leader that stalled creates late is found by nobody",
		invariant: ItEnds, what: `(carrier|placeholder|replacement) Pod .* is left|claim .* is left`, disturbance: `Stall`},
	{cause: "the placeholder is left after a failure that cannot be rolled back", invariant: ItEnds, what: `placeholder Pod .* is left`},
	{cause: "the probe of the webhook is refused in a namespace that is terminating", invariant: ItEnds, what: `unable to create new content in namespace`},
	{cause: "the owner makes no pod any more", invariant: ItEnds, what: `waiting for .* to create the replacement`},
	{cause: "a claim that a user deletes", invariant: ItEnds, what: `persistentvolumeclaim .* not found or being deleted|at its gate for ever`},
	{cause: "a claim that a user deletes while it is sealed", invariant: NothingLost, what: `deleted by leader`, disturbance: `DeleteClaim`},
	{cause: "a rollback deletes the claim of an original that was evicted meanwhile", invariant: NothingLost, what: `deletes claim`},
	{cause: "an original is returned to an owner that is gone", invariant: NothingLost, what: `deleted by garbage`, disturbance: `OrphanOwner`},
	{cause: "an original is thawed beside a replacement that is terminating", invariant: OneWorks, what: `\(terminating\)`},
}

// isKnown names the cause of a known violation; "" is a new one.
func isKnown(r Result) string {
	for _, k := range known {
		if r.Violation.Invariant != k.invariant || !regexp.MustCompile(k.what).MatchString(r.Violation.What) || !regexp.MustCompile(k.scenario).MatchString(r.Scenario) {
			continue
		}
		for _, d := range r.Disturbances {
			if k.disturbance == "" || regexp.MustCompile(k.disturbance).MatchString(d.String()) {
				return k.cause
			}
		}
		if k.disturbance == "" {
			return k.cause
		}
	}
	return ""
}

var (
	seedCount = flag.Uint64("seed-count", 300, "how many seeds TestSeeds runs")
	seedStart = flag.Uint64("seed-start", 1, "the first of them")
)

// Some hundred runs of the product as it is break no promise, but for what is known.
func TestSeeds(t *testing.T) {
	count := *seedCount
	if testing.Short() {
		count = 30
	}
	found := map[string]int{}
	summary := Sweep{Start: *seedStart, Count: count, Workers: 2, Found: func(r Result) bool {
		if cause := isKnown(r); cause != "" {
			found[cause]++
			return true
		}
		shrunk := Shrink(Options{Seed: r.Seed}, r)
		shrunk.Print(t.Output())
		t.Errorf("seed %d breaks a promise: %s", r.Seed, r.Violation)
		return true
	}}.Run()
	summary.Print(t.Output())
	for cause, n := range found {
		t.Logf("known, %d runs: %s", n, cause)
	}
	if ends := summary.Statistic.Ends["Succeeded/Succeeded"]; ends*4 < int(count) {
		t.Errorf("only %d migrations succeeded in %d runs: they are not simulated", ends, count)
	}
}

// The same seed is the same run, to the last line.
func TestARunIsDeterministic(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		first, second := Run(Options{Seed: seed, Trace: true}), Run(Options{Seed: seed, Trace: true})
		if len(first.Trace) != len(second.Trace) {
			t.Fatalf("seed %d: %d lines, then %d", seed, len(first.Trace), len(second.Trace))
		}
		for i := range first.Trace {
			if first.Trace[i] != second.Trace[i] {
				t.Fatalf("seed %d, line %d:\n%s\n%s", seed, i, first.Trace[i], second.Trace[i])
			}
		}
	}
}

// Without disturbances every kind of owner is moved, in both orders.
func TestMigrationsSucceedWhenNothingInterferes(t *testing.T) {
	for name, test := range map[string]struct {
		owner      ownerKind
		scratch    bool
		shared     bool
		restart    bool
		stopsFirst bool
	}{
		"bare pod, nothing carried":          {owner: bare},
		"bare pod, carried, started first":   {owner: bare, scratch: true, shared: true},
		"bare pod, carried, stopped first":   {owner: bare, scratch: true, stopsFirst: true},
		"Deployment, nothing carried":        {owner: ownedDeployment},
		"Deployment, carried, started first": {owner: ownedDeployment, scratch: true, shared: true},
		"Deployment, carried, stopped first": {owner: ownedDeployment, scratch: true, stopsFirst: true},
		"Deployment, restarted":              {owner: ownedDeployment, restart: true, stopsFirst: true},
		"Job, carried, started first":        {owner: ownedJob, scratch: true, shared: true},
		"Job, carried, stopped first":        {owner: ownedJob, scratch: true, stopsFirst: true},
		"StatefulSet, carried":               {owner: ownedSet, scratch: true, stopsFirst: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := calmScenario()
			s.owner, s.scratch, s.shared, s.restart = test.owner, test.scratch, test.shared, test.restart
			r := runScenario(Options{Seed: 1, Only: []int{}, Trace: true}, s)
			if r.Violation != nil || r.Statistic.Ends["Succeeded/Succeeded"] != 1 {
				r.Print(t.Output())
				t.Errorf("ended with %v", r.Statistic.Ends)
			}
			if r.stoppedFirst != test.stopsFirst {
				t.Errorf("stopped first: %t", r.stoppedFirst)
			}
		})
	}
}

// calmScenario moves one pod of two, with nothing special.
func calmScenario() *scenario {
	return &scenario{
		replicas: 2, nodes: 3, mode: v1alpha1.CheckpointFrozen, backoffLimit: 1, budget: -1, timeout: 300, maxFreeze: 60, migrations: 1, grace: 5,
		provisioning: time.Second, copying: time.Second, sealing: time.Second, lateWatch: 3 * time.Second,
	}
}
