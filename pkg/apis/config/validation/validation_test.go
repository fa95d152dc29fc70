package validation

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
)

var path = field.NewPath("profiles").Index(0).Child("pluginConfig").Index(1).Child("args")

func duration(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }

// byTypeAndField compares errors by what programs rely on.
var byTypeAndField = cmp.Options{cmpopts.IgnoreFields(field.Error{}, "BadValue", "Detail", "Origin", "CoveredByDeclarative"), cmpopts.EquateEmpty()}

func invalid(fieldName string) *field.Error {
	return &field.Error{Type: field.ErrorTypeInvalid, Field: path.String() + "." + fieldName}
}

func TestValidateCheckpointVolumeArgs(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*config.CheckpointVolumeArgs)
		want   field.ErrorList
	}{
		{"good", func(*config.CheckpointVolumeArgs) {}, nil},
		{"no backoff", func(a *config.CheckpointVolumeArgs) { a.FailedNodeBackoff = duration(0) }, nil},
		{"no timeout", func(a *config.CheckpointVolumeArgs) { a.AttachTimeout = duration(0) }, field.ErrorList{invalid("attachTimeout")}},
		{"negative timeout", func(a *config.CheckpointVolumeArgs) { a.AttachTimeout = duration(-time.Second) }, field.ErrorList{invalid("attachTimeout")}},
		{"negative backoff", func(a *config.CheckpointVolumeArgs) { a.FailedNodeBackoff = duration(-time.Second) }, field.ErrorList{invalid("failedNodeBackoff")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := &config.CheckpointVolumeArgs{AttachTimeout: duration(time.Minute), FailedNodeBackoff: duration(time.Minute)}
			tc.change(args)
			if diff := cmp.Diff(tc.want, ValidateCheckpointVolumeArgs(path, args), byTypeAndField); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

func goodRebalanceArgs() *config.RebalanceArgs {
	return &config.RebalanceArgs{
		Interval:       duration(30 * time.Second),
		Strategies:     []config.Strategy{{Name: config.StrategyBalance, Weight: 1}},
		Thresholds:     config.UtilizationThresholds{Mode: config.ThresholdsAbsolute, CPU: 70, Memory: 80},
		AbnormalCycles: 3,
		MinimumGain:    1,
		Signals:        config.SignalArgs{HalfLife: duration(time.Minute), Window: duration(5 * time.Minute), Percentile: 90},
		CircuitBreaker: config.CircuitBreakerArgs{FailurePercent: 50, Migrations: 10, Window: duration(time.Hour), OpenFor: duration(time.Minute)},
		MetricsMaxAge:  duration(time.Minute),
		Budget: config.BudgetArgs{
			MaxInFlight: 5, MaxInFlightPerNode: 2, MaxInFlightPerNamespace: 5, MaxInFlightPerWorkload: 1, MaxMovesPerCycle: 5,
		},
		PriorityCeiling:  1_000_000_000,
		MigrationTimeout: duration(10 * time.Minute),
	}
}

func TestValidateRebalanceArgs(t *testing.T) {
	type args = config.RebalanceArgs
	for _, tc := range []struct {
		name   string
		change func(*args)
		want   field.ErrorList
	}{
		{"good", func(*args) {}, nil},
		{"limits", func(a *args) {
			a.Thresholds = config.UtilizationThresholds{Mode: config.ThresholdsDeviation, CPU: 1, Memory: 100}
			a.Cooldown, a.MaxCooldown = duration(168*time.Hour), duration(168*time.Hour)
			a.MinimumGain = 1000
			a.Signals.Window = duration(90 * time.Second)
			a.PriorityCeiling = -10
			a.MigrationTimeout = duration(24 * time.Hour)
			a.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "gpu"}}
		}, nil},
		{"no interval", func(a *args) { a.Interval = duration(0) }, field.ErrorList{invalid("interval")}},
		{"negative interval", func(a *args) { a.Interval = duration(-1) }, field.ErrorList{invalid("interval")}},
		{"bad label key", func(a *args) { a.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"a b": "c"}} },
			field.ErrorList{invalid("nodeSelector.matchLabels")}},
		{"bad operator", func(a *args) {
			a.NodeSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
		}, field.ErrorList{invalid("nodeSelector.matchExpressions[0].operator")}},
		{"cpu threshold of zero", func(a *args) { a.Thresholds.CPU = 0 }, field.ErrorList{invalid("thresholds.cpu")}},
		{"negative threshold", func(a *args) { a.Thresholds.Memory = -5 }, field.ErrorList{invalid("thresholds.memory")}},
		{"threshold above 100", func(a *args) { a.Thresholds.CPU = 101 }, field.ErrorList{invalid("thresholds.cpu")}},
		{"no age", func(a *args) { a.MetricsMaxAge = duration(0) }, field.ErrorList{invalid("metricsMaxAge")}},
		{"empty budget", func(a *args) { a.Budget = config.BudgetArgs{} }, field.ErrorList{
			invalid("budget.maxInFlight"), invalid("budget.maxInFlightPerNode"), invalid("budget.maxInFlightPerNamespace"),
			invalid("budget.maxInFlightPerWorkload"), invalid("budget.maxMovesPerCycle"),
		}},
		{"negative budget", func(a *args) { a.Budget.MaxMovesPerCycle = -1 }, field.ErrorList{invalid("budget.maxMovesPerCycle")}},
		{"negative cooldown", func(a *args) { a.Cooldown = duration(-1) }, field.ErrorList{invalid("cooldown")}},
		{"no name of a storage class", func(a *args) { a.CheckpointStorageClassName = "a b" }, field.ErrorList{invalid("checkpointStorageClassName")}},
		{"negative age", func(a *args) { a.MinimumPodAge = duration(-1) }, field.ErrorList{invalid("minimumPodAge")}},
		{"priority of the system", func(a *args) { a.PriorityCeiling = 1_000_000_001 }, field.ErrorList{invalid("priorityCeiling")}},
		{"timeout below a second", func(a *args) { a.MigrationTimeout = duration(time.Millisecond) }, field.ErrorList{invalid("migrationTimeout")}},
		{"timeout above a day", func(a *args) { a.MigrationTimeout = duration(25 * time.Hour) }, field.ErrorList{invalid("migrationTimeout")}},
		{"timeout with a fraction", func(a *args) { a.MigrationTimeout = duration(1500 * time.Millisecond) }, field.ErrorList{invalid("migrationTimeout")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := goodRebalanceArgs()
			tc.change(a)
			if diff := cmp.Diff(tc.want, ValidateRebalanceArgs(path, a), byTypeAndField); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}
