package owners

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// vetoes are the labels and annotations by which authors of pods say that nobody
// may disturb them, with the values that say so.
var vetoes = []struct {
	key  string
	says func(value string) bool
}{
	{v1alpha1.ExcludeAnnotation, is("true")},
	// github.com/kubernetes/autoscaler/cluster-autoscaler/utils/drain, PodSafeToEvictKey.
	{"cluster-autoscaler.kubernetes.io/safe-to-evict", is("false")},
	// sigs.k8s.io/descheduler/pkg/utils, soft eviction; the value does not matter.
	{"descheduler.alpha.kubernetes.io/prefer-no-eviction", func(string) bool { return true }},
	// sigs.k8s.io/karpenter/pkg/apis/v1, DoNotDisruptAnnotationKey: "true", or for how
	// long. Before v1beta1 it was do-not-evict.
	{"karpenter.sh/do-not-disrupt", func(value string) bool { return value != "" && value != "false" }},
	{"karpenter.sh/do-not-evict", is("true")},
	// koordinator's descheduler; a label there.
	{"scheduling.koordinator.sh/refuse-to-migrate", is("true")},
	// Spot Ocean, a label (docs.spot.io, "Labels and Taints").
	{"spotinst.io/restrict-scale-down", is("true")},
}

func is(wanted string) func(string) bool {
	return func(value string) bool { return value == wanted }
}

// Excluded says by which annotation or label the author of a pod keeps it where it
// is; "" when there is none. Neither the loop nor reclaim touches such a pod. A
// request of a user is carried out.
func Excluded(pod *corev1.Pod) string {
	for _, veto := range vetoes {
		for _, place := range placesOf(pod) {
			if value, set := place.marks[veto.key]; set && veto.says(value) {
				return fmt.Sprintf("the pod is excluded by %s %s", place.name, veto.key)
			}
		}
	}
	return ""
}

// place is where a mark may be. Several systems read the same key from either.
type place struct {
	name  string
	marks map[string]string
}

func placesOf(pod *corev1.Pod) [2]place {
	return [2]place{{"annotation", pod.Annotations}, {"label", pod.Labels}}
}

// kueueGroup is the label, or the annotation, of pods that Kueue admits as one
// (sigs.k8s.io/kueue/pkg/controller/jobs/pod/constants, GroupNameLabel).
const kueueGroup = "kueue.x-k8s.io/pod-group-name"

// gangs are the labels and annotations of pods that are scheduled, or that work,
// together. A key that ends in a slash stands for all that begin with it.
//
// The field spec.schedulingGroup of Kubernetes 1.36 and later, which took the place
// of spec.workloadRef, is not among the types of 1.35: it cannot be seen here.
var gangs = []struct{ key, of string }{
	// sigs.k8s.io/jobset/api/jobset/v1alpha2: jobset-name, job-index, replicatedjob-name …
	{"jobset.sigs.k8s.io/", "JobSet"},
	// sigs.k8s.io/lws/api/leaderworkerset/v1: name, group-index, worker-index …
	{"leaderworkerset.sigs.k8s.io/", "LeaderWorkerSet"},
	// github.com/kubeflow/training-operator/pkg/apis/kubeflow.org/v1: job-name, replica-type …
	{"training.kubeflow.org/", "Kubeflow"},
	// github.com/kubeflow/trainer/v2/pkg/constants: trainjob-ancestor-step …
	{"trainer.kubeflow.org/", "Kubeflow"},
	// github.com/ray-project/kuberay/ray-operator/controllers/ray/utils: cluster, node-type, group …
	{"ray.io/", "Ray"},
	// volcano.sh/apis/pkg/apis/scheduling/v1beta1: KubeGroupNameAnnotationKey, VolcanoGroupNameAnnotationKey …
	{"scheduling.k8s.io/group-name", "Volcano"},
	{"scheduling.volcano.sh/", "Volcano"},
	// volcano.sh/apis/pkg/apis/batch/v1alpha1: job-name, task-spec, task-index …
	{"volcano.sh/", "Volcano"},
	// sigs.k8s.io/scheduler-plugins/apis/scheduling/v1alpha1, PodGroupLabel.
	{"scheduling.x-k8s.io/pod-group", "coscheduling"},
	// The names of before, which koordinator reads as well.
	{"pod-group.scheduling.sigs.k8s.io", "coscheduling"},
	{"pod-group.scheduling.sigs.k8s.io/", "coscheduling"},
	// github.com/koordinator-sh/koordinator/apis/extension, AnnotationGangPrefix.
	{"gang.scheduling.koordinator.sh/", "Koordinator"},
	// github.com/apache/yunikorn-k8shim/pkg/common/constants, AnnotationTaskGroupName, AnnotationTaskGroups.
	{"yunikorn.apache.org/task-group-name", "YuniKorn"},
	{"yunikorn.apache.org/task-groups", "YuniKorn"},
	{kueueGroup, "Kueue"},
}

// kueueGroupOf names the pod group of Kueue that a pod is in; "" when it is in none.
func kueueGroupOf(pod *corev1.Pod) string {
	for _, place := range placesOf(pod) {
		if name := place.marks[kueueGroup]; name != "" {
			return name
		}
	}
	return ""
}

// gangOf says by which mark a pod is a member of a gang; "" when it has none.
func gangOf(pod *corev1.Pod) string {
	for _, gang := range gangs {
		for _, place := range placesOf(pod) {
			key := gang.key
			if strings.HasSuffix(key, "/") {
				key = firstWithPrefix(place.marks, key)
			}
			if _, set := place.marks[key]; set {
				return fmt.Sprintf("%s %s, of %s", place.name, key, gang.of)
			}
		}
	}
	if pod.Spec.WorkloadRef != nil {
		return fmt.Sprintf("spec.workloadRef, Workload %s", pod.Spec.WorkloadRef.Name)
	}
	return ""
}

// firstWithPrefix returns the first key, in order, that begins with a prefix.
func firstWithPrefix(marks map[string]string, prefix string) string {
	for _, key := range slices.Sorted(maps.Keys(marks)) {
		if strings.HasPrefix(key, prefix) {
			return key
		}
	}
	return ""
}

// NeedsOptIn returns why the loop does not move a pod unless its author says so, and
// how to say it; "" when the author has, or when nothing speaks against it. Others
// may wait for such a pod, in a barrier of all workers, or time out, and what one
// node has of devices and of links between them another may not have. A request of
// a user is carried out.
//
// No spec says whether the workers of a Job know of each other, so more than one at a
// time is enough. A Job that runs one after the other, whatever its completions, has
// one.
func NeedsOptIn(pod *corev1.Pod, o Owner) string {
	if pod.Annotations[v1alpha1.RebalanceAnnotation] == "true" {
		return ""
	}
	why := ""
	if mark := gangOf(pod); mark != "" {
		why = fmt.Sprintf("the pod is a member of a group that works together (%s)", mark)
	} else if o.Job != nil {
		why = jobNeedsOptIn(pod, o.Job)
	}
	if why == "" {
		return ""
	}
	return fmt.Sprintf("%s. If it may move nevertheless, annotate the template of the pod with %s: \"true\"", why, v1alpha1.RebalanceAnnotation)
}

func jobNeedsOptIn(pod *corev1.Pod, job *batchv1.Job) string {
	if workers := workersOf(job); workers > 1 {
		return fmt.Sprintf("Job %s has %d workers at a time, which may depend on each other", job.Name, workers)
	}
	if device := deviceOf(pod); device != "" {
		return fmt.Sprintf("the pod is of Job %s and holds devices (%s)", job.Name, device)
	}
	return ""
}

// workersOf is how many pods of a Job run at once, at most.
func workersOf(job *batchv1.Job) int32 {
	workers := replicas(job.Spec.Parallelism)
	if job.Spec.Completions != nil {
		workers = min(workers, *job.Spec.Completions)
	}
	return workers
}

// deviceOf names devices that a pod holds, by the extended resource or by the claim;
// "" when it has none. Those of containers that have finished are of no use to it any
// more.
func deviceOf(pod *corev1.Pod) string {
	if len(pod.Spec.ResourceClaims) > 0 {
		return "resourceClaim " + pod.Spec.ResourceClaims[0].Name
	}
	finished, finishedInits := containers.Finished(pod)
	for _, group := range []struct {
		of       []corev1.Container
		finished map[string]bool
	}{{pod.Spec.Containers, finished}, {pod.Spec.InitContainers, finishedInits}} {
		for i := range group.of {
			c := &group.of[i]
			if group.finished[c.Name] {
				continue
			}
			for _, list := range []corev1.ResourceList{c.Resources.Requests, c.Resources.Limits} {
				for _, name := range slices.Sorted(maps.Keys(list)) {
					if amount := list[name]; isExtended(name) && !amount.IsZero() {
						return string(name)
					}
				}
			}
		}
	}
	return ""
}

// isExtended reports whether a resource is not of Kubernetes itself
// (k8s.io/kubernetes/pkg/apis/core/v1/helper, IsExtendedResourceName).
func isExtended(name corev1.ResourceName) bool {
	return strings.Contains(string(name), "/") && !strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}
