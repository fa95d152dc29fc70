package validation

import (
	"fmt"
	"time"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/scheduling"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
)

// maxMigrationTimeout is the limit of spec.timeoutSeconds of a PodMigration.
const maxMigrationTimeout = 24 * time.Hour

// ValidateCheckpointVolumeArgs returns what is wrong with the arguments. Path
// is where they stand; nil names the fields from the arguments on.
func ValidateCheckpointVolumeArgs(path *field.Path, args *config.CheckpointVolumeArgs) field.ErrorList {
	errs := validatePositive(path.Child("attachTimeout"), args.AttachTimeout.Duration)
	return append(errs, validateNotNegative(path.Child("failedNodeBackoff"), args.FailedNodeBackoff.Duration)...)
}

// ValidateRebalanceArgs returns what is wrong with the arguments. Path is where
// they stand; nil names the fields from the arguments on.
func ValidateRebalanceArgs(path *field.Path, args *config.RebalanceArgs) field.ErrorList {
	errs := validatePositive(path.Child("interval"), args.Interval.Duration)
	if args.NodeSelector != nil {
		errs = append(errs, metav1validation.ValidateLabelSelector(args.NodeSelector,
			metav1validation.LabelSelectorValidationOptions{}, path.Child("nodeSelector"))...)
	}
	for i := range args.NodePools {
		errs = append(errs, metav1validation.ValidateLabelSelector(&args.NodePools[i],
			metav1validation.LabelSelectorValidationOptions{}, path.Child("nodePools").Index(i))...)
	}
	errs = append(errs, validateStrategies(path.Child("strategies"), args.Strategies)...)
	errs = append(errs, validateShapes(path, args)...)
	errs = append(errs, validateThresholds(path.Child("thresholds"), args.Thresholds)...)
	errs = append(errs, validateBetween(path.Child("abnormalCycles"), args.AbnormalCycles, 1, 100)...)
	// Written so that what is not a number is refused too.
	if !(args.MinimumGain >= 1 && args.MinimumGain <= 1000) {
		errs = append(errs, field.Invalid(path.Child("minimumGain"), args.MinimumGain, "must be between 1 and 1000"))
	}
	errs = append(errs, validateSignals(path.Child("signals"), args)...)
	errs = append(errs, validatePositive(path.Child("metricsMaxAge"), args.MetricsMaxAge.Duration)...)
	errs = append(errs, validateBudget(path.Child("budget"), args.Budget)...)
	errs = append(errs, validateCooldown(path, args)...)
	errs = append(errs, validateCircuitBreaker(path.Child("circuitBreaker"), args.CircuitBreaker)...)
	errs = append(errs, validateNotNegative(path.Child("minimumPodAge"), args.MinimumPodAge.Duration)...)
	if args.PriorityCeiling > scheduling.HighestUserDefinablePriority {
		errs = append(errs, field.Invalid(path.Child("priorityCeiling"), args.PriorityCeiling,
			"must not be above 1000000000, the highest priority that a user may give"))
	}
	if name := args.CheckpointStorageClassName; name != "" {
		for _, wrong := range apivalidation.NameIsDNSSubdomain(name, false) {
			errs = append(errs, field.Invalid(path.Child("checkpointStorageClassName"), name, wrong))
		}
	}
	return append(errs, validateMigrationTimeout(path.Child("migrationTimeout"), args.MigrationTimeout.Duration)...)
}

func validateBudget(path *field.Path, budget config.BudgetArgs) field.ErrorList {
	var errs field.ErrorList
	for _, limit := range []struct {
		name  string
		value int32
	}{
		{"maxInFlight", budget.MaxInFlight},
		{"maxInFlightPerNode", budget.MaxInFlightPerNode},
		{"maxInFlightPerNamespace", budget.MaxInFlightPerNamespace},
		{"maxInFlightPerWorkload", budget.MaxInFlightPerWorkload},
		{"maxMovesPerCycle", budget.MaxMovesPerCycle},
	} {
		if limit.value < 1 {
			errs = append(errs, field.Invalid(path.Child(limit.name), limit.value, "must be at least 1"))
		}
	}
	return errs
}

// validateMigrationTimeout follows the limits of PodMigration, which counts in
// whole seconds.
func validateMigrationTimeout(path *field.Path, value time.Duration) field.ErrorList {
	switch {
	case value < time.Second || value > maxMigrationTimeout:
		return field.ErrorList{field.Invalid(path, value.String(), "must be between 1s and 24h")}
	case value%time.Second != 0:
		return field.ErrorList{field.Invalid(path, value.String(), "must be in whole seconds")}
	}
	return nil
}

func validatePercentage(path *field.Path, value int32) field.ErrorList {
	if value < 1 || value > 100 {
		return field.ErrorList{field.Invalid(path, value, "must be a percentage between 1 and 100")}
	}
	return nil
}

func validateBetween(path *field.Path, value, lowest, highest int32) field.ErrorList {
	if value < lowest || value > highest {
		return field.ErrorList{field.Invalid(path, value, fmt.Sprintf("must be between %d and %d", lowest, highest))}
	}
	return nil
}

func validatePositive(path *field.Path, value time.Duration) field.ErrorList {
	if value <= 0 {
		return field.ErrorList{field.Invalid(path, value.String(), "must be greater than 0")}
	}
	return nil
}

func validateNotNegative(path *field.Path, value time.Duration) field.ErrorList {
	if value < 0 {
		return field.ErrorList{field.Invalid(path, value.String(), "must not be negative")}
	}
	return nil
}
