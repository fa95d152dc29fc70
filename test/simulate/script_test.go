package simulate

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A script is only worth comparing when its end does not depend on how long things take.
func TestScriptsEndAlike(t *testing.T) {
	for _, script := range Scripts {
		t.Run(script.String(), func(t *testing.T) {
			t.Parallel()
			first, err := script.Play(1)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("\n%s", first)
			for seed := uint64(2); seed <= 12; seed++ {
				end, err := script.Play(seed)
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if difference := cmp.Diff(first, end); difference != "" {
					t.Fatalf("-seed 1 +seed %d:\n%s", seed, difference)
				}
			}
		})
	}
}
