package simulate

import (
	"cmp"
	"flag"
	"testing"
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

var (
	seedCount = flag.Uint64("seed-count", 300, "how many seeds TestSeeds runs")
	seedStart = flag.Uint64("seed-start", 1, "the first of them")
)

// Some hundred runs of the product break no promise.
func TestSeeds(t *testing.T) {
	count := *seedCount
	if testing.Short() {
		count = 30
	}
	summary := Sweep{Start: *seedStart, Count: count, Workers: 2, Found: func(r Result) bool {
		shrunk := Shrink(Options{Seed: r.Seed}, r)
		shrunk.Print(t.Output())
		t.Errorf("seed %d breaks a promise: %s", r.Seed, r.Violation)
		return true
	}}.Run()
	summary.Print(t.Output())
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
	for name, test := range calmWays {
		t.Run(name, func(t *testing.T) {
			s := test.scenario()
			r := runScenario(Options{Seed: 1, Only: []int{}, Trace: true}, s)
			if r.Violation != nil || r.Statistic.Ends["Succeeded/Succeeded"] != 1 {
				r.Print(t.Output())
				t.Errorf("ended with %v", r.Statistic.Ends)
			}
			if len(r.migrations) != 1 || (r.migrations[0].Status.Handover.Order == v1alpha1.OrderStopFirst) != test.stopsFirst {
				t.Errorf("%d migrations, and the order is not as expected: stops first %t", len(r.migrations), test.stopsFirst)
			}
		})
	}
}

// way is an owner of a pod, and what decides the order of the handover.
type way struct {
	owner      ownerKind
	scratch    bool
	claim      v1alpha1.ClaimPolicy
	noClass    bool
	restart    bool
	mode       v1alpha1.CheckpointMode
	stopsFirst bool
}

func (c way) scenario() *scenario {
	s := calmScenario()
	s.owner, s.scratch, s.noClass, s.restart = c.owner, c.scratch, c.noClass, c.restart
	s.claim = cmp.Or(c.claim, v1alpha1.ClaimWhenNeeded)
	if c.mode != "" {
		s.mode = c.mode
	}
	return s
}

// calmWays are every kind of owner, in both orders.
var calmWays = map[string]way{
	"bare pod, nothing carried":          {owner: bare},
	"bare pod, carried, started first":   {owner: bare, scratch: true, noClass: true},
	"bare pod, carried, stopped first":   {owner: bare, scratch: true, restart: true, stopsFirst: true},
	"bare pod, carried, claim asked for": {owner: bare, scratch: true, claim: v1alpha1.ClaimAlways},
	"bare pod, carried, no claim":        {owner: bare, scratch: true, claim: v1alpha1.ClaimNever, noClass: true, restart: true, stopsFirst: true},
	"Deployment, nothing carried":        {owner: ownedDeployment},
	"Deployment, carried, started first": {owner: ownedDeployment, scratch: true},
	"Deployment, carried, stopped first": {owner: ownedDeployment, scratch: true, restart: true, stopsFirst: true},
	"Deployment, restarted":              {owner: ownedDeployment, restart: true, stopsFirst: true},
	"Job, carried, started first":        {owner: ownedJob, scratch: true},
	"Job, carried, stopped first":        {owner: ownedJob, scratch: true, restart: true, stopsFirst: true},
	"StatefulSet, carried":               {owner: ownedSet, scratch: true, stopsFirst: true},
	"StatefulSet, carried, no claim":     {owner: ownedSet, scratch: true, claim: v1alpha1.ClaimNever, stopsFirst: true},
	"bare pod, processes":                {owner: bare, mode: v1alpha1.CheckpointProcess},
	"Deployment, processes and volumes":  {owner: ownedDeployment, scratch: true, mode: v1alpha1.CheckpointProcess},
	"Job, processes":                     {owner: ownedJob, mode: v1alpha1.CheckpointProcess},
	"bare pod, saves itself":             {owner: bare, mode: v1alpha1.CheckpointApplication, stopsFirst: true},
	"Deployment, saves itself":           {owner: ownedDeployment, mode: v1alpha1.CheckpointApplication, stopsFirst: true},
	"Job, saves itself":                  {owner: ownedJob, mode: v1alpha1.CheckpointApplication, stopsFirst: true},
	"StatefulSet, saves itself":          {owner: ownedSet, mode: v1alpha1.CheckpointApplication, stopsFirst: true},
}

// calmScenario moves one pod of two, with nothing special.
func calmScenario() *scenario {
	return &scenario{
		replicas: 2, nodes: 3, mode: v1alpha1.CheckpointFrozen, backoffLimit: 1, budget: -1, timeout: 300, maxFreeze: 60, migrations: 1, grace: 5,
		provisioning: time.Second, copying: time.Second, sealing: time.Second, lateWatch: 3 * time.Second, special: special{criuNodes: 3},
	}
}
