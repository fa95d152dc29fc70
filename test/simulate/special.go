package simulate

import (
	"fmt"
	"math/rand/v2"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// special is what only some scenarios have: other modes, probes, policies of Jobs,
// budgets in percent.
type special struct {
	// freshStart is the fallback of mode Process, criuNodes how many nodes can carry
	// processes, immovable when CRIU finds out that it cannot carry those of the pods.
	freshStart bool
	criuNodes  int
	immovable  criuFailure
	// plainRuntime: the pods were not started by the RuntimeClass of processes.
	plainRuntime bool
	// liveness is the probe of the main container; nil is none.
	liveness *corev1.Probe
	// failurePolicy is the podFailurePolicy of the Job; jobDeadline its
	// activeDeadlineSeconds and jobTTL its ttlSecondsAfterFinished, 0 for none.
	failurePolicy       *batchv1.PodFailurePolicy
	jobDeadline, jobTTL int32
	// maxUnavailable and percent say how the number of the budget is meant; budgetLag is
	// how late the disruption controller counts.
	maxUnavailable, percent bool
	budgetLag               time.Duration
	// quotaLag is how late the quota learns that pods are gone, in a run with a quota.
	quotaLag time.Duration
}

// criuFailure is when CRIU fails to carry processes; "" is never.
type criuFailure string

const (
	failsToMeasure criuFailure = "measured"
	failsToDump    criuFailure = "dumped"
	failsToRestore criuFailure = "restored"
)

// savedClaim is the claim that an application saves to in mode Application.
const savedClaim = "saved"

func (s *scenario) drawSpecial(r *rand.Rand) {
	switch draw := r.IntN(100); {
	case draw < 12:
		s.mode = v1alpha1.CheckpointProcess
		// Others cannot overlap: most of them are refused.
		s.own, s.shared = s.own && chance(r, 20), true
		if s.owner == ownedSet && chance(r, 70) {
			s.owner = ownedDeployment
		}
		s.restart, s.recreate, s.replaceFailed, s.indexed = false, s.recreate && chance(r, 20), s.replaceFailed && chance(r, 20), s.indexed && chance(r, 20)
	case draw < 20:
		// An emptyDir would have to be carried.
		s.mode, s.own, s.scratch = v1alpha1.CheckpointApplication, false, false
	}
	s.freshStart, s.criuNodes = chance(r, 50), s.nodes
	if chance(r, 20) {
		s.criuNodes = r.IntN(s.nodes) + 1
	}
	s.plainRuntime = chance(r, 15)
	if chance(r, 35) {
		s.immovable = pick(r, failsToMeasure, failsToDump, failsToDump, failsToRestore)
	}
	if chance(r, 20) {
		s.liveness = &corev1.Probe{PeriodSeconds: pick(r, int32(1), 2, 5, 10), FailureThreshold: pick(r, int32(1), 2, 3, 3, 5), TimeoutSeconds: pick(r, int32(1), 1, 3)}
	}
	if chance(r, 30) {
		s.failurePolicy = drawFailurePolicy(r)
	}
	if chance(r, 15) {
		s.jobDeadline = int32(r.IntN(200) + 40)
	}
	if chance(r, 15) {
		s.jobTTL = int32(r.IntN(40) + 1)
	}
	if s.budget >= 0 && chance(r, 50) {
		s.maxUnavailable, s.percent = chance(r, 60), chance(r, 50)
		if s.percent {
			s.budget = pick(r, int32(0), 30, 50, 51, 100)
		}
	}
	if chance(r, 15) {
		s.budgetLag = time.Duration(r.IntN(8000)+100) * time.Millisecond
	}
	if chance(r, 50) {
		s.quotaLag = time.Duration(r.IntN(5000)) * time.Millisecond
	}
	for i := range s.skews {
		if chance(r, 5) {
			// Far enough for every comparison with a moment of another clock to be wrong.
			s.skews[i] = time.Duration(r.IntN(360)-180) * time.Second
		}
	}
}

// drawFailurePolicy draws what the documentation of Jobs recommends, and the worst for a
// pod that is moved: one that is evicted, or killed, fails the whole Job.
func drawFailurePolicy(r *rand.Rand) *batchv1.PodFailurePolicy {
	onDisruption := []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}
	onExit := &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: pick(r, batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn), Values: []int32{137, 143}}
	ignore := batchv1.PodFailurePolicyRule{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: onDisruption}
	return pick(r,
		&batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{ignore}},
		&batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{ignore, {Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: onExit}}},
		&batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: batchv1.PodFailurePolicyActionFailJob, OnPodConditions: onDisruption}}},
		&batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: onExit}}},
	)
}

// names are the parts of the scenario's line.
func (s *scenario) specialNames() (parts []string) {
	owner, process := s.owner, s.mode == v1alpha1.CheckpointProcess
	for _, f := range []struct {
		is   bool
		name string
	}{
		{process && s.freshStart, "fallback FreshStart"}, {process && s.immovable != "", "CRIU fails when processes are " + string(s.immovable)},
		{process && s.criuNodes < s.nodes, fmt.Sprintf("%d nodes with CRIU", s.criuNodes)}, {process && s.plainRuntime, "no RuntimeClass"},
		{s.jobDeadline > 0 && owner == ownedJob, fmt.Sprintf("activeDeadlineSeconds %d", s.jobDeadline)},
		{s.jobTTL > 0 && owner == ownedJob, fmt.Sprintf("ttlSecondsAfterFinished %d", s.jobTTL)},
		{s.budgetLag > 0, fmt.Sprintf("budgets counted %s late", s.budgetLag)},
	} {
		if f.is {
			parts = append(parts, f.name)
		}
	}
	if p := s.liveness; p != nil {
		parts = append(parts, fmt.Sprintf("liveness probe every %d s, %d failures of %d s", p.PeriodSeconds, p.FailureThreshold, p.TimeoutSeconds))
	}
	if owner == ownedJob && s.failurePolicy != nil {
		for _, r := range s.failurePolicy.Rules {
			on := "DisruptionTarget"
			if r.OnExitCodes != nil {
				on = fmt.Sprintf("exit codes %s %v", r.OnExitCodes.Operator, r.OnExitCodes.Values)
			}
			parts = append(parts, fmt.Sprintf("podFailurePolicy %s on %s", r.Action, on))
		}
	}
	return parts
}

func (s *scenario) budgetName() string {
	spec := s.budgetSpec()
	if spec.MaxUnavailable != nil {
		return "maxUnavailable " + spec.MaxUnavailable.String()
	}
	return "minAvailable " + spec.MinAvailable.String()
}

func (s *scenario) budgetSpec() policyv1.PodDisruptionBudgetSpec {
	value := intstr.FromInt32(s.budget)
	if s.percent {
		value = intstr.FromString(fmt.Sprintf("%d%%", s.budget))
	}
	spec := policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: labelsOfApp()}}
	if s.maxUnavailable {
		spec.MaxUnavailable = &value
	} else {
		spec.MinAvailable = &value
	}
	return spec
}

// memoryOnly reports whether what a container works at is in its memory alone.
func (s *scenario) memoryOnly() bool {
	return s.mode == v1alpha1.CheckpointApplication || s.mode == v1alpha1.CheckpointProcess && !s.scratch && !s.own
}

func (s *scenario) saveAccess() corev1.PersistentVolumeAccessMode {
	if s.shared {
		return corev1.ReadWriteMany
	}
	return corev1.ReadWriteOnce
}

func (s *scenario) podAnnotations() map[string]string {
	annotations := map[string]string{"revision": revision(1)}
	if s.mode == v1alpha1.CheckpointApplication {
		annotations[v1alpha1.CheckpointClaimAnnotation] = savedClaim
	}
	return annotations
}

// specialise gives a pod what its mode and its probe need.
func (s *scenario) specialise(spec *corev1.PodSpec) {
	main := &spec.Containers[0]
	main.LivenessProbe = s.liveness.DeepCopy()
	switch s.mode {
	case v1alpha1.CheckpointProcess:
		if s.plainRuntime {
			return
		}
		spec.RuntimeClassName = ptr.To(v1alpha1.ProcessRuntimeClass)
	case v1alpha1.CheckpointApplication:
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: v1alpha1.CheckpointVolumeName, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: savedClaim}}})
		main.VolumeMounts = append(main.VolumeMounts, corev1.VolumeMount{Name: v1alpha1.CheckpointVolumeName, MountPath: v1alpha1.CheckpointMountPath})
	}
}

func (s *scenario) specialiseJob(job *batchv1.Job) {
	job.Spec.PodFailurePolicy = s.failurePolicy
	if s.failurePolicy != nil {
		// The only value that the API server takes beside a policy, and its default then.
		job.Spec.PodReplacementPolicy = ptr.To(batchv1.Failed)
	}
	if s.jobDeadline > 0 {
		job.Spec.ActiveDeadlineSeconds = ptr.To(int64(s.jobDeadline))
	}
	if s.jobTTL > 0 {
		job.Spec.TTLSecondsAfterFinished = &s.jobTTL
	}
}
