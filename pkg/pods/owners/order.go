package owners

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// StopsFirst returns why the original has to end before another pod of its owner
// may run; "" when both may. The owner decides, by its kind or by its spec.
func StopsFirst(o Owner) string {
	switch KindOf(o.Reference) {
	case KindStatefulSet:
		return "the name is the identity of a pod of a StatefulSet: there cannot be two"
	case KindOther, KindDaemonSet:
		return o.Reference.Kind + " " + o.Reference.Name + " makes another pod only when this one is gone"
	case KindJob:
		if o.Job != nil {
			return jobStopsFirst(o.Job)
		}
	case KindReplicaSet:
		if o.Deployment != nil {
			return deploymentStopsFirst(o.Deployment)
		}
	}
	return ""
}

// jobStopsFirst follows what the Job controller promises
// (k8s.io/kubernetes/pkg/controller/job at 1.35.4).
//
// With podReplacementPolicy Failed (KEP-3939), and with any podFailurePolicy, it
// makes another pod only when the one before has ended (onlyReplaceFailedPods). Of
// an index it keeps one active pod and deletes every other
// (appendDuplicatedIndexPodsForRemoval); two of one index overlap only while the
// first is terminating. A replacement that starts first would run beside an original
// that nobody has told to end, with the same index and the same hostname. Pods of a
// Job without indexes are alike, and the author of such a Job has to expect that its
// program is started twice (Job, "Handling Pod and container failures").
func jobStopsFirst(job *batchv1.Job) string {
	policy := job.Spec.PodReplacementPolicy
	switch {
	case policy != nil && *policy == batchv1.Failed:
		return fmt.Sprintf("Job %s wants one pod at a time (podReplacementPolicy Failed): it makes another when this one has ended", job.Name)
	case job.Spec.PodFailurePolicy != nil:
		return fmt.Sprintf("Job %s has a podFailurePolicy, with which it makes another pod only when this one has ended", job.Name)
	case job.Spec.CompletionMode != nil && *job.Spec.CompletionMode == batchv1.IndexedCompletion:
		return fmt.Sprintf("Job %s is indexed: two pods of one index, and of one hostname, must not run at once", job.Name)
	}
	return ""
}

// deploymentStopsFirst obeys the strategy for rollouts: who does not want a pod
// beyond the replicas then, such as for a device or a lock that only one can hold,
// does not want one in a move either.
func deploymentStopsFirst(d *appsv1.Deployment) string {
	switch strategy := d.Spec.Strategy; {
	case strategy.Type == appsv1.RecreateDeploymentStrategyType:
		return fmt.Sprintf("Deployment %s has the strategy Recreate: its pods must not run beside new ones", d.Name)
	case strategy.RollingUpdate != nil && isNone(strategy.RollingUpdate.MaxSurge):
		return fmt.Sprintf("Deployment %s has maxSurge 0: it wants no pod beyond its replicas", d.Name)
	}
	return ""
}

// isNone reports whether a number or a percentage is set, and zero. Any other
// percentage of replicas is rounded up to one pod at least.
func isNone(amount *intstr.IntOrString) bool {
	if amount == nil {
		return false
	}
	value, err := intstr.GetScaledValueFromIntOrPercent(amount, 100, true)
	return err == nil && value == 0
}
