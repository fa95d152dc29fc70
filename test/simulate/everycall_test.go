package simulate

import (
	"flag"
	"strings"
	"testing"
)

// stride is how many calls lie between two that are interrupted.
var stride = flag.Int("stride", 23, "how many calls lie between two that are interrupted: 1 interrupts every call")

// A user cancels, or deletes the PodMigration, at a call that the controller makes for it,
// or its time runs out: in both orders, for every kind of owner. Whatever had begun, it
// ends, and either everything is as before, or the pod has moved. With -stride 1 that is
// every call.
func TestInterruptedAtEveryCall(t *testing.T) {
	for name, way := range calmWays {
		calm := runDisturbed(Options{Seed: 1}, way.scenario(), nil)
		for interruption, kind := range map[string]string{"cancelled": "Cancel", "deleted": "DeleteMigration"} {
			t.Run(name+"/"+interruption, func(t *testing.T) {
				t.Parallel()
				ended := map[string]int{}
				for call := 1; call <= calm.leaderCalls; call += *stride {
					interrupt(t, way.scenario(), []Disturbance{{Kind: kind, Call: call}}, ended)
				}
				// The record of one that is deleted is gone, and tells nothing.
				if interruption == "cancelled" && (ended["Cancelled"] == 0 || ended["Succeeded"] == 0) {
					t.Errorf("of %d calls: %v, want some that were stopped, and some that were committed", calm.leaderCalls, ended)
				}
			})
		}
		t.Run(name+"/timed out", func(t *testing.T) {
			t.Parallel()
			ended := map[string]int{}
			for seconds := int32(1); seconds <= 60; seconds += max(1, int32(*stride)/10) {
				s := way.scenario()
				s.timeout = seconds
				interrupt(t, s, nil, ended)
			}
			if ended["Failed"] == 0 || ended["Succeeded"] == 0 {
				t.Errorf("%v, want some that were stopped, and some that had the time", ended)
			}
		})
	}
}

// interrupt runs a scenario, and counts how its migration ended.
func interrupt(t *testing.T, s *scenario, disturbances []Disturbance, ended map[string]int) {
	t.Helper()
	r := runDisturbed(Options{Seed: 1}, s, disturbances)
	if r.Violation != nil {
		traced := runDisturbed(Options{Seed: 1, Trace: true}, s, disturbances)
		traced.Print(t.Output())
		t.Fatalf("timeout %d s, %v: %v", s.timeout, disturbances, r.Violation)
	}
	for end, n := range r.Statistic.Ends {
		phase, _, _ := strings.Cut(end, "/")
		ended[phase] += n
	}
}
