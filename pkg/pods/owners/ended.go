package owners

import (
	"fmt"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// Suspended returns why the owner makes no pods for now; "" when it does. A Job
// that is suspended deletes every pod that it has, and a released one that is given
// back to it (Restored) as well, without counting it (manageJob, deleteJobPods).
func Suspended(o Owner) string {
	if KindOf(o.Reference) == KindJob && o.Job != nil && isSuspended(o.Job) {
		return suspended(o.Job)
	}
	return ""
}

func isSuspended(job *batchv1.Job) bool { return job.Spec.Suspend != nil && *job.Spec.Suspend }

func suspended(job *batchv1.Job) string {
	return fmt.Sprintf("Job %s is suspended: it deletes its pods itself", job.Name)
}

// Ended returns why the owner makes no pod any more that could take over from one
// with this identity (see Identity): it is gone, being deleted or finished, or was
// scaled so that the pod has no place in it. "" when it makes one, and for
// controllers that are not known.
func Ended(o Owner, identity string) string {
	if r := ended(o, identity); r != nil {
		return r.Message
	}
	return ""
}

func ended(o Owner, identity string) *containers.Refusal {
	switch KindOf(o.Reference) {
	case KindReplicaSet:
		return replicaSetEnded(o)
	case KindJob:
		return jobEnded(o, identity)
	case KindStatefulSet:
		return statefulSetEnded(o, identity)
	}
	return nil
}

func replicaSetEnded(o Owner) *containers.Refusal {
	switch {
	case o.ReplicaSet == nil || isGone(o, o.ReplicaSet):
		return gone(o)
	case o.Deployment != nil && o.Deployment.DeletionTimestamp != nil:
		return refuse(RefusalOwnerGone, "Deployment %s, to which the pod belongs, is being deleted", o.Deployment.Name)
	case o.Deployment != nil && replicas(o.Deployment.Spec.Replicas) == 0:
		return refuse(RefusalOwnerScaled, "Deployment %s was scaled to 0: it wants no pods", o.Deployment.Name)
	case replicas(o.ReplicaSet.Spec.Replicas) == 0:
		return refuse(RefusalOwnerScaled, "ReplicaSet %s was scaled to 0: it wants no pods", o.ReplicaSet.Name)
	}
	return nil
}

func jobEnded(o Owner, identity string) *containers.Refusal {
	job := o.Job
	switch {
	case job == nil || isGone(o, job):
		return gone(o)
	case isFinished(job):
		return refuse(RefusalOwnerFinished, "Job %s has finished, or is about to: it makes no more pods", job.Name)
	case replicas(job.Spec.Parallelism) == 0:
		return refuse(RefusalOwnerScaled, "Job %s has parallelism 0: it wants no pods", job.Name)
	case isBeyond(identity, job.Spec.Completions):
		// An elastic indexed Job (KEP-3715) deletes the pods of indexes that it has no more.
		return refuse(RefusalOwnerScaled, "Job %s was scaled to %d completions: it wants no pod of index %s", job.Name, *job.Spec.Completions, identity)
	}
	return nil
}

// isBeyond reports whether a completion index is not below the completions.
func isBeyond(index string, completions *int32) bool {
	number, err := strconv.ParseInt(index, 10, 32)
	return err == nil && completions != nil && number >= int64(*completions)
}

func statefulSetEnded(o Owner, identity string) *containers.Refusal {
	set := o.StatefulSet
	if set == nil || isGone(o, set) {
		return gone(o)
	}
	first, wanted := start(set), replicas(set.Spec.Replicas)
	if ordinal := ordinalOf(identity, set); ordinal >= 0 && (ordinal < first || ordinal >= first+wanted) {
		return refuse(RefusalOwnerScaled, "StatefulSet %s was scaled to %d pods, from ordinal %d on: it wants no pod %s", set.Name, wanted, first, identity)
	}
	return nil
}

func isGone(o Owner, found interface {
	GetUID() types.UID
	GetDeletionTimestamp() *metav1.Time
}) bool {
	return found.GetUID() != o.Reference.UID || found.GetDeletionTimestamp() != nil
}

func gone(o Owner) *containers.Refusal {
	return refuse(RefusalOwnerGone, "%s %s, to which the pod belongs, is gone or being deleted", o.Reference.Kind, o.Reference.Name)
}

// isFinished reports whether a Job makes no more pods: its end is decided, though it
// may still have pods to delete and to count.
func isFinished(job *batchv1.Job) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
		switch c.Type {
		case batchv1.JobComplete, batchv1.JobFailed, batchv1.JobSuccessCriteriaMet, batchv1.JobFailureTarget:
			return c.Status == corev1.ConditionTrue
		}
		return false
	})
}

// NoNextPod returns why no pod comes from the owner, which is to make the
// replacement of a pod with this identity; nil when one does. Siblings are the pods
// that the owner has now, read after the original was released or had gone. While one
// of them is to become the replacement, the answer is of no use.
//
// Beside what Suspended and Ended say, an owner makes none that has all the pods it
// wants: it was scaled down meanwhile, or made the pod before anybody looked at it.
func NoNextPod(o Owner, identity string, siblings []corev1.Pod) *containers.Refusal {
	if why := Suspended(o); why != "" {
		return refuse(RefusalOwnerStopped, "%s", why)
	}
	if r := ended(o, identity); r != nil || o.Reference == nil {
		return r
	}
	active := int32(0)
	for i := range siblings {
		controller := metav1.GetControllerOf(&siblings[i])
		if controller != nil && controller.UID == o.Reference.UID && siblings[i].DeletionTimestamp == nil && !pods.IsTerminal(&siblings[i]) {
			active++
		}
	}
	switch KindOf(o.Reference) {
	case KindReplicaSet:
		if wanted := replicas(o.ReplicaSet.Spec.Replicas); active >= wanted {
			return refuse(RefusalOwnerScaled, "ReplicaSet %s has the %d pods that it wants: it makes no other", o.ReplicaSet.Name, wanted)
		}
	case KindJob:
		if wanted := wantedActive(o.Job, active); active >= wanted {
			return refuse(RefusalOwnerScaled, "Job %s has the %d active pods that it wants: it makes no other", o.Job.Name, wanted)
		}
	}
	return nil
}

// wantedActive is how many active pods a Job wants when it has so many (manageJob).
func wantedActive(job *batchv1.Job, active int32) int32 {
	if job.Spec.Completions == nil {
		if job.Status.Succeeded > 0 {
			return active
		}
		return replicas(job.Spec.Parallelism)
	}
	return max(0, min(replicas(job.Spec.Parallelism), *job.Spec.Completions-job.Status.Succeeded))
}

// Abandons returns why the owner would not manage a released pod that is given back
// to it (Restored); "" when it keeps the pod, or deletes it as it deletes others. Who
// would give it back has to delete it instead, as the owner would have: nobody else
// does, and it would run on without end.
//
// A Job that has finished is never looked at again (syncJob), and one that is about
// to finish may have by the time of the write. What belongs to an owner that is gone,
// the garbage collector deletes sooner or later.
func Abandons(o Owner) string {
	switch kind := KindOf(o.Reference); {
	case kind == KindReplicaSet && (o.ReplicaSet == nil || isGone(o, o.ReplicaSet)):
		return Ended(o, "")
	case kind == KindJob && (o.Job == nil || isGone(o, o.Job) || isFinished(o.Job)):
		return Ended(o, "")
	}
	return ""
}
