package owners

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// InFlight returns why the move has to wait, because the owner is changing its
// pods itself; "" when it is settled.
func InFlight(o Owner) string {
	switch {
	case o.ReplicaSet != nil:
		if reason := replicaSetInFlight(o.ReplicaSet); reason != "" || o.Deployment == nil {
			return reason
		}
		return deploymentInFlight(o.Deployment)
	case o.Job != nil:
		return jobInFlight(o.Job)
	case o.StatefulSet != nil:
		return statefulSetInFlight(o.StatefulSet)
	}
	return ""
}

func replicaSetInFlight(rs *appsv1.ReplicaSet) string {
	if wanted := replicas(rs.Spec.Replicas); rs.Status.ObservedGeneration < rs.Generation || rs.Status.Replicas != wanted {
		return fmt.Sprintf("ReplicaSet %s is being scaled: it has %d pods and wants %d", rs.Name, rs.Status.Replicas, wanted)
	}
	return ""
}

func deploymentInFlight(d *appsv1.Deployment) string {
	switch wanted := replicas(d.Spec.Replicas); {
	case d.DeletionTimestamp != nil:
		return fmt.Sprintf("Deployment %s is being deleted", d.Name)
	case d.Status.ObservedGeneration < d.Generation, d.Status.UpdatedReplicas != d.Status.Replicas:
		return fmt.Sprintf("a rollout of Deployment %s is in flight: %d of %d pods are of the new kind", d.Name, d.Status.UpdatedReplicas, d.Status.Replicas)
	case d.Status.Replicas != wanted:
		return fmt.Sprintf("Deployment %s is being scaled: it has %d pods and wants %d", d.Name, d.Status.Replicas, wanted)
	}
	return ""
}

// jobInFlight waits until every pod that the Job wants exists. Else the next pod
// would be the one that was missing before: the lowest index first, and after a
// failure only when its back-off is over (k8s.io/kubernetes/pkg/controller/job,
// firstPendingIndexes and manageJob).
func jobInFlight(job *batchv1.Job) string {
	wanted := replicas(job.Spec.Parallelism)
	if job.Spec.Completions != nil {
		wanted = max(0, min(wanted, *job.Spec.Completions-job.Status.Succeeded))
	}
	uncounted := job.Status.UncountedTerminatedPods
	switch {
	case slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
		return c.Type == batchv1.JobSuspended && c.Status == corev1.ConditionTrue
	}):
		return fmt.Sprintf("Job %s is being resumed", job.Name)
	case job.Status.Active != wanted:
		return fmt.Sprintf("Job %s has %d active pods and wants %d", job.Name, job.Status.Active, wanted)
	case uncounted != nil && len(uncounted.Succeeded)+len(uncounted.Failed) > 0:
		return fmt.Sprintf("Job %s is counting pods that have ended", job.Name)
	}
	return ""
}

// replicas is 1 where nothing is said: the default of apps/v1, and that of the
// parallelism in batch/v1.
func replicas(wanted *int32) int32 {
	if wanted == nil {
		return 1
	}
	return *wanted
}
