package v1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// highestUserPriority is the highest priority that a user may give a class
// (HighestUserDefinablePriority in k8s.io/kubernetes/pkg/apis/scheduling).
const highestUserPriority int32 = 1_000_000_000

// SetDefaults_CheckpointVolumeArgs fills in what was left out.
func SetDefaults_CheckpointVolumeArgs(args *CheckpointVolumeArgs) {
	setDefault(&args.AttachTimeout, metav1.Duration{Duration: 2 * time.Minute})
	setDefault(&args.FailedNodeBackoff, metav1.Duration{Duration: 5 * time.Minute})
}

// SetDefaults_RebalanceArgs fills in what was left out.
func SetDefaults_RebalanceArgs(args *RebalanceArgs) {
	setDefault(&args.Interval, metav1.Duration{Duration: 30 * time.Second})
	setDefault(&args.Thresholds.CPU, 70)
	setDefault(&args.Thresholds.Memory, 80)
	setDefault(&args.MetricsMaxAge, metav1.Duration{Duration: 2 * time.Minute})
	setDefault(&args.Budget.MaxInFlight, 5)
	setDefault(&args.Budget.MaxInFlightPerNode, 2)
	setDefault(&args.Budget.MaxInFlightPerNamespace, 5)
	setDefault(&args.Budget.MaxInFlightPerWorkload, 1)
	setDefault(&args.Budget.MaxMovesPerCycle, 5)
	setDefault(&args.Cooldown, metav1.Duration{Duration: 10 * time.Minute})
	setDefault(&args.MinimumPodAge, metav1.Duration{Duration: time.Minute})
	setDefault(&args.PriorityCeiling, highestUserPriority)
	setDefault(&args.MigrationTimeout, metav1.Duration{Duration: 10 * time.Minute})
	setDefault(&args.Reclaim.Enabled, true)
}

func setDefault[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}
