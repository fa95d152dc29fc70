package simulate

import (
	"flag"
	"os"
	"testing"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

var (
	// enough is within how many seeds a planted fault must be found.
	enough = flag.Uint64("plant-seeds", 10000, "within how many seeds a planted fault must be found")
	search = flag.Bool("plant-search", false, "look for planted faults from the first seed, whatever seed is known to find them")
)

// Each planted fault breaks a promise in a run that breaks none without it. The seed that
// is known to do so is tried first; when it does no longer, all are, and the new one is
// logged.
func TestPlantedFaultsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("may take minutes")
	}
	for _, p := range plants {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			if known := foundBy[p.Name]; known != 0 && !*search {
				if isFoundBy(t, p, known) {
					return
				}
				t.Logf("seed %d no longer finds it", known)
			}
			for seed := uint64(1); seed <= *enough; seed++ {
				if isFoundBy(t, p, seed) {
					return
				}
			}
			t.Errorf("not found within %d seeds", *enough)
		})
	}
}

func isFoundBy(t *testing.T, p *Plant, seed uint64) bool {
	t.Helper()
	r := Run(Options{Seed: seed, Plant: p})
	if r.Violation == nil || Run(Options{Seed: seed}).Violation != nil {
		return false
	}
	t.Logf("%5d seeds: %s", seed, r.Violation)
	return true
}
