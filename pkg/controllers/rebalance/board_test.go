package rebalance

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

func control(data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: ControlName}, Data: data}
}

func TestPausedLoopPlansAndBeginsNothing(t *testing.T) {
	w := newWorld(t, 7)
	loop := newLoop(t, w, clocktesting.NewFakeClock(noon))
	paused := control(map[string]string{"paused": "true", "by": "anna", "reason": "upgrade", "since": "2026-01-01T11:00:00Z"})
	must(t, w.Create(t.Context(), paused))
	must(t, loop.cycle(t.Context()))
	if created := migrations(t, w); len(created) != 0 {
		t.Errorf("%d migrations by a paused loop", len(created))
	}
	status := loop.Status()
	if status.Moves != 2 || status.Held != "paused by anna: upgrade" || status.Paused == nil || status.Paused.Since == nil {
		t.Errorf("%d moves, held %q, paused %+v", status.Moves, status.Held, status.Paused)
	}
	if got := testutil.ToFloat64(loop.Metrics.paused); got != 1 {
		t.Errorf("ai_storage_rebalance_paused is %v", got)
	}
	dry, err := loop.DryRun(t.Context())
	must(t, err)
	var out strings.Builder
	must(t, WriteStatus(&out, dry))
	if !strings.Contains(out.String(), "paused by anna: upgrade") {
		t.Errorf("a dry run does not say so:\n%s", out.String())
	}
	paused.Data = map[string]string{"paused": "false", "by": "anna"}
	must(t, w.Update(t.Context(), paused))
	must(t, loop.cycle(t.Context()))
	if created := migrations(t, w); len(created) != 2 || loop.Status().Paused != nil || testutil.ToFloat64(loop.Metrics.paused) != 0 {
		t.Errorf("%d migrations after it was resumed, status %+v", len(created), loop.Status().Paused)
	}
}

func TestPauseOf(t *testing.T) {
	since := time.Date(2026, 1, 1, 11, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		data map[string]string
		want string
	}{
		"nothing written": {nil, ""},
		"false":           {map[string]string{"paused": "false", "by": "anna"}, ""},
		"true":            {map[string]string{"paused": "true", "since": since.Format(time.RFC3339)}, "paused"},
		"by":              {map[string]string{"paused": "true", "by": "anna"}, "paused by anna"},
		"reason":          {map[string]string{"paused": " true\n", "by": "anna", "reason": "night"}, "paused by anna: night"},
		"no boolean":      {map[string]string{"paused": "yes"}, `paused: data.paused of ConfigMap ai-storage-rebalancer-control is "yes": write "true" or "false"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := pauseOf(test.data).String(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestEveryCycleIsPublished(t *testing.T) {
	w := newWorld(t, 7)
	loop := newLoop(t, w, clocktesting.NewFakeClock(noon))
	if shown, err := loop.StatusStore.Published(t.Context()); err != nil || shown != nil {
		t.Fatalf("before the first cycle: %s, %v", shown, err)
	}
	for _, at := range []time.Time{noon, noon.Add(time.Minute)} {
		w.observation.At = at
		must(t, loop.cycle(t.Context()))
		shown, err := loop.StatusStore.Published(t.Context())
		must(t, err)
		var status Status
		must(t, json.Unmarshal(shown, &status))
		if !status.Time.Equal(at) || status.Plan == nil || status.Trimmed != "" {
			t.Errorf("published %s", shown)
		}
	}
}

func TestLargeStatusIsTrimmed(t *testing.T) {
	status := &Status{Plan: &planner.Plan{Moves: []planner.Move{{From: "node-7", To: "node-8"}}}, Moves: 1}
	for i := range 5000 {
		node := planner.NodeLoad{Name: fmt.Sprint("node-", i), Overutilized: i == 3}
		status.Plan.Before.Nodes = append(status.Plan.Before.Nodes, node)
		status.Plan.After.Nodes = append(status.Plan.After.Nodes, node)
	}
	whole, err := json.Marshal(status)
	must(t, err)
	tests := map[string]struct {
		skipped, limit, nodes int
		says                  string
	}{
		"fits":                     {0, len(whole), 5000, ""},
		"one byte too long":        {0, len(whole) - 1, 3, "3 of 5000 nodes are shown"},
		"too long without nodes":   {5000, 100_000, 3, "the plan has 1 moves and saw 5000 nodes"},
		"hardly room for anything": {5000, 2000, 3, "to their first"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			status.Skipped = nil
			for i := range test.skipped {
				status.Skipped = append(status.Skipped, SkippedNode{fmt.Sprint("node-", i), "no fresh measurement"})
			}
			encoded, err := encodeStatus(status, test.limit)
			must(t, err)
			var got Status
			must(t, json.Unmarshal(encoded, &got))
			if len(encoded) > test.limit || len(got.Plan.Before.Nodes) != test.nodes || len(got.Plan.After.Nodes) != test.nodes ||
				!strings.Contains(got.Trimmed, test.says) || (got.Trimmed == "") != (test.says == "") {
				t.Errorf("%d bytes of %d, %d nodes, trimmed %q", len(encoded), test.limit, len(got.Plan.Before.Nodes), got.Trimmed)
			}
			if len(status.Plan.Before.Nodes) != 5000 {
				t.Error("the status itself was changed")
			}
		})
	}
	if _, err := encodeStatus(status, 10); err == nil {
		t.Error("ten bytes are enough for a status")
	}
}
