package simulate

import (
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// matchFailurePolicy returns why a failed pod fails its Job at once, "" when it does not,
// and whether it counts towards the backoffLimit (pod_failure_policy.go).
func matchFailurePolicy(policy *batchv1.PodFailurePolicy, p *corev1.Pod) (failsJob string, counts bool) {
	if policy == nil {
		return "", true
	}
	for i, r := range policy.Rules {
		if r.OnExitCodes != nil && !matchesExitCodes(p, r.OnExitCodes) || r.OnExitCodes == nil && !matchesConditions(p, r.OnPodConditions) {
			continue
		}
		switch r.Action {
		case batchv1.PodFailurePolicyActionIgnore:
			return "", false
		case batchv1.PodFailurePolicyActionFailJob:
			return fmt.Sprintf("pod %s matches rule %d of the podFailurePolicy", p.Name, i), true
		}
		return "", true
	}
	return "", true
}

func matchesExitCodes(p *corev1.Pod, r *batchv1.PodFailurePolicyOnExitCodesRequirement) bool {
	return slices.ContainsFunc(slices.Concat(p.Status.ContainerStatuses, p.Status.InitContainerStatuses), func(s corev1.ContainerStatus) bool {
		t := s.State.Terminated
		return t != nil && t.ExitCode != 0 && (r.ContainerName == nil || *r.ContainerName == s.Name) &&
			slices.Contains(r.Values, t.ExitCode) == (r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn)
	})
}

func matchesConditions(p *corev1.Pod, patterns []batchv1.PodFailurePolicyOnPodConditionsPattern) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return slices.ContainsFunc(patterns, func(r batchv1.PodFailurePolicyOnPodConditionsPattern) bool {
			return c.Type == r.Type && c.Status == r.Status
		})
	})
}

// isJobPodFailed is isPodFailed of the Job controller.
func isJobPodFailed(job *batchv1.Job, p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed || !onlyReplaceFailed(job) && p.DeletionTimestamp != nil && p.Status.Phase != corev1.PodSucceeded
}

// countedFailures is how many of the pods that have just failed count, and tells the
// checker of them.
func (w *world) countedFailures(job *batchv1.Job, failed []*corev1.Pod) (counted int) {
	for _, p := range failed {
		if _, counts := matchFailurePolicy(job.Spec.PodFailurePolicy, p); counts {
			counted++
			if !hasJobCondition(job.Status.Conditions, batchv1.JobFailureTarget) {
				w.checks.jobCounts(p, "towards the backoffLimit")
			}
		}
	}
	return counted
}

// failJob decides that a Job fails (syncJob): by its podFailurePolicy, for which every pod
// of it counts, also one that is not tracked; by its backoffLimit; by its deadline.
func (w *world) failJob(job *batchv1.Job, status *batchv1.JobStatus, c jobCount, failed int) {
	if hasJobCondition(status.Conditions, batchv1.JobFailureTarget) || hasJobCondition(status.Conditions, batchv1.JobSuccessCriteriaMet) {
		return
	}
	why := ""
	for _, p := range c.pods {
		if fails, _ := matchFailurePolicy(job.Spec.PodFailurePolicy, p); isJobPodFailed(job, p) && fails != "" {
			w.checks.jobCounts(p, fails)
			why = fails
		}
	}
	switch limit := time.Duration(ptr.Deref(job.Spec.ActiveDeadlineSeconds, 0)) * time.Second; {
	case why != "":
	case failed > int(*job.Spec.BackoffLimit):
		why = "the backoffLimit is exceeded"
	case limit == 0 || *job.Spec.Suspend || status.StartTime == nil:
		return
	case w.clock().Sub(status.StartTime.Time) < limit:
		w.at(status.StartTime.Sub(epoch)+limit, w.wakeModels)
		return
	default:
		why = "it was active for longer than its deadline"
		w.checks.excuseAll("the deadline of the Job has passed")
	}
	w.say(jobActor, "fails Job %s: %s", job.Name, why)
	setJobCondition(status, batchv1.JobFailureTarget, true, w.stamp())
}

// expireJob deletes a Job that has finished some time ago
// (k8s.io/kubernetes/pkg/controller/ttlafterfinished).
func (w *world) expireJob(job *batchv1.Job) {
	ttl := job.Spec.TTLSecondsAfterFinished
	if ttl == nil || job.DeletionTimestamp != nil {
		return
	}
	for _, c := range job.Status.Conditions {
		if (c.Type != batchv1.JobComplete && c.Type != batchv1.JobFailed) || c.Status != corev1.ConditionTrue {
			continue
		}
		at := c.LastTransitionTime.Sub(epoch) + time.Duration(*ttl)*time.Second
		if w.now < at {
			w.at(at, w.wakeModels)
			return
		}
		w.checks.excuseAll("the Job has expired")
		w.as("ttl", func() { _ = w.delete(jobs, job.Namespace, job.Name, preconditions{}, nil, false) })
		return
	}
}

func hasJobCondition(conditions []batchv1.JobCondition, kind batchv1.JobConditionType) bool {
	return slices.ContainsFunc(conditions, func(c batchv1.JobCondition) bool { return c.Type == kind && c.Status == corev1.ConditionTrue })
}
