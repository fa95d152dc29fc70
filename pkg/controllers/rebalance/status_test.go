package rebalance

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

// finishedMigration of a pod that is not in the world.
func finishedMigration(name string, ago, downtime time.Duration) *v1alpha1.PodMigration {
	m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: name}, Spec: v1alpha1.PodMigrationSpec{PodName: name}}
	m.Status.Phase = v1alpha1.PhaseSucceeded
	m.Status.Times.Finished = &metav1.MicroTime{Time: noon.Add(-ago)}
	m.Status.Downtime = &metav1.Duration{Duration: downtime}
	return m
}

func TestWriteStatus(t *testing.T) {
	w := newWorld(t, 7)
	w.observation.NodeMetrics[1].Timestamp = metav1.NewTime(noon.Add(-5 * time.Minute))
	moved := finishedMigration("moved", time.Minute, 1500*time.Millisecond)
	moved.Namespace, moved.Spec.PodName = "ns", "pod-6"
	must(t, w.Create(t.Context(), moved))
	status, err := newLoop(t, w, clocktesting.NewFakeClock(noon)).DryRun(t.Context())
	must(t, err)
	var out strings.Builder
	must(t, WriteStatus(&out, status))
	for _, want := range []string{"ns/pod-0", "overutilized", "87.5%", "source: Measured", "objective", "standard deviation of CPU load", "fragmentation",
		"number of moves", "expected downtime", "3s", "500m CPU, 1024Mi",
		"cool      the last measurement of the node is 5m0s old", "Pod/ns/pod-6   2026-01-01T12:09:00Z"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}

func TestStatusAsJSON(t *testing.T) {
	w := newWorld(t, 7)
	loop := newLoop(t, w, clocktesting.NewFakeClock(noon))
	if loop.Status() != nil {
		t.Error("there is a status before the first cycle")
	}
	must(t, loop.cycle(t.Context()))
	data, err := json.Marshal(loop.Status())
	must(t, err)
	var got map[string]any
	must(t, json.Unmarshal(data, &got))
	for _, field := range []string{"time", "source", "before", "after", "moves", "plan", "skipped", "abnormal", "circuitBreaker", "cooldowns"} {
		if got[field] == nil {
			t.Errorf("field %s is missing in %s", field, data)
		}
	}
	if _, known := got["expectedDowntime"]; known {
		t.Errorf("a downtime is expected though none was measured: %s", data)
	}
	if before, after := got["before"].(map[string]any), got["after"].(map[string]any); before["objective"].(float64) <= after["objective"].(float64) {
		t.Errorf("the plan does not lower the objective: %v, %v", before, after)
	}
}

func TestMedianDowntime(t *testing.T) {
	second := func(n int) time.Duration { return time.Duration(n) * time.Second }
	failed := finishedMigration("failed", 0, second(100))
	failed.Status.Phase = v1alpha1.PhaseFailed
	unmeasured := finishedMigration("unmeasured", 0, 0)
	unmeasured.Status.Downtime = nil
	old := func() (many []v1alpha1.PodMigration) {
		for i := range recentDowntimes {
			many = append(many, *finishedMigration(fmt.Sprint("new", i), time.Duration(i), second(7)))
		}
		for i := range 1000 {
			many = append(many, *finishedMigration(fmt.Sprint("old", i), time.Hour, second(50)))
		}
		return many
	}
	for name, tt := range map[string]struct {
		migrations []v1alpha1.PodMigration
		want       time.Duration
		known      bool
	}{
		"none":            {nil, 0, false},
		"failed":          {[]v1alpha1.PodMigration{*failed, *unmeasured}, 0, false},
		"odd":             {[]v1alpha1.PodMigration{*finishedMigration("a", 3, second(9)), *finishedMigration("b", 2, 0), *finishedMigration("c", 1, second(2))}, second(2), true},
		"even":            {[]v1alpha1.PodMigration{*finishedMigration("a", 2, second(1)), *finishedMigration("b", 1, second(4))}, 2500 * time.Millisecond, true},
		"overlapped":      {[]v1alpha1.PodMigration{*finishedMigration("a", 1, 0)}, 0, true},
		"only the latest": {old(), second(7), true},
	} {
		if got, known := medianDowntime(tt.migrations); got != tt.want || known != tt.known {
			t.Errorf("%s: %s, %t, want %s, %t", name, got, known, tt.want, tt.known)
		}
	}
}

func TestMetricsOfAStatus(t *testing.T) {
	w := newWorld(t, 7)
	w.observation.NodeMetrics[1].Timestamp = metav1.NewTime(noon.Add(-5 * time.Minute))
	loop := newLoop(t, w, clocktesting.NewFakeClock(noon))
	registry := prometheus.NewRegistry()
	loop.Metrics = NewMetrics(registry)
	must(t, loop.cycle(t.Context()))
	want := `
# HELP ai_storage_rebalance_circuit_breaker 1 for the state that the circuit breaker is in, 0 for the others.
# TYPE ai_storage_rebalance_circuit_breaker gauge
ai_storage_rebalance_circuit_breaker{state="Closed"} 1
ai_storage_rebalance_circuit_breaker{state="Open"} 0
ai_storage_rebalance_circuit_breaker{state="Trying"} 0
# HELP ai_storage_rebalance_cycles_total Cycles of the loop, by result: planned, or failed.
# TYPE ai_storage_rebalance_cycles_total counter
ai_storage_rebalance_cycles_total{result="failed"} 0
ai_storage_rebalance_cycles_total{result="planned"} 1
# HELP ai_storage_rebalance_last_cycle_timestamp_seconds When the last cycle that made a plan observed the cluster, in seconds since 1970.
# TYPE ai_storage_rebalance_last_cycle_timestamp_seconds gauge
ai_storage_rebalance_last_cycle_timestamp_seconds NOON
# HELP ai_storage_rebalance_metrics_age_seconds Age of the oldest of the last measurements of all nodes, in the last cycle; 0 where nothing measures.
# TYPE ai_storage_rebalance_metrics_age_seconds gauge
ai_storage_rebalance_metrics_age_seconds 300
# HELP ai_storage_rebalance_nodes_skipped Nodes that no pod is moved from or to; the status says why.
# TYPE ai_storage_rebalance_nodes_skipped gauge
ai_storage_rebalance_nodes_skipped 1
# HELP ai_storage_rebalance_workloads_cooling_down Workloads that stay where they are since a migration of them ended not long ago.
# TYPE ai_storage_rebalance_workloads_cooling_down gauge
ai_storage_rebalance_workloads_cooling_down 0
`
	want = strings.ReplaceAll(want, "NOON", strconv.FormatFloat(float64(noon.Unix()), 'e', -1, 64))
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "ai_storage_rebalance_circuit_breaker",
		"ai_storage_rebalance_cycles_total", "ai_storage_rebalance_last_cycle_timestamp_seconds", "ai_storage_rebalance_metrics_age_seconds",
		"ai_storage_rebalance_nodes_skipped", "ai_storage_rebalance_workloads_cooling_down"); err != nil {
		t.Error(err)
	}
	plan := loop.Status().Plan
	for _, state := range []struct {
		name string
		want planner.Summary
	}{{stateBefore, plan.Before}, {statePredicted, plan.After}} {
		got := []float64{testutil.ToFloat64(loop.Metrics.objective.WithLabelValues(state.name)), testutil.ToFloat64(loop.Metrics.deviation.WithLabelValues("cpu", state.name))}
		if diff := cmp.Diff([]float64{state.want.Objective, state.want.CPUDeviation}, got); diff != "" {
			t.Errorf("%s: objective and deviation (-want +got):\n%s", state.name, diff)
		}
	}
}
