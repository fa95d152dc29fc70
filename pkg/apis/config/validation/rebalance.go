package validation

import (
	"net/url"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
)

const (
	// longestMemory bounds how long finished PodMigrations must be kept, since
	// cooldowns and the circuit breaker are read from them.
	longestMemory = 7 * 24 * time.Hour
	// maxSamples is the most measurements of one node or pod that are kept.
	maxSamples = 1000
)

var strategyNames = []string{config.StrategyBalance, config.StrategyConsolidate, config.StrategyDefragment}

func validateStrategies(path *field.Path, strategies []config.Strategy) field.ErrorList {
	if len(strategies) == 0 {
		return field.ErrorList{field.Required(path, "name at least one strategy")}
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, strategy := range strategies {
		name := path.Index(i).Child("name")
		switch {
		case !slices.Contains(strategyNames, strategy.Name):
			errs = append(errs, field.NotSupported(name, strategy.Name, strategyNames))
		case seen[strategy.Name]:
			errs = append(errs, field.Duplicate(name, strategy.Name))
		}
		seen[strategy.Name] = true
		errs = append(errs, validateBetween(path.Index(i).Child("weight"), strategy.Weight, 1, 100)...)
	}
	return errs
}

// validateShapes also sees to it that shapes and the strategy that reads them
// come together: one without the other would have no effect.
func validateShapes(path *field.Path, args *config.RebalanceArgs) field.ErrorList {
	defragments := slices.ContainsFunc(args.Strategies, func(s config.Strategy) bool { return s.Name == config.StrategyDefragment })
	shapes := path.Child("shapes")
	switch {
	case defragments && len(args.Shapes) == 0:
		return field.ErrorList{field.Required(shapes, "strategy Defragment needs the shapes of pods to keep capacity free for")}
	case !defragments && len(args.Shapes) > 0:
		return field.ErrorList{field.Forbidden(shapes, "only strategy Defragment reads it")}
	}
	var errs field.ErrorList
	for i, shape := range args.Shapes {
		errs = append(errs, validateShape(shapes.Index(i), shape)...)
	}
	return errs
}

func validateShape(path *field.Path, shape corev1.ResourceList) field.ErrorList {
	if len(shape) == 0 {
		return field.ErrorList{field.Required(path, "must name a resource")}
	}
	var errs field.ErrorList
	for name, amount := range shape {
		if amount.Sign() <= 0 {
			errs = append(errs, field.Invalid(path.Key(string(name)), amount.String(), "must be greater than 0"))
		}
	}
	return errs
}

func validateThresholds(path *field.Path, thresholds config.UtilizationThresholds) field.ErrorList {
	var errs field.ErrorList
	if modes := []string{config.ThresholdsAbsolute, config.ThresholdsDeviation}; !slices.Contains(modes, thresholds.Mode) {
		errs = append(errs, field.NotSupported(path.Child("mode"), thresholds.Mode, modes))
	}
	errs = append(errs, validatePercentage(path.Child("cpu"), thresholds.CPU)...)
	return append(errs, validatePercentage(path.Child("memory"), thresholds.Memory)...)
}

// validateSignals sees to it that a window can hold as many measurements as
// there must be abnormal cycles, and no more than memory is for.
func validateSignals(path *field.Path, args *config.RebalanceArgs) field.ErrorList {
	errs := validatePositive(path.Child("halfLife"), args.Signals.HalfLife.Duration)
	errs = append(errs, validatePercentage(path.Child("percentile"), args.Signals.Percentile)...)
	window, interval := args.Signals.Window.Duration, args.Interval.Duration
	switch {
	case window <= 0:
		errs = append(errs, validatePositive(path.Child("window"), window)...)
	case interval > 0 && window/interval < time.Duration(args.AbnormalCycles):
		errs = append(errs, field.Invalid(path.Child("window"), window.String(), "must be abnormalCycles times interval at least"))
	case interval > 0 && window/interval > maxSamples:
		errs = append(errs, field.Invalid(path.Child("window"), window.String(), "must be 1000 times interval at most"))
	}
	if args.Signals.Prometheus != nil {
		errs = append(errs, validatePrometheus(path.Child("prometheus"), args.Signals.Prometheus)...)
	}
	return errs
}

func validatePrometheus(path *field.Path, args *config.PrometheusArgs) field.ErrorList {
	var errs field.ErrorList
	if address, err := url.Parse(args.URL); err != nil || address.Host == "" || (address.Scheme != "http" && address.Scheme != "https") {
		errs = append(errs, field.Invalid(path.Child("url"), args.URL, "must be like http://host:port or https://host:port"))
	}
	queries := path.Child("queries")
	errs = append(errs, validatePositive(queries.Child("range"), args.Queries.Range.Duration)...)
	if args.Queries.Range.Duration%time.Second != 0 {
		errs = append(errs, field.Invalid(queries.Child("range"), args.Queries.Range.Duration.String(), "must be in whole seconds"))
	}
	for _, query := range []struct{ name, text string }{
		{"nodeCPU", args.Queries.NodeCPU}, {"nodeMemory", args.Queries.NodeMemory},
		{"podCPU", args.Queries.PodCPU}, {"podMemory", args.Queries.PodMemory},
	} {
		if query.text == "" {
			errs = append(errs, field.Required(queries.Child(query.name), ""))
		}
	}
	return errs
}

func validateCooldown(path *field.Path, args *config.RebalanceArgs) field.ErrorList {
	errs := validateNotNegative(path.Child("cooldown"), args.Cooldown.Duration)
	switch longest := args.MaxCooldown.Duration; {
	case longest < args.Cooldown.Duration:
		errs = append(errs, field.Invalid(path.Child("maxCooldown"), longest.String(), "must not be below cooldown"))
	case longest > longestMemory:
		errs = append(errs, field.Invalid(path.Child("maxCooldown"), longest.String(), "must be 168h at most"))
	}
	return errs
}

func validateCircuitBreaker(path *field.Path, args config.CircuitBreakerArgs) field.ErrorList {
	errs := validatePercentage(path.Child("failurePercent"), args.FailurePercent)
	errs = append(errs, validateBetween(path.Child("migrations"), args.Migrations, 1, 1000)...)
	for _, length := range []struct {
		name  string
		value time.Duration
	}{{"window", args.Window.Duration}, {"openFor", args.OpenFor.Duration}} {
		errs = append(errs, validatePositive(path.Child(length.name), length.value)...)
		if length.value > longestMemory {
			errs = append(errs, field.Invalid(path.Child(length.name), length.value.String(), "must be 168h at most"))
		}
	}
	return errs
}
