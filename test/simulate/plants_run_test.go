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

// enough is within how many seeds a planted fault must be found.
var enough = flag.Uint64("plant-seeds", 10000, "within how many seeds a planted fault must be found")

// Each planted fault breaks a promise in a run that breaks none without it.
func TestPlantedFaultsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	for _, p := range plants {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= *enough; seed++ {
				r := Run(Options{Seed: seed, Plant: p})
				if r.Violation != nil && Run(Options{Seed: seed}).Violation == nil {
					t.Logf("%5d seeds: %s", seed, r.Violation)
					return
				}
			}
			t.Errorf("not found within %d seeds", *enough)
		})
	}
}
