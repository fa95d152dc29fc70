package kubectl

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/observe"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

func configMap(t *testing.T, name string, data map[string]string) *corev1.ConfigMap {
	t.Helper()
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: defaultSystemNamespace, Name: name}, Data: data}
}

func status(t *testing.T, change func(*rebalance.Status)) *corev1.ConfigMap {
	t.Helper()
	s := &rebalance.Status{
		Time: noon.Add(-14 * time.Second), Source: cluster.SourceMeasured, Moves: 1,
		Before: rebalance.Prediction{Objective: 1.4, CPUDeviation: 0.31}, After: rebalance.Prediction{Objective: 0.6, CPUDeviation: 0.02},
		ExpectedDowntime: &metav1.Duration{Duration: 1200 * time.Millisecond},
		Plan: &planner.Plan{
			Moves: []planner.Move{{
				Pod: cluster.PodKey{Namespace: "default", Name: "trainer"}, From: "node-a", To: "node-b", Gain: 0.8,
				Usage: cluster.Resources{MilliCPU: 400, Memory: 512 << 20}, FreedRequests: cluster.Resources{MilliCPU: 1000, Memory: 2 << 30},
			}},
			Before: planner.Summary{Nodes: []planner.NodeLoad{{Name: "node-a", CPU: 0.87, Memory: 0.4, Overutilized: true}, {Name: "node-b", CPU: 0.2, Memory: 0.3}}},
			After:  planner.Summary{Nodes: []planner.NodeLoad{{Name: "node-a", CPU: 0.55, Memory: 0.35}, {Name: "node-b", CPU: 0.52, Memory: 0.35}}},
		},
		Skipped:   []rebalance.SkippedNode{{Name: "node-c", Reason: "the last measurement of the node is 5m0s old"}},
		Cooldowns: []observe.Cooldown{{Workload: "Pod/default/other", Migrations: 1, Until: noon.Add(9 * time.Minute)}},
	}
	change(s)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return configMap(t, rebalance.StatusName, map[string]string{"status.json": string(text)})
}

func paused(t *testing.T) *corev1.ConfigMap {
	return configMap(t, rebalance.ControlName, map[string]string{"paused": "true", "reason": "upgrade", "by": "john", "since": "2026-03-01T11:00:00Z"})
}

func TestPlan(t *testing.T) {
	b := newBench(t, status(t, func(*rebalance.Status) {}))
	golden(t, "plan", b.run("plan"))
	golden(t, "plan-yaml", b.run("plan", "-o", "yaml"))
	b = newBench(t, paused(t), status(t, func(s *rebalance.Status) {
		s.Time, s.Held, s.Trimmed = noon.Add(-time.Hour), "paused by john: upgrade", "2 of 5000 nodes are shown: those that are overutilized or that a move touches"
	}))
	golden(t, "plan-paused-and-old", b.run("plan"))
}

func TestNoPlan(t *testing.T) {
	golden(t, "plan-none", newBench(t).run("plan"))
	for name, test := range map[string]struct {
		data string
		says string
	}{
		"no JSON":         {"nonsense", "is no JSON"},
		"another version": {`{"plan": 5}`, "may be of another version of the rebalancer"},
		"without a plan":  {`{}`, "may be of another version of the rebalancer"},
	} {
		got := newBench(t, configMap(t, rebalance.StatusName, map[string]string{"status.json": test.data})).run("plan")
		if got.code != ExitError || !strings.Contains(got.err, test.says) || strings.Contains(got.err, "%!") {
			t.Errorf("%s: %s", name, got)
		}
	}
	b := newBench(t, status(t, func(*rebalance.Status) {}))
	b.refuse = func(string, any) error {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, rebalance.StatusName, nil)
	}
	if got := b.run("plan"); got.code != ExitError || !strings.Contains(got.err, "You need the right to get ConfigMap ai-storage-rebalancer-status in namespace ai-storage-system") {
		t.Error(got)
	}
	if got := b.run("plan", "-o", "table"); got.code != ExitUsage {
		t.Error(got)
	}
}

func TestPauseAndResume(t *testing.T) {
	b := newBench(t)
	golden(t, "resume-not-paused", b.run("resume"))
	golden(t, "pause-dry-run", b.run("pause", "--dry-run"))
	golden(t, "pause", b.run("pause", "--reason=maintenance of the network"))
	control := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: defaultSystemNamespace, Name: rebalance.ControlName}
	if err := b.client.Get(t.Context(), key, control); err != nil {
		t.Fatal(err)
	}
	if d := control.Data; d["paused"] != "true" || d["reason"] != "maintenance of the network" || d["by"] != "jane" || d["since"] != "2026-03-01T12:00:00Z" {
		t.Errorf("data %v", d)
	}
	golden(t, "pause-again", b.run("pause"))
	golden(t, "resume", b.run("resume"))
	if err := b.client.Get(t.Context(), key, control); err != nil || control.Data["paused"] != "false" {
		t.Errorf("data %v, error %v", control.Data, err)
	}
	b.refuse = func(string, any) error {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, rebalance.ControlName, nil)
	}
	if got := b.run("pause"); got.code != ExitError || !strings.Contains(got.err, rebalance.ControlName) {
		t.Error(got)
	}
}
