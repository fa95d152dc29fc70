package alerts

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
)

// length of the made history, in minutes: longer than what any alert waits.
const length = 30 * 60

// healthy is a cluster in which all is well, and something happens: series by
// their names, with values every minute in promtool's notation.
func healthy() map[string]string {
	steady := func(value string) string { return fmt.Sprintf("%sx%d", value, length) }
	return map[string]string{
		`up{job="ai-storage-scheduler",instance="s1"}`:  steady("1"),
		`up{job="ai-storage-rebalancer",instance="r1"}`: steady("1"),
		// One replica of two is away: the other does its work.
		`up{job="ai-storage-rebalancer",instance="r2"}`:                               steady("0"),
		`up{job="ai-storage-node-agent",instance="n1"}`:                               steady("1"),
		`ai_storage_migration_finished_total{result="Succeeded",reason="Succeeded"}`:  "0+1x" + fmt.Sprint(length),
		`ai_storage_migration_finished_total{result="Failed",reason="Unschedulable"}`: "0+0.1x" + fmt.Sprint(length),
		`ai_storage_migration_finished_total{result="Cancelled",reason="Cancelled"}`:  steady("3"),
		`ai_storage_migration_oldest_phase_age_seconds{phase="Pending"}`:              steady("100"),
		`ai_storage_migration_oldest_phase_age_seconds{phase="Placing"}`:              steady("50"),
		`ai_storage_migration_downtime_seconds_bucket{le="0"}`:                        steady("0"),
		`ai_storage_migration_downtime_seconds_bucket{le="1"}`:                        "0+0.9x" + fmt.Sprint(length),
		`ai_storage_migration_downtime_seconds_bucket{le="32"}`:                       "0+1x" + fmt.Sprint(length),
		`ai_storage_migration_downtime_seconds_bucket{le="128"}`:                      "0+1x" + fmt.Sprint(length),
		`ai_storage_migration_downtime_seconds_bucket{le="+Inf"}`:                     "0+1x" + fmt.Sprint(length),
		`ai_storage_rebalance_last_cycle_timestamp_seconds{instance="r1"}`:            "0+60x" + fmt.Sprint(length),
		`ai_storage_rebalance_last_cycle_timestamp_seconds{instance="r2"}`:            steady("0"),
		`ai_storage_rebalance_metrics_age_seconds{instance="r1"}`:                     steady("35"),
		`ai_storage_rebalance_paused{instance="r1"}`:                                  steady("0"),
		`ai_storage_rebalance_circuit_breaker{instance="r1",state="Closed"}`:          steady("1"),
		`ai_storage_rebalance_circuit_breaker{instance="r1",state="Open"}`:            steady("0"),
		`ai_storage_checkpoint_volume_attach_failures_total{instance="s1"}`:           steady("2"),
		`ai_storage_admission_pods_total{instance="r1",outcome="failed"}`:             steady("7"),
		// Pods are frozen for a moment, again and again, one for as long as
		// spec.checkpoint.maxFreezeSeconds allows, and one was about to be thawed.
		`ai_storage_node_agent_frozen_pods{instance="n2"}`:                   "0x10 1x59 0x1730",
		`ai_storage_node_agent_frozen_pods{instance="n1"}`:                   strings.Repeat("1 1 0 1 0 ", length/5),
		`ai_storage_node_agent_frozen_pods_overdue{instance="n1"}`:           steady("0"),
		`ai_storage_node_agent_frozen_pods_overdue{instance="n2"}`:           "0x69 1 0x1729",
		`ai_storage_node_agent_errors_total{instance="n1",reason="NoSpace"}`: steady("5"),
		`ai_storage_migration_kept_claims{instance="r1"}`:                    steady("0"),
	}
}

// broken says, for each alert, which series goes wrong, and how.
var broken = map[string]map[string]string{
	"AIStorageSchedulerDown":  {`up{job="ai-storage-scheduler",instance="s1"}`: "0x1800"},
	"AIStorageRebalancerDown": {`up{job="ai-storage-rebalancer",instance="r1"}`: "1x60 _x1740"},
	"AIStorageNodeAgentDown":  {`up{job="ai-storage-node-agent",instance="n1"}`: "1x60 0x1740"},
	"AIStorageMigrationsFail": {`ai_storage_migration_finished_total{result="Failed",reason="Unschedulable"}`: "0+2x1800"},
	"AIStorageMigrationStuck": {`ai_storage_migration_oldest_phase_age_seconds{phase="Placing"}`: "0+60x1800"},
	"AIStorageMigrationsWait": {`ai_storage_migration_oldest_phase_age_seconds{phase="Pending"}`: "0+60x1800"},
	"AIStorageDowntimeLong": {
		`ai_storage_migration_downtime_seconds_bucket{le="1"}`: "0+0.5x1800", `ai_storage_migration_downtime_seconds_bucket{le="32"}`: "0+0.6x1800"},
	"AIStorageLoopStalled":        {`ai_storage_rebalance_last_cycle_timestamp_seconds{instance="r1"}`: "0+60x60 3600x1740"},
	"AIStorageMeasurementsOld":    {`ai_storage_rebalance_metrics_age_seconds{instance="r1"}`: "0+60x1800"},
	"AIStorageLoopPaused":         {`ai_storage_rebalance_paused{instance="r1"}`: "1x1800"},
	"AIStorageCircuitBreakerOpen": {`ai_storage_rebalance_circuit_breaker{instance="r1",state="Open"}`: "0x60 1x1740"},
	"AIStorageAttachFails":        {`ai_storage_checkpoint_volume_attach_failures_total{instance="s1"}`: "0+1x1800"},
	"AIStorageWebhookFails":       {`ai_storage_admission_pods_total{instance="r1",outcome="failed"}`: "0x60 1+0.1x1740"},
	"AIStoragePodFrozen":          {`ai_storage_node_agent_frozen_pods_overdue{instance="n1"}`: "0x60 1x1740"},
	"AIStorageOnlyCopyKept":       {`ai_storage_migration_kept_claims{instance="r1"}`: "0x60 1x1740"},
	"AIStorageNodeAgentErrors":    {`ai_storage_node_agent_errors_total{instance="n1",reason="NoSpace"}`: "0+0.2x1800"},
}

// fired runs all alerts over a history, minute by minute as Prometheus would, and
// returns what fired, each with its annotations.
func fired(t *testing.T, series map[string]string) map[string]labels.Labels {
	t.Helper()
	var load strings.Builder
	load.WriteString("load 1m\n")
	for _, name := range slices.Sorted(maps.Keys(series)) {
		fmt.Fprintf(&load, "  %s %s\n", name, series[name])
	}
	storage := promqltest.LoadedStorage(t, load.String())
	t.Cleanup(func() { _ = storage.Close() })
	query := rules.EngineQueryFunc(promqltest.NewTestEngine(t, false, 5*time.Minute, 1e6), storage)
	alerts := map[string]labels.Labels{}
	for _, rule := range shipped(t) {
		alert := newRule(t, rule)
		for minute := range length {
			at := time.Unix(0, 0).UTC().Add(time.Duration(minute) * time.Minute)
			if _, err := alert.Eval(t.Context(), 0, at, query, nil, 0); err != nil {
				t.Fatalf("%s: %v", rule.Alert, err)
			}
			for _, active := range alert.ActiveAlerts() {
				if active.State == rules.StateFiring {
					alerts[rule.Alert] = active.Annotations
				}
			}
		}
	}
	return alerts
}

func newRule(t *testing.T, rule rulefmt.Rule) *rules.AlertingRule {
	t.Helper()
	expr, err := parser.ParseExpr(rule.Expr)
	if err != nil {
		t.Fatalf("%s: %v", rule.Alert, err)
	}
	return rules.NewAlertingRule(rule.Alert, expr, time.Duration(rule.For), time.Duration(rule.KeepFiringFor),
		labels.FromMap(rule.Labels), labels.FromMap(rule.Annotations), labels.EmptyLabels(), "", true, slog.New(slog.DiscardHandler))
}

func TestNoAlertFiresWhileAllIsWell(t *testing.T) {
	if alerts := fired(t, healthy()); len(alerts) > 0 {
		t.Errorf("fired: %v", alerts)
	}
}

func TestEachAlertFires(t *testing.T) {
	for _, rule := range shipped(t) {
		t.Run(rule.Alert, func(t *testing.T) {
			wrong, known := broken[rule.Alert]
			if !known {
				t.Fatal("nobody has made it fire")
			}
			series := healthy()
			for name, values := range wrong {
				if series[name] == "" {
					t.Fatalf("a healthy cluster has no series %s", name)
				}
				series[name] = values
			}
			alerts := fired(t, series)
			if annotations, found := alerts[rule.Alert]; !found {
				t.Error("it does not fire")
			} else if text := annotations.String(); strings.Contains(text, "error expanding") || strings.Contains(text, "<no value>") {
				t.Errorf("it says %s", text)
			}
			delete(alerts, rule.Alert)
			for name := range alerts {
				t.Errorf("%s fires too", name)
			}
		})
	}
}
