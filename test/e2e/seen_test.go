//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/internal/collector"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/tracing"
	"github.com/ai-storage/orchestrator/test/devcluster"
)

// What a migration did is what its metrics, its events and its trace report, to the
// byte and to the millisecond.
func TestAMigrationIsSeen(t *testing.T) {
	traces := collector.Start(t)
	traceTo(t, traces.Address)
	namespace := newNamespace(t)
	token := metricsReader(t, namespace)
	original := startOn(t, env.nodes[0], scratchPod(namespace))
	waitCompleted(t, original, "prepare")

	before := scrapeAll(t, token)
	migration := migrate(t, original, withClaim)
	wantSucceeded(t, migration, 2*time.Minute)
	var moved change
	eventually(t, 10*time.Second, "the end is counted", func(context.Context) error {
		moved = change{before, scrapeAll(t, token)}
		if n := moved.by("rebalancer", "ai_storage_migration_finished_total", nil); n != 1 {
			return fmt.Errorf("%v migrations are counted", n)
		}
		return nil
	})
	wantCounted(t, moved, migration)
	wantAgentsCounted(t, moved, migration)
	wantEvents(t, migration)
	wantTrace(t, traces, migration)
}

// scratchPod has a container that has finished, and one that keeps 8 MiB.
func scratchPod(namespace string) *corev1.Pod {
	template := smallWriterTemplate("seen", "")
	pod := excluded(newPod(namespace, "seen", container("prepare", 100), container("work", 50, "--cpu=10m")))
	pod.Spec.Volumes = template.Spec.Volumes
	mount := template.Spec.InitContainers[0].VolumeMounts
	pod.Spec.Containers[0].Args, pod.Spec.Containers[0].VolumeMounts = template.Spec.InitContainers[0].Args, mount
	pod.Spec.Containers[1].VolumeMounts = mount
	return pod
}

// traceTo replaces the rebalancer by the one that is shipped, without breakpoints and
// with traces on, until the test ends.
func traceTo(t *testing.T, address string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tracing.yaml")
	content := "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nendpoint: " + address + "\nsamplingRatePerMillion: 1000000\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := replaceRebalancer(context.WithoutCancel(t.Context()), startRebalancer); err != nil {
			t.Error(err)
		}
	})
	if err := replaceRebalancer(t.Context(), func() error {
		return env.cluster.StartComponent(devcluster.Rebalancer, "--tracing-config-file="+path)
	}); err != nil {
		t.Fatal(err)
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 0.001 }

func wantCounted(t *testing.T, moved change, m *v1alpha1.PodMigration) {
	t.Helper()
	times := m.Status.Times
	phases := map[string]time.Duration{
		"Pending":     times.Started.Sub(m.CreationTimestamp.Time),
		"Preparing":   times.Prepared.Sub(times.Started.Time),
		"Placing":     times.HandingOver.Sub(times.Prepared.Time),
		"HandingOver": times.Finished.Sub(times.HandingOver.Time),
	}
	for phase, took := range phases {
		labels := map[string]string{"phase": phase}
		n, sum := moved.by("rebalancer", "ai_storage_migration_phase_duration_seconds_count", labels), moved.by("rebalancer", "ai_storage_migration_phase_duration_seconds_sum", labels)
		if n != 1 || !near(sum, took.Seconds()) {
			t.Errorf("phase %s is counted %v times with %v s, want once with %v", phase, n, sum, took)
		}
		t.Logf("%-12s %8.3f s", phase, sum)
	}
	if m.Status.Downtime == nil || m.Status.Downtime.Duration <= 0 {
		t.Fatalf("downtime %v: the pod has to be frozen for its last copy", m.Status.Downtime)
	}
	want := map[string]float64{
		"ai_storage_migration_finished_total":            1,
		"ai_storage_migration_downtime_seconds_count":    1,
		"ai_storage_migration_downtime_seconds_sum":      m.Status.Downtime.Seconds(),
		"ai_storage_migration_carried_bytes_total":       float64(m.Status.Checkpoint.Source.Bytes),
		"ai_storage_migration_freed_cpu_cores_total":     0.1,
		"ai_storage_migration_freed_memory_bytes_total":  32 << 20,
		"ai_storage_migration_budget_wait_seconds_count": 0,
		"ai_storage_migration_in_flight":                 0,
	}
	for name, value := range want {
		got := moved.by("rebalancer", name, nil)
		if !near(got, value) {
			t.Errorf("%s has moved by %v, want %v", name, got, value)
		}
		t.Logf("%-48s %+v", name, got)
	}
	if n := moved.by("rebalancer", "ai_storage_migration_finished_total", map[string]string{"result": "Succeeded", "reason": "Succeeded"}); n != 1 {
		t.Errorf("%v are counted as Succeeded", n)
	}
	if n := moved.by("scheduler", "ai_storage_checkpoint_volume_wait_duration_seconds_count", map[string]string{"step": "free"}); n < 1 {
		t.Errorf("the scheduler counted %v waits for the claim", n)
	}
}

func wantAgentsCounted(t *testing.T, moved change, m *v1alpha1.PodMigration) {
	t.Helper()
	from, to, report := m.Status.Original.NodeName, m.Status.Replacement.NodeName, m.Status.Checkpoint.Source
	for _, pass := range []struct {
		node, name string
		want       float64
	}{{from, "seal", 1}, {from, "receive", 0}, {to, "seal", 0}, {to, "receive", float64(report.Pass)}, {to, "restore", 0}} {
		if n := moved.by(pass.node, "ai_storage_node_agent_passes_total", map[string]string{"pass": pass.name}); n != pass.want {
			t.Errorf("node %s counted %v passes %s, want %v", pass.node, n, pass.name, pass.want)
		}
	}
	written := moved.by(from, "ai_storage_node_agent_written_bytes_total", nil)
	if passes := moved.by(from, "ai_storage_node_agent_passes_total", nil); passes < 2 || written < 8<<20 || written > 9<<20 {
		t.Errorf("the source sent %v bytes in %v passes, want 8 MiB once", written, passes)
	}
	frozen := report.SealedAt.Sub(report.FrozenAt.Time)
	n, sum := moved.by(from, "ai_storage_node_agent_freeze_duration_seconds_count", nil), moved.by(from, "ai_storage_node_agent_freeze_duration_seconds_sum", nil)
	if n != 1 || !near(sum, frozen.Seconds()) {
		t.Errorf("%v freezes with %v s are counted, want one with %v", n, sum, frozen)
	}
	if errors := moved.by(from, "ai_storage_node_agent_errors_total", nil) + moved.by(to, "ai_storage_node_agent_errors_total", nil); errors != 0 {
		t.Errorf("%v errors are counted", errors)
	}
	t.Logf("agents: %v bytes sent, %v s from freezing to the seal", written, sum)
}

// wantEvents wants a person to read the steps of the migration in their order.
func wantEvents(t *testing.T, m *v1alpha1.PodMigration) {
	t.Helper()
	list := &eventsv1.EventList{}
	if err := env.client.List(t.Context(), list, client.InNamespace(m.Namespace)); err != nil {
		t.Fatal(err)
	}
	events := slices.DeleteFunc(list.Items, func(e eventsv1.Event) bool { return e.Regarding.UID != m.UID })
	slices.SortFunc(events, func(a, b eventsv1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
	var got []string
	for _, e := range events {
		got = append(got, e.Reason)
		t.Logf("event %s %s: %s", e.Type, e.Reason, e.Note)
		if e.Type != corev1.EventTypeNormal || e.Note == "" {
			t.Errorf("event %s is a %s: %q", e.Reason, e.Type, e.Note)
		}
	}
	want := []string{"Accepted", "Prepared", "ReplacementCreated", "Placed", "Released", "ReplacementReady", "HandedOver", "Succeeded"}
	if !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

func wantTrace(t *testing.T, traces *collector.Collector, m *v1alpha1.PodMigration) {
	t.Helper()
	id := tracing.TraceID(m.UID)
	eventually(t, 20*time.Second, "the trace arrives", func(context.Context) error {
		spans := traces.Trace(id)
		root := spans["PodMigration"]
		if root == nil || len(spans) != 5 {
			return fmt.Errorf("%d spans of trace %s", len(spans), id)
		}
		return nil
	})
	spans := traces.Trace(id)
	root := spans["PodMigration"]
	for _, phase := range []string{"Pending", "Preparing", "Placing", "HandingOver"} {
		span := spans[phase]
		if span == nil || string(span.ParentSpanId) != string(root.SpanId) || span.StartTimeUnixNano < root.StartTimeUnixNano || span.EndTimeUnixNano > root.EndTimeUnixNano {
			t.Fatalf("phase %s is not within the migration: %+v", phase, span)
		}
		t.Logf("span %-12s %8.3f s", phase, float64(span.EndTimeUnixNano-span.StartTimeUnixNano)/1e9)
	}
	if end := time.Unix(0, int64(root.EndTimeUnixNano)); end.Sub(m.Status.Times.Finished.Time).Abs() > time.Millisecond {
		t.Errorf("the trace ends at %v, the migration at %v", end, m.Status.Times.Finished)
	}
	var steps []string
	for _, event := range root.Events {
		steps = append(steps, event.Name)
	}
	for _, step := range []string{"Copied", "Placed", "Stopped", "Sealed", "Released", "ReplacementReady", "OriginalGone"} {
		if !slices.Contains(steps, step) {
			t.Errorf("the root has moments %v, %s is missing", steps, step)
		}
	}
}
