package v1alpha1

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPhases(t *testing.T) {
	seen := map[Phase]bool{}
	for i, phase := range Phases {
		if seen[phase] {
			t.Errorf("%s is listed twice", phase)
		}
		seen[phase] = true
		if final := i >= len(UnfinishedPhases); phase.IsFinished() != final {
			t.Errorf("%s: final %t, want %t", phase, phase.IsFinished(), final)
		}
	}
	if got := (&PodMigration{}).CurrentPhase(); got != PhasePending {
		t.Errorf("a migration that nobody has seen yet is %s", got)
	}
}

func TestPhaseSpans(t *testing.T) {
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }
	micro := func(seconds float64) *metav1.MicroTime { return new(metav1.NewMicroTime(at(seconds))) }
	for name, test := range map[string]struct {
		phase Phase
		times StepTimes
		want  []PhaseSpan
		since time.Time
	}{
		"new": {"", StepTimes{}, []PhaseSpan{{PhasePending, noon, time.Time{}}}, noon},
		"placing": {PhasePlacing, StepTimes{Started: micro(1), Prepared: micro(3)},
			[]PhaseSpan{{PhasePending, noon, at(1)}, {PhasePreparing, at(1), at(3)}, {PhasePlacing, at(3), time.Time{}}}, at(3)},
		"rolled back": {PhaseFailed, StepTimes{Started: micro(1), Finished: micro(7)},
			[]PhaseSpan{{PhasePending, noon, at(1)}, {PhasePreparing, at(1), at(7)}, {PhaseFailed, at(7), time.Time{}}}, at(7)},
		"clocks differ": {PhasePreparing, StepTimes{Started: micro(-0.5)},
			[]PhaseSpan{{PhasePending, noon, noon}, {PhasePreparing, at(-0.5), time.Time{}}}, at(-0.5)},
		"not written": {PhasePlacing, StepTimes{}, []PhaseSpan{{PhasePending, noon, time.Time{}}}, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			m := &PodMigration{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(noon)}, Status: PodMigrationStatus{Phase: test.phase, Times: test.times}}
			if diff := cmp.Diff(test.want, m.PhaseSpans()); diff != "" {
				t.Errorf("spans (-want +got):\n%s", diff)
			}
			if got := m.PhaseSince(); !got.Equal(test.since) {
				t.Errorf("since %s, want %s", got, test.since)
			}
		})
	}
}

func TestIsUID(t *testing.T) {
	for value, want := range map[string]bool{
		"0f8fad5b-d9cb-469f-a165-70867728950e":   true,
		"0F8FAD5B-D9CB-469F-A165-70867728950E":   false,
		"0f8fad5b-d9cb-469f-a165-70867728950":    false,
		"{0f8fad5b-d9cb-469f-a165-70867728950e}": false,
		"../0f8fad5b-d9cb-469f-a165-70867728950": false,
		"":                                       false,
	} {
		if got := IsUID(value); got != want {
			t.Errorf("IsUID(%q) = %t", value, got)
		}
	}
}
