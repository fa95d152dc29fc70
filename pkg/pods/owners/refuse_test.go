package owners_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

func meta(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, UID: "uid-of-owner"} }

func jobOwner(change func(*batchv1.Job)) owners.Owner {
	job := &batchv1.Job{ObjectMeta: meta("sum"), Spec: batchv1.JobSpec{
		Parallelism: new(int32(2)), Completions: new(int32(4)),
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{jobController: "uid-of-owner"}},
	}, Status: batchv1.JobStatus{Active: 2, Succeeded: 1}}
	change(job)
	return owners.Owner{Reference: reference("batch/v1", "Job", "sum"), Job: job}
}

func replicaSetOwner(change func(*appsv1.ReplicaSet)) owners.Owner {
	rs := &appsv1.ReplicaSet{ObjectMeta: meta("web"), Spec: appsv1.ReplicaSetSpec{
		Replicas: new(int32(2)),
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web", "pod-template-hash": "abc"}},
	}, Status: appsv1.ReplicaSetStatus{Replicas: 2}}
	change(rs)
	return owners.Owner{Reference: reference("apps/v1", "ReplicaSet", "web"), ReplicaSet: rs}
}

func statefulSetOwner(change func(*appsv1.StatefulSet)) owners.Owner {
	set := &appsv1.StatefulSet{ObjectMeta: meta("db"), Spec: appsv1.StatefulSetSpec{Replicas: new(int32(3))},
		Status: appsv1.StatefulSetStatus{Replicas: 3, ReadyReplicas: 3, CurrentRevision: "r1", UpdateRevision: "r1"}}
	change(set)
	return owners.Owner{Reference: reference("apps/v1", "StatefulSet", "db"), StatefulSet: set}
}

func asIs[T any](*T) {}

func without(o owners.Owner) owners.Owner { return owners.Owner{Reference: o.Reference} }

func condition(kind batchv1.JobConditionType) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Status.Conditions = []batchv1.JobCondition{{Type: kind, Status: corev1.ConditionTrue}}
	}
}

func tracked(p *corev1.Pod) { p.Finalizers = []string{jobTracking} }

type refusalTest struct {
	owner  owners.Owner
	change func(*corev1.Pod)
	want   string
}

func checkRefusals(t *testing.T, tests map[string]refusalTest) {
	t.Helper()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod := podOf(test.owner.Reference)
			if test.change != nil {
				test.change(pod)
			}
			got := ""
			if r := owners.Refuse(pod, test.owner); r != nil {
				got = r.Reason
				if r.Message == "" {
					t.Error("a refusal without a sentence")
				}
			}
			if got != test.want {
				t.Errorf("refused with %q, want %q", got, test.want)
			}
		})
	}
}

func TestRefuse(t *testing.T) {
	now := metav1.Now()
	other := owners.Owner{Reference: reference("example.org/v1", "Trainer", "x")}
	daemon := owners.Owner{Reference: reference("apps/v1", "DaemonSet", "agent")}
	mayRecreate := annotated(v1alpha1.RecreateAnnotation, "true")
	checkRefusals(t, map[string]refusalTest{
		"no controller":                     {owners.Owner{}, nil, ""},
		"static":                            {owners.Owner{}, annotated(corev1.MirrorPodAnnotationKey, "x"), owners.RefusalOwner},
		"other":                             {other, nil, owners.RefusalOwner},
		"other, opted in with another word": {other, annotated(v1alpha1.RecreateAnnotation, "yes"), owners.RefusalOwner},
		"other, opted in":                   {other, mayRecreate, ""},
		"DaemonSet":                         {daemon, nil, owners.RefusalOwner},
		"DaemonSet, opted in":               {daemon, mayRecreate, owners.RefusalOwner},

		"ReplicaSet":                {replicaSetOwner(asIs), nil, ""},
		"ReplicaSet is gone":        {without(replicaSetOwner(asIs)), nil, owners.RefusalOwnerGone},
		"ReplicaSet was recreated":  {replicaSetOwner(func(rs *appsv1.ReplicaSet) { rs.UID = "new" }), nil, owners.RefusalOwnerGone},
		"ReplicaSet is being ended": {replicaSetOwner(func(rs *appsv1.ReplicaSet) { rs.DeletionTimestamp = &now }), nil, owners.RefusalOwnerGone},
		"ReplicaSet of expressions": {replicaSetOwner(func(rs *appsv1.ReplicaSet) { rs.Spec.Selector.MatchLabels = nil }), nil, owners.RefusalOwnerSelector},

		"StatefulSet":                {statefulSetOwner(asIs), nil, ""},
		"StatefulSet is gone":        {without(statefulSetOwner(asIs)), nil, owners.RefusalOwnerGone},
		"StatefulSet was recreated":  {statefulSetOwner(func(s *appsv1.StatefulSet) { s.UID = "new" }), nil, owners.RefusalOwnerGone},
		"StatefulSet is scaled to 0": {statefulSetOwner(func(s *appsv1.StatefulSet) { s.Spec.Replicas = new(int32(0)) }), func(p *corev1.Pod) { p.Name = "db-0" }, owners.RefusalOwnerScaled},
		"Deployment is scaled to 0":  {deploymentOwner(func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(0)) }), nil, owners.RefusalOwnerScaled},

		"Kueue's group":                   {owners.Owner{}, labelled("kueue.x-k8s.io/pod-group-name", "g"), owners.RefusalGroup},
		"Kueue's group, by annotation":    {owners.Owner{}, annotated("kueue.x-k8s.io/pod-group-name", "g"), owners.RefusalGroup},
		"Kueue's group, of a StatefulSet": {statefulSetOwner(asIs), labelled("kueue.x-k8s.io/pod-group-name", "g"), owners.RefusalGroup},
		"Kueue's queue":                   {owners.Owner{}, labelled("kueue.x-k8s.io/queue-name", "q"), ""},
		"another gang, on request":        {replicaSetOwner(asIs), labelled("scheduling.x-k8s.io/pod-group", "g"), ""},
	})
}

func TestRefuseJob(t *testing.T) {
	now := metav1.Now()
	checkRefusals(t, map[string]refusalTest{
		"Job":                           {jobOwner(asIs), tracked, ""},
		"Job is gone":                   {without(jobOwner(asIs)), tracked, owners.RefusalOwnerGone},
		"Job is being deleted":          {jobOwner(func(j *batchv1.Job) { j.DeletionTimestamp = &now }), tracked, owners.RefusalOwnerGone},
		"Job is suspended":              {jobOwner(func(j *batchv1.Job) { j.Spec.Suspend = new(true) }), tracked, owners.RefusalOwnerStopped},
		"Job is complete":               {jobOwner(condition(batchv1.JobComplete)), tracked, owners.RefusalOwnerFinished},
		"Job has failed":                {jobOwner(condition(batchv1.JobFailed)), tracked, owners.RefusalOwnerFinished},
		"Job is about to fail":          {jobOwner(condition(batchv1.JobFailureTarget)), tracked, owners.RefusalOwnerFinished},
		"Job is about to complete":      {jobOwner(condition(batchv1.JobSuccessCriteriaMet)), tracked, owners.RefusalOwnerFinished},
		"Job of another controller":     {jobOwner(func(j *batchv1.Job) { j.Spec.ManagedBy = new("example.org/queue") }), tracked, owners.RefusalOwner},
		"Job of Kubernetes' controller": {jobOwner(func(j *batchv1.Job) { j.Spec.ManagedBy = new(batchv1.JobControllerName) }), tracked, ""},
		"pod was counted":               {jobOwner(asIs), nil, owners.RefusalOwnerCounts},
		"Job selects by its own labels": {jobOwner(func(j *batchv1.Job) { j.Spec.Selector.MatchLabels = map[string]string{"app": "sum"} }), tracked, owners.RefusalOwnerSelector},
		"work queue":                    {jobOwner(func(j *batchv1.Job) { j.Spec.Completions, j.Status.Succeeded = nil, 0 }), tracked, ""},
		"work queue that runs dry":      {jobOwner(func(j *batchv1.Job) { j.Spec.Completions = nil }), tracked, owners.RefusalOwnerFinished},
		"index failed before": {jobOwner(asIs), func(p *corev1.Pod) {
			tracked(p)
			annotated(batchv1.JobIndexFailureCountAnnotation, "1")(p)
		}, owners.RefusalOwnerCounts},
		"index never failed": {jobOwner(asIs), func(p *corev1.Pod) {
			tracked(p)
			annotated(batchv1.JobIndexFailureCountAnnotation, "0")(p)
		}, ""},
	})
}

func TestInFlight(t *testing.T) {
	now := metav1.Now()
	for name, test := range map[string]struct {
		owner owners.Owner
		waits bool
	}{
		"none":                         {owners.Owner{}, false},
		"ReplicaSet":                   {replicaSetOwner(asIs), false},
		"ReplicaSet is scaled":         {replicaSetOwner(func(rs *appsv1.ReplicaSet) { rs.Status.Replicas = 1 }), true},
		"ReplicaSet was not looked at": {replicaSetOwner(func(rs *appsv1.ReplicaSet) { rs.Generation = 2 }), true},
		"ReplicaSet wants one":         {replicaSetOwner(func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas, rs.Status.Replicas = nil, 1 }), false},
		"Deployment":                   {deploymentOwner(asIs), false},
		"Deployment is being deleted":  {deploymentOwner(func(d *appsv1.Deployment) { d.DeletionTimestamp = &now }), true},
		"Deployment was not looked at": {deploymentOwner(func(d *appsv1.Deployment) { d.Generation = 2 }), true},
		"Deployment is rolled out":     {deploymentOwner(func(d *appsv1.Deployment) { d.Status.UpdatedReplicas = 1 }), true},
		"Deployment is scaled":         {deploymentOwner(func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(3)) }), true},

		"Job":                    {jobOwner(asIs), false},
		"Job misses a pod":       {jobOwner(func(j *batchv1.Job) { j.Status.Active = 1 }), true},
		"Job is scaled down":     {jobOwner(func(j *batchv1.Job) { j.Spec.Parallelism = new(int32(1)) }), true},
		"Job with one pod to go": {jobOwner(func(j *batchv1.Job) { j.Status.Active, j.Status.Succeeded = 1, 3 }), false},
		"Job is being resumed":   {jobOwner(condition(batchv1.JobSuspended)), true},
		"Job has pods to count": {jobOwner(func(j *batchv1.Job) {
			j.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Failed: []types.UID{"x"}}
		}), true},
		"Job has counted":         {jobOwner(func(j *batchv1.Job) { j.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{} }), false},
		"Job without completions": {jobOwner(func(j *batchv1.Job) { j.Spec.Completions, j.Status.Succeeded = nil, 0 }), false},

		"StatefulSet":                   {statefulSetOwner(asIs), false},
		"StatefulSet was not looked at": {statefulSetOwner(func(s *appsv1.StatefulSet) { s.Generation = 2 }), true},
		"StatefulSet is rolled out": {statefulSetOwner(func(s *appsv1.StatefulSet) {
			s.Status.UpdateRevision, s.Spec.UpdateStrategy.Type = "r2", appsv1.RollingUpdateStatefulSetStrategyType
		}), true},
		"StatefulSet is scaled":     {statefulSetOwner(func(s *appsv1.StatefulSet) { s.Status.Replicas = 2 }), true},
		"StatefulSet with one away": {statefulSetOwner(func(s *appsv1.StatefulSet) { s.Status.ReadyReplicas = 2 }), true},
	} {
		t.Run(name, func(t *testing.T) {
			if reason := owners.InFlight(test.owner); (reason != "") != test.waits {
				t.Errorf("in flight: %q, want waiting %v", reason, test.waits)
			}
		})
	}
}
