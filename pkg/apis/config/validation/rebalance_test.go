package validation

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
)

func wrong(kind field.ErrorType, fieldName string) *field.Error {
	return &field.Error{Type: kind, Field: path.String() + "." + fieldName}
}

func TestValidateHowTheLoopDecides(t *testing.T) {
	type args = config.RebalanceArgs
	shape := func(amount string) corev1.ResourceList {
		return corev1.ResourceList{"example.com/gpu": resource.MustParse(amount)}
	}
	prometheus := func(change func(*config.PrometheusArgs)) func(*args) {
		return func(a *args) {
			a.Signals.Prometheus = &config.PrometheusArgs{URL: "https://prometheus:9090/base", Queries: config.PrometheusQueries{
				NodeCPU: "a", NodeMemory: "b", PodCPU: "c", PodMemory: "d", Range: duration(time.Minute)}}
			change(a.Signals.Prometheus)
		}
	}
	for _, tc := range []struct {
		name   string
		change func(*args)
		want   field.ErrorList
	}{
		{"bad pool", func(a *args) { a.NodePools = []metav1.LabelSelector{{}, {MatchLabels: map[string]string{"a b": "c"}}} },
			field.ErrorList{invalid("nodePools[1].matchLabels")}},
		{"no strategy", func(a *args) { a.Strategies = nil }, field.ErrorList{wrong(field.ErrorTypeRequired, "strategies")}},
		{"unknown strategy", func(a *args) { a.Strategies[0].Name = "Shuffle" }, field.ErrorList{wrong(field.ErrorTypeNotSupported, "strategies[0].name")}},
		{"strategy twice", func(a *args) { a.Strategies = append(a.Strategies, a.Strategies[0]) },
			field.ErrorList{wrong(field.ErrorTypeDuplicate, "strategies[1].name")}},
		{"no weight", func(a *args) { a.Strategies[0].Weight = 0 }, field.ErrorList{invalid("strategies[0].weight")}},
		{"weight above 100", func(a *args) { a.Strategies[0].Weight = 101 }, field.ErrorList{invalid("strategies[0].weight")}},
		{"Defragment without shapes", func(a *args) { a.Strategies[0].Name = config.StrategyDefragment }, field.ErrorList{wrong(field.ErrorTypeRequired, "shapes")}},
		{"shapes without Defragment", func(a *args) { a.Shapes = []corev1.ResourceList{shape("1")} }, field.ErrorList{wrong(field.ErrorTypeForbidden, "shapes")}},
		{"shapes", func(a *args) {
			a.Strategies[0].Name = config.StrategyDefragment
			a.Shapes = []corev1.ResourceList{shape("8"), {}, shape("0"), shape("-1")}
		}, field.ErrorList{wrong(field.ErrorTypeRequired, "shapes[1]"), invalid("shapes[2][example.com/gpu]"), invalid("shapes[3][example.com/gpu]")}},
		{"unknown mode", func(a *args) { a.Thresholds.Mode = "Relative" }, field.ErrorList{wrong(field.ErrorTypeNotSupported, "thresholds.mode")}},
		{"no abnormal cycle", func(a *args) { a.AbnormalCycles = 0 }, field.ErrorList{invalid("abnormalCycles")}},
		{"gain below the cost", func(a *args) { a.MinimumGain = 0.99 }, field.ErrorList{invalid("minimumGain")}},
		{"gain that is no number", func(a *args) { a.MinimumGain = math.NaN() }, field.ErrorList{invalid("minimumGain")}},
		{"no half-life", func(a *args) { a.Signals.HalfLife = duration(0) }, field.ErrorList{invalid("signals.halfLife")}},
		{"percentile of 0", func(a *args) { a.Signals.Percentile = 0 }, field.ErrorList{invalid("signals.percentile")}},
		{"no window", func(a *args) { a.Signals.Window = duration(0) }, field.ErrorList{invalid("signals.window")}},
		{"window that holds too few", func(a *args) { a.Signals.Window = duration(89 * time.Second) }, field.ErrorList{invalid("signals.window")}},
		{"window that holds too many", func(a *args) { a.Interval = duration(time.Millisecond) }, field.ErrorList{invalid("signals.window")}},
		{"prometheus", prometheus(func(*config.PrometheusArgs) {}), nil},
		{"prometheus without a scheme", prometheus(func(p *config.PrometheusArgs) { p.URL = "prometheus:9090" }), field.ErrorList{invalid("signals.prometheus.url")}},
		{"prometheus over a file", prometheus(func(p *config.PrometheusArgs) { p.URL = "file:///etc" }), field.ErrorList{invalid("signals.prometheus.url")}},
		{"prometheus without a query", prometheus(func(p *config.PrometheusArgs) { p.Queries.PodCPU = "" }),
			field.ErrorList{wrong(field.ErrorTypeRequired, "signals.prometheus.queries.podCPU")}},
		{"range with a fraction", prometheus(func(p *config.PrometheusArgs) { p.Queries.Range = duration(1500 * time.Millisecond) }),
			field.ErrorList{invalid("signals.prometheus.queries.range")}},
		{"no range", prometheus(func(p *config.PrometheusArgs) { p.Queries.Range = duration(0) }), field.ErrorList{invalid("signals.prometheus.queries.range")}},
		{"cooldown above its end", func(a *args) { a.Cooldown = duration(time.Second) }, field.ErrorList{invalid("maxCooldown")}},
		{"maxCooldown above a week", func(a *args) { a.MaxCooldown = duration(169 * time.Hour) }, field.ErrorList{invalid("maxCooldown")}},
		{"breaker without figures", func(a *args) { a.CircuitBreaker = config.CircuitBreakerArgs{} }, field.ErrorList{
			invalid("circuitBreaker.failurePercent"), invalid("circuitBreaker.migrations"), invalid("circuitBreaker.window"), invalid("circuitBreaker.openFor")}},
		{"breaker that never closes", func(a *args) { a.CircuitBreaker.OpenFor = duration(1000 * time.Hour) }, field.ErrorList{invalid("circuitBreaker.openFor")}},
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
