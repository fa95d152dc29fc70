package owners_test

import (
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

func labelled(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { metav1.SetMetaDataLabel(&p.ObjectMeta, key, value) }
}

// wantSentence checks a sentence by a part of it; no part stands for no sentence.
func wantSentence(t *testing.T, got, part string) {
	t.Helper()
	if !strings.Contains(got, part) || (got == "") != (part == "") {
		t.Errorf("%q, want %q", got, part)
	}
}

func TestExcluded(t *testing.T) {
	for name, test := range map[string]struct {
		mark func(*corev1.Pod)
		want string
	}{
		"nothing":                        {annotated("x", "true"), ""},
		"ours":                           {annotated(v1alpha1.ExcludeAnnotation, "true"), "annotation " + v1alpha1.ExcludeAnnotation},
		"ours, another word":             {annotated(v1alpha1.ExcludeAnnotation, "yes"), ""},
		"cluster autoscaler":             {annotated("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"), "safe-to-evict"},
		"cluster autoscaler, consent":    {annotated("cluster-autoscaler.kubernetes.io/safe-to-evict", "true"), ""},
		"descheduler":                    {annotated("descheduler.alpha.kubernetes.io/prefer-no-eviction", ""), "prefer-no-eviction"},
		"Karpenter":                      {annotated("karpenter.sh/do-not-disrupt", "true"), "annotation karpenter.sh/do-not-disrupt"},
		"Karpenter, for a while":         {annotated("karpenter.sh/do-not-disrupt", "4h"), "karpenter.sh/do-not-disrupt"},
		"Karpenter, consent":             {annotated("karpenter.sh/do-not-disrupt", "false"), ""},
		"Karpenter of before":            {annotated("karpenter.sh/do-not-evict", "true"), "karpenter.sh/do-not-evict"},
		"Koordinator, label":             {labelled("scheduling.koordinator.sh/refuse-to-migrate", "true"), "label scheduling.koordinator.sh/refuse-to-migrate"},
		"Koordinator, annotation":        {annotated("scheduling.koordinator.sh/refuse-to-migrate", "true"), "annotation scheduling.koordinator.sh/refuse-to-migrate"},
		"Koordinator, consent":           {labelled("scheduling.koordinator.sh/refuse-to-migrate", "false"), ""},
		"Spot Ocean":                     {labelled("spotinst.io/restrict-scale-down", "true"), "label spotinst.io/restrict-scale-down"},
		"consent to the loop is no veto": {annotated(v1alpha1.RebalanceAnnotation, "true"), ""},
	} {
		t.Run(name, func(t *testing.T) { wantSentence(t, owners.Excluded(podOf(nil, test.mark)), test.want) })
	}
}

func TestNeedsOptIn(t *testing.T) {
	workers := func(parallelism, completions *int32) owners.Owner {
		return jobOwner(func(j *batchv1.Job) { j.Spec.Parallelism, j.Spec.Completions = parallelism, completions })
	}
	alone := workers(new(int32(1)), new(int32(1)))
	device := func(name corev1.ResourceName, amount string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{name: resource.MustParse(amount)}
		}
	}
	finishedWith := func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "prepare", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("1")}}})
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: "prepare", State: fixture.Exited(0).State})
	}
	sidecarWith := func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "sidecar", RestartPolicy: new(corev1.ContainerRestartPolicyAlways), Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"example.org/nic": resource.MustParse("1")}}}}
	}
	for name, test := range map[string]struct {
		owner owners.Owner
		pod   func(*corev1.Pod)
		want  string
	}{
		"no owner":                             {owners.Owner{}, nil, ""},
		"ReplicaSet":                           {replicaSetOwner(asIs), nil, ""},
		"Job of one":                           {alone, nil, ""},
		"Job by default":                       {workers(nil, nil), nil, ""},
		"Job, one after the other":             {workers(new(int32(1)), new(int32(9))), nil, ""},
		"Job, two at a time":                   {workers(new(int32(2)), new(int32(9))), nil, "Job sum has 2 workers"},
		"Job, more parallel than it has to do": {workers(new(int32(8)), new(int32(1))), nil, ""},
		"work queue of two":                    {workers(new(int32(2)), nil), nil, "2 workers"},
		"Job with a device":                    {alone, device("nvidia.com/gpu", "1"), "nvidia.com/gpu"},
		"Job with no device":                   {alone, device("nvidia.com/gpu", "0"), ""},
		"Job with huge pages":                  {alone, device("hugepages-2Mi", "2Mi"), ""},
		"Job with a resource of Kubernetes":    {alone, device("kubernetes.io/batch-cpu", "1"), ""},
		"Job with a device in a sidecar":       {alone, sidecarWith, "example.org/nic"},
		"Job, who had the device has finished": {alone, finishedWith, ""},
		"Job with a ResourceClaim":             {alone, func(p *corev1.Pod) { p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpus"}} }, "resourceClaim gpus"},
		"ReplicaSet with a device":             {replicaSetOwner(asIs), device("nvidia.com/gpu", "1"), ""},
		"JobSet":                               {alone, labelled("jobset.sigs.k8s.io/jobset-name", "x"), "label jobset.sigs.k8s.io/jobset-name"},
		"JobSet, another of its labels":        {alone, labelled("jobset.sigs.k8s.io/replicatedjob-name", "x"), "JobSet"},
		"LeaderWorkerSet":                      {owners.Owner{}, labelled("leaderworkerset.sigs.k8s.io/name", "x"), "LeaderWorkerSet"},
		"LeaderWorkerSet, first in order": {owners.Owner{}, func(p *corev1.Pod) {
			labelled("leaderworkerset.sigs.k8s.io/worker-index", "1")(p)
			labelled("leaderworkerset.sigs.k8s.io/group-index", "0")(p)
		}, "leaderworkerset.sigs.k8s.io/group-index"},
		"Kubeflow":                            {owners.Owner{}, labelled("training.kubeflow.org/job-name", "x"), "Kubeflow"},
		"Kubeflow Trainer":                    {owners.Owner{}, labelled("trainer.kubeflow.org/trainjob-ancestor-step", "trainer"), "Kubeflow"},
		"Ray":                                 {owners.Owner{}, labelled("ray.io/cluster", "x"), "Ray"},
		"Volcano":                             {owners.Owner{}, annotated("scheduling.k8s.io/group-name", "x"), "annotation scheduling.k8s.io/group-name"},
		"Volcano's own name":                  {owners.Owner{}, annotated("scheduling.volcano.sh/group-name", "x"), "Volcano"},
		"Volcano's Job":                       {owners.Owner{}, labelled("volcano.sh/job-name", "x"), "Volcano"},
		"coscheduling":                        {owners.Owner{}, labelled("scheduling.x-k8s.io/pod-group", "x"), "coscheduling"},
		"coscheduling of before":              {owners.Owner{}, labelled("pod-group.scheduling.sigs.k8s.io", "x"), "coscheduling"},
		"coscheduling of before, with a name": {owners.Owner{}, labelled("pod-group.scheduling.sigs.k8s.io/name", "x"), "coscheduling"},
		"Koordinator":                         {owners.Owner{}, annotated("gang.scheduling.koordinator.sh/name", "x"), "Koordinator"},
		"YuniKorn":                            {owners.Owner{}, annotated("yunikorn.apache.org/task-group-name", "x"), "YuniKorn"},
		"Kueue's group":                       {owners.Owner{}, labelled("kueue.x-k8s.io/pod-group-name", "x"), "Kueue"},
		"Kueue's queue alone":                 {owners.Owner{}, labelled("kueue.x-k8s.io/queue-name", "x"), ""},
		"of a similar name":                   {owners.Owner{}, labelled("myray.io/cluster", "x"), ""},
		"Workload":                            {owners.Owner{}, func(p *corev1.Pod) { p.Spec.WorkloadRef = &corev1.WorkloadReference{Name: "x"} }, "spec.workloadRef"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := podOf(test.owner.Reference)
			if test.pod != nil {
				test.pod(pod)
			}
			got := owners.NeedsOptIn(pod, test.owner)
			wantSentence(t, got, test.want)
			if got != "" && !strings.Contains(got, v1alpha1.RebalanceAnnotation) {
				t.Errorf("%q does not say how to opt in", got)
			}
			annotated(v1alpha1.RebalanceAnnotation, "true")(pod)
			wantSentence(t, owners.NeedsOptIn(pod, test.owner), "")
			annotated(v1alpha1.RebalanceAnnotation, "false")(pod)
			wantSentence(t, owners.NeedsOptIn(pod, test.owner), test.want)
		})
	}
}
