package migration

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
)

func TestMigrationsAreCountedOnceByResultAndReason(t *testing.T) {
	tests := map[string]struct {
		migration *v1alpha1.PodMigration
		phase     v1alpha1.Phase
		reason    string
	}{
		"succeeded": {in(v1alpha1.PhaseHandingOver), v1alpha1.PhaseSucceeded, decide.ReasonSucceeded},
		"rolled back": {with(in(v1alpha1.PhasePlacing), v1alpha1.ConditionRolledBack, metav1.ConditionTrue, decide.ReasonUnschedulable),
			v1alpha1.PhaseFailed, decide.ReasonUnschedulable},
		"rejected": {with(in(""), v1alpha1.ConditionAccepted, metav1.ConditionFalse, decide.ReasonPodNotFound), v1alpha1.PhaseFailed, decide.ReasonPodNotFound},
		"cancelled in the queue": {with(in(v1alpha1.PhasePending), v1alpha1.ConditionAccepted, metav1.ConditionFalse, decide.ReasonWaitingForBudget),
			v1alpha1.PhaseCancelled, decide.ReasonCancelled},
		"lost": {with(in(v1alpha1.PhaseHandingOver), v1alpha1.ConditionReplacementReady, metav1.ConditionFalse, decide.ReasonReplacementFailed),
			v1alpha1.PhaseFailed, decide.ReasonReplacementFailed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			counted := NewMetrics(nil, nil)
			after := test.migration.DeepCopy()
			after.Status.Phase, after.Status.Times.Finished = test.phase, ago(0)
			counted.observe(test.migration, after)
			counted.observe(after, after)
			if got := testutil.ToFloat64(counted.finished.WithLabelValues(string(test.phase), test.reason)); got != 1 {
				t.Errorf("counted %v times as %s for %s, want once", got, test.phase, test.reason)
			}
		})
	}
}

func TestTimeInAPhase(t *testing.T) {
	m := in(v1alpha1.PhaseHandingOver)
	if got := t0.Sub(m.PhaseSince()); got != 20*time.Second {
		t.Errorf("in the phase for %v, want 20s", got)
	}
}

// What a success brought is counted in base units; what the replacement requests
// more is not subtracted from a counter.
func TestWhatASuccessBrought(t *testing.T) {
	counted := NewMetrics(nil, nil)
	before := in(v1alpha1.PhaseHandingOver)
	after := before.DeepCopy()
	after.Status.Phase, after.Status.Times.Finished = v1alpha1.PhaseSucceeded, ago(0)
	after.Status.Downtime = &metav1.Duration{Duration: 1500 * time.Millisecond}
	after.Status.Checkpoint.Source = &v1alpha1.SourceReport{Bytes: 4096}
	after.Status.Before, after.Status.After = &v1alpha1.ResourceRecord{Requests: fixture.Amounts("1600m", "64Mi")}, &v1alpha1.ResourceRecord{Requests: fixture.Amounts("700m", "65Mi")}
	counted.observe(before, after)
	want := `
# HELP ai_storage_migration_downtime_seconds Time in which neither original nor replacement could work, of migrations that succeeded; 0 when they overlapped.
# TYPE ai_storage_migration_downtime_seconds histogram
`
	for _, bound := range []string{"0", "0.25", "0.5", "1"} {
		want += "ai_storage_migration_downtime_seconds_bucket{le=\"" + bound + "\"} 0\n"
	}
	for _, bound := range []string{"2", "4", "8", "16", "32", "64", "128", "256", "512", "+Inf"} {
		want += "ai_storage_migration_downtime_seconds_bucket{le=\"" + bound + "\"} 1\n"
	}
	want += "ai_storage_migration_downtime_seconds_sum 1.5\nai_storage_migration_downtime_seconds_count 1\n"
	if err := testutil.CollectAndCompare(counted.downtime, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	got := []float64{testutil.ToFloat64(counted.carriedBytes), testutil.ToFloat64(counted.freedCPU), testutil.ToFloat64(counted.freedMemory)}
	if diff := cmp.Diff([]float64{4096, 0.9, 0}, got, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Errorf("bytes carried, CPU and memory freed (-want +got):\n%s", diff)
	}
}

// A migration that never was in the budget's queue is pending for a moment too,
// and only one that waited for its place counts as having waited.
func TestWaitingForThePlaceInTheBudget(t *testing.T) {
	for name, test := range map[string]struct {
		before  *v1alpha1.PodMigration
		waits   int
		pending time.Duration
	}{
		"at once":  {in(""), 0, 10 * time.Second},
		"waited":   {with(in(v1alpha1.PhasePending), v1alpha1.ConditionAccepted, metav1.ConditionFalse, decide.ReasonWaitingForBudget), 1, 10 * time.Second},
		"by owner": {with(in(v1alpha1.PhasePending), v1alpha1.ConditionAccepted, metav1.ConditionFalse, decide.ReasonWaitingForOwner), 0, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			counted := NewMetrics(registry, nil)
			counted.observe(test.before, in(v1alpha1.PhasePreparing))
			waits, pending := histogram(t, registry, "ai_storage_migration_budget_wait_seconds"), histogram(t, registry, "ai_storage_migration_phase_duration_seconds")
			if int(waits.GetSampleCount()) != test.waits {
				t.Errorf("%d waits, want %d", waits.GetSampleCount(), test.waits)
			}
			if pending.GetSampleCount() != 1 || pending.GetSampleSum() != test.pending.Seconds() {
				t.Errorf("pending %v, want once for %v", pending, test.pending)
			}
		})
	}
}

func histogram(t *testing.T, gatherer prometheus.Gatherer, name string) *dto.Histogram {
	t.Helper()
	families, err := gatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.Metric[0].Histogram
		}
	}
	return &dto.Histogram{}
}

// The cache is asked with each scrape: what a dead controller left is seen too.
func TestMigrationsInFlight(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	waiting, placing, done := in(""), in(v1alpha1.PhasePlacing), in(v1alpha1.PhaseSucceeded)
	waiting.Name, placing.Name, done.Name = "waiting", "placing", "done"
	placing.Status.Times.Prepared = &metav1.MicroTime{Time: time.Now().Add(-time.Hour)}
	registry := prometheus.NewRegistry()
	NewMetrics(registry, fake.NewClientBuilder().WithScheme(scheme).WithObjects(waiting, placing, done).Build())
	want := `
# HELP ai_storage_migration_in_flight Migrations that have not ended, by phase. Every replica reports the same.
# TYPE ai_storage_migration_in_flight gauge
ai_storage_migration_in_flight{phase="HandingOver"} 0
ai_storage_migration_in_flight{phase="Pending"} 1
ai_storage_migration_in_flight{phase="Placing"} 1
ai_storage_migration_in_flight{phase="Preparing"} 0
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "ai_storage_migration_in_flight"); err != nil {
		t.Error(err)
	}
	if age := oldest(inPhase(fakeOf(t, scheme, placing), v1alpha1.PhasePlacing), time.Now()); age < time.Hour || age > time.Hour+time.Minute {
		t.Errorf("the oldest is %v in its phase, want an hour", age)
	}
}

func fakeOf(t *testing.T, scheme *runtime.Scheme, m *v1alpha1.PodMigration) client.Reader {
	t.Helper()
	m = m.DeepCopy()
	m.ResourceVersion = ""
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(m).Build()
}

// A claim is counted as long as its record says that it has the only copy.
func TestKeptClaimsAreCounted(t *testing.T) {
	kept := with(in(v1alpha1.PhaseHandingOver), v1alpha1.ConditionCheckpointKept, metav1.ConditionTrue, decide.ReasonCheckpointKept)
	kept.Status.Phase = v1alpha1.PhaseFailed
	recovered := with(in(v1alpha1.PhaseHandingOver), v1alpha1.ConditionCheckpointKept, metav1.ConditionFalse, decide.ReasonAlreadyRecovered)
	recovered.Name, recovered.Status.Phase = "recovered", v1alpha1.PhaseFailed
	running := in(v1alpha1.PhaseHandingOver)
	running.Name = "running"
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	NewMetrics(registry, fake.NewClientBuilder().WithScheme(scheme).WithObjects(kept, recovered, running).Build())
	const want = `
# HELP ai_storage_migration_kept_claims Checkpoint claims that have the only copy of a pod's state, which a failed migration has kept. Every replica reports the same.
# TYPE ai_storage_migration_kept_claims gauge
ai_storage_migration_kept_claims 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "ai_storage_migration_kept_claims"); err != nil {
		t.Error(err)
	}
}
