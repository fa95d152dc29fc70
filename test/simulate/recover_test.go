package simulate

import (
	"strings"
	"testing"
)

// Whenever a user deletes the replacement of a migration, and whatever becomes of that
// one: when its claim has the only copy, a user recovers the pod with all of its work.
func TestAUserRecoversTheOnlyCopy(t *testing.T) {
	for _, owner := range []ownerKind{bare, ownedJob, ownedSet} {
		t.Run(string(owner), func(t *testing.T) {
			t.Parallel()
			way := way{owner: owner, scratch: true, restart: owner != ownedSet, stopsFirst: true}
			calm := runDisturbed(Options{Seed: 1}, way.scenario(), nil)
			kept, recovered := 0, 0
			for call := 1; call <= calm.leaderCalls; call += max(1, *stride/2) {
				lost := []Disturbance{{Kind: "DeleteReplacement", Call: call}}
				r := runDisturbed(Options{Seed: 1}, way.scenario(), lost)
				if r.Violation != nil {
					traced := runDisturbed(Options{Seed: 1, Trace: true}, way.scenario(), lost)
					traced.Print(t.Output())
					t.Fatalf("replacement deleted at call %d: %v", call, r.Violation)
				}
				for name, n := range r.recoveries {
					kept += n
					if strings.HasPrefix(name, "Succeeded/") {
						recovered += n
					}
				}
			}
			if recovered == 0 || recovered < kept/2 {
				t.Errorf("%d recoveries of %d have succeeded", recovered, kept)
			}
		})
	}
}
