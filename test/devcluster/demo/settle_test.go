package demo

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

var (
	thresholds = config.UtilizationThresholds{CPU: 70, Memory: 80}
	begin      = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

func loads(since time.Time, cpus ...float64) measurement {
	m := measurement{since: since}
	for i, cpu := range cpus {
		m.nodes = append(m.nodes, nodeLoad{name: string(rune('a' + i)), cpu: cpu, memory: cpu / 2})
	}
	return m
}

func TestSettled(t *testing.T) {
	after := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	for _, test := range []struct {
		name string
		now  time.Time
		m    measurement
		t    tally
		want ending
	}{
		{"cool, measured after the last move", after(60), loads(after(40), 0.5, 0.6), tally{succeeded: 1, last: after(30)}, noneOverutilized},
		{"cool, but measured before the last move", after(60), loads(after(20), 0.5, 0.6), tally{succeeded: 1, last: after(30)}, notEnded},
		{"cool, but a move is in flight", after(60), loads(after(40), 0.5, 0.6), tally{inFlight: 1, last: after(30)}, notEnded},
		{"cool, but measured before the beginning", after(5), loads(after(-5), 0.5, 0.6), tally{}, notEnded},
		{"overutilized, and the last move is recent", after(60), loads(after(40), 0.5, 0.8), tally{succeeded: 1, last: after(30)}, notEnded},
		{"overutilized, and nothing happens", after(80), loads(after(60), 0.5, 0.8), tally{succeeded: 1, last: after(30)}, planDone},
		{"overutilized, and nothing ever happened", after(46), loads(after(30), 0.5, 0.8), tally{}, planDone},
	} {
		if got := settled(test.now, begin, test.m, test.t, thresholds); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestFigures(t *testing.T) {
	m := loads(begin, 0.2, 0.4, 0.4, 0.4, 0.5, 0.5, 0.7, 0.9)
	if got := deviation(m.cpus()); math.Abs(got-0.2) > 1e-12 {
		t.Errorf("deviation %v, want 0.2", got)
	}
	if got := m.overutilized(thresholds); got != 1 {
		t.Errorf("%d nodes overutilized, want 1: a threshold itself is not above it", got)
	}
	m.nodes[0].memory = 0.81
	if got := m.overutilized(thresholds); got != 2 {
		t.Errorf("%d nodes overutilized, want 2: memory counts too", got)
	}
}

func TestTally(t *testing.T) {
	requests := func(cpu, memory string) *v1alpha1.ResourceRecord {
		return &v1alpha1.ResourceRecord{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory),
		}}
	}
	finished := metav1.NewMicroTime(begin.Add(time.Minute))
	migration := func(phase v1alpha1.Phase, before, after *v1alpha1.ResourceRecord) v1alpha1.PodMigration {
		m := v1alpha1.PodMigration{Status: v1alpha1.PodMigrationStatus{Phase: phase, Before: before, After: after, Message: "because"}}
		m.CreationTimestamp, m.Spec.PodName = metav1.NewTime(begin), "p"
		if phase.IsFinished() {
			m.Status.Times.Finished = &finished
		}
		return m
	}
	got := newTally([]v1alpha1.PodMigration{
		migration(v1alpha1.PhaseSucceeded, requests("1600m", "3Gi"), requests("700m", "2Gi")),
		migration(v1alpha1.PhaseSucceeded, requests("100m", "1Gi"), requests("100m", "1Gi")),
		migration(v1alpha1.PhaseSucceeded, nil, nil),
		migration(v1alpha1.PhaseFailed, requests("1", "1Gi"), requests("0", "0")),
		migration(v1alpha1.PhaseCancelled, nil, nil),
		migration(v1alpha1.PhasePlacing, requests("1", "1Gi"), nil),
		migration("", nil, nil),
	})
	if got.inFlight != 2 || got.succeeded != 3 || got.failed != 2 || !got.last.Equal(finished.Time) {
		t.Errorf("tally %+v", got)
	}
	if diff := cmp.Diff([]string{"p: because", "p: because"}, got.failures); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
	reclaimed := fixture.MakePod("stays").Annotation(v1alpha1.ReclaimedAnnotation,
		`{"containers":{"loader":{"original":{"requests":{"cpu":"500m"}},"resized":{"requests":{"cpu":"1m"}}}}}`).
		Container("loader", nil, fixture.Requests("1m", "1Mi")).Obj()
	if err := got.addReclaimed([]corev1.Pod{*reclaimed, *fixture.MakePod("whole").Container("c", nil, fixture.Requests("1", "1Gi")).Obj()}); err != nil {
		t.Fatal(err)
	}
	if got.reclaimedCPU.MilliValue() != 499 || !got.reclaimedMemory.IsZero() {
		t.Errorf("reclaimed %s CPU and %s, want 499m and nothing", got.reclaimedCPU.String(), got.reclaimedMemory.String())
	}
	if got.freedCPU.MilliValue() != 900 || got.freedMemory.Value() != 1<<30 {
		t.Errorf("freed %s CPU and %s, want 900m and 1Gi", got.freedCPU.String(), got.freedMemory.String())
	}
}

func TestReport(t *testing.T) {
	better := report{
		before: loads(begin, 0.2, 0.8), after: loads(begin, 0.45, 0.55), thresholds: thresholds, end: noneOverutilized,
		moves: tally{succeeded: 3, failed: 1, failures: []string{"p: no room"}, freedCPU: resource.MustParse("900m"), freedMemory: resource.MustParse("1536Mi"),
			reclaimedCPU: resource.MustParse("500m"), reclaimedMemory: resource.MustParse("256Mi")},
		rebalancing: 61 * time.Second, total: 125 * time.Second,
	}
	var out strings.Builder
	better.write(&out)
	want := `                                            before   after
  standard deviation of node load, CPU      30.0%    5.0%
  standard deviation of node load, memory   15.0%    2.5%
  highest node load, CPU                    80.0%    55.0%
  highest node load, memory                 40.0%    27.5%
  nodes above a threshold                   1        0

  moves                         3 succeeded, 1 failed
                                p: no room
  requests freed by stripping   0.90 CPUs, 1.50 GiB of memory
  requests reclaimed in place   0.50 CPUs, 0.25 GiB of memory
  time                          1m1s of rebalancing, 2m5s in all
  end                           no node is above a threshold
  criterion                     a move succeeded, the standard deviation of CPU load fell, and
                                no node is above a threshold or nothing more was found to move
  verdict                       balanced
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if err := better.judge(); err != nil {
		t.Error(err)
	}
	worse, idle := better, better
	worse.after, idle.moves = better.before, tally{}
	for name, r := range map[string]report{"no better": worse, "no move": idle} {
		if err := r.judge(); err == nil {
			t.Errorf("%s: judged as balanced", name)
		}
	}
}

func TestViewDrawsOverItself(t *testing.T) {
	var plain, live strings.Builder
	views := []*view{newView(&plain, false, thresholds), newView(&live, true, thresholds)}
	for _, v := range views {
		for range 2 {
			v.draw(time.Second, loads(begin, 0.5, 0.8), tally{inFlight: 1})
		}
	}
	line := "   1.0s  CPU 50% to 80%, deviation 15.0%; 1 of 2 nodes overutilized; moves: 1 in flight, 0 succeeded, 0 failed\n"
	if diff := cmp.Diff(line+line, plain.String()); diff != "" {
		t.Errorf("plain (-want +got):\n%s", diff)
	}
	if got := strings.Count(live.String(), "\x1b[4A"); got != 1 {
		t.Errorf("went up %d times, want once over 4 lines:\n%q", got, live.String())
	}
	for _, line := range strings.Split(live.String(), "\n") {
		if width := len([]rune(strings.TrimPrefix(strings.TrimPrefix(line, "\x1b[4A"), "\x1b[2K"))); width > 80 {
			t.Errorf("a line of %d columns breaks on a terminal: %q", width, line)
		}
	}
}
