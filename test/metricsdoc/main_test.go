package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheDocumentIsUpToDate(t *testing.T) {
	var want strings.Builder
	if err := write(&want); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(got)); diff != "" {
		t.Errorf("run `make generate` (-want +got):\n%s", diff)
	}
}

// Prometheus' conventions: counters end in _total, all else does not; units are
// base units.
func TestNamesFollowTheConventions(t *testing.T) {
	units := regexp.MustCompile(`_(milli|micro|nano)?seconds|_bytes|_cores|_ratio`)
	wrong := regexp.MustCompile(`_(millis|ms|milliseconds|minutes|kb|mb|percent|millicores)(_|$)`)
	for _, p := range programs {
		r := &recorder{families: map[string]*family{}}
		p.register(r)
		if r.err != nil || len(r.families) == 0 {
			t.Fatalf("%s: %d metrics, error %v", p.title, len(r.families), r.err)
		}
		for _, f := range r.sorted() {
			switch {
			case !strings.HasPrefix(f.name, "ai_storage_"), wrong.MatchString(f.name):
				t.Errorf("%s: not a good name", f.name)
			case (f.kind == "counter") != strings.HasSuffix(f.name, "_total"):
				t.Errorf("%s is a %s", f.name, f.kind)
			case f.kind == "histogram" && !units.MatchString(f.name):
				t.Errorf("%s: a histogram without a unit", f.name)
			case !strings.HasSuffix(f.help, "."):
				t.Errorf("%s: the help is no sentence: %q", f.name, f.help)
			}
		}
	}
}
