package owners_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// What an owner does with its pods once it has changed while one of them moves: for
// Suspended, Ended and Abandons a part of the sentence.
func TestOwnersThatMakeNoMore(t *testing.T) {
	now := metav1.Now()
	const goneAway = "is gone or being deleted"
	job := func(change func(*batchv1.Job)) owners.Owner { return jobOwner(change) }
	other := owners.Owner{Reference: reference("example.org/v1", "Trainer", "x")}
	for name, test := range map[string]struct {
		owner                      owners.Owner
		identity                   string
		suspended, ended, abandons string
	}{
		"none":  {owners.Owner{}, "", "", "", ""},
		"other": {other, "", "", "", ""},

		"Job":                      {job(asIs), "2", "", "", ""},
		"Job is suspended":         {job(func(j *batchv1.Job) { j.Spec.Suspend = new(true) }), "2", "Job sum is suspended", "", ""},
		"Job is not suspended":     {job(func(j *batchv1.Job) { j.Spec.Suspend = new(false) }), "2", "", "", ""},
		"Job is gone":              {without(job(asIs)), "2", "", goneAway, goneAway},
		"Job was recreated":        {job(func(j *batchv1.Job) { j.UID = "new" }), "2", "", goneAway, goneAway},
		"Job is being deleted":     {job(func(j *batchv1.Job) { j.DeletionTimestamp = &now }), "2", "", goneAway, goneAway},
		"Job is complete":          {job(condition(batchv1.JobComplete)), "2", "", "has finished", "has finished"},
		"Job has failed":           {job(condition(batchv1.JobFailed)), "2", "", "has finished", "has finished"},
		"Job is about to fail":     {job(condition(batchv1.JobFailureTarget)), "2", "", "has finished", "has finished"},
		"Job is about to complete": {job(condition(batchv1.JobSuccessCriteriaMet)), "2", "", "has finished", "has finished"},
		"Job was resumed":          {job(condition(batchv1.JobSuspended)), "2", "", "", ""},
		"Job is scaled to nothing": {job(func(j *batchv1.Job) { j.Spec.Parallelism = new(int32(0)) }), "2", "", "parallelism 0", ""},
		"Job has lost the index":   {job(func(j *batchv1.Job) { j.Spec.Parallelism, j.Spec.Completions = new(int32(2)), new(int32(2)) }), "2", "", "no pod of index 2", ""},
		"Job has kept the index":   {job(func(j *batchv1.Job) { j.Spec.Parallelism, j.Spec.Completions = new(int32(3)), new(int32(3)) }), "2", "", "", ""},
		"Job without indexes":      {job(func(j *batchv1.Job) { j.Spec.Completions = new(int32(2)) }), "", "", "", ""},

		"ReplicaSet":                  {replicaSetOwner(asIs), "", "", "", ""},
		"ReplicaSet is gone":          {without(replicaSetOwner(asIs)), "", "", goneAway, goneAway},
		"ReplicaSet is being deleted": {replicaSetOwner(func(rs *appsv1.ReplicaSet) { rs.DeletionTimestamp = &now }), "", "", goneAway, goneAway},
		"ReplicaSet is scaled to 0":   {replicaSetOwner(func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = new(int32(0)) }), "", "", "scaled to 0", ""},
		"ReplicaSet is scaled to 1":   {replicaSetOwner(func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = new(int32(1)) }), "", "", "", ""},
		"Deployment":                  {deploymentOwner(asIs), "", "", "", ""},
		"Deployment is being deleted": {deploymentOwner(func(d *appsv1.Deployment) { d.DeletionTimestamp = &now }), "", "", "Deployment web, to which", ""},
		"Deployment is scaled to 0":   {deploymentOwner(func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(0)) }), "", "", "Deployment web was scaled to 0", ""},

		"StatefulSet":                     {statefulSetOwner(asIs), "db-2", "", "", ""},
		"StatefulSet is gone":             {without(statefulSetOwner(asIs)), "db-2", "", goneAway, ""},
		"StatefulSet is being deleted":    {statefulSetOwner(func(s *appsv1.StatefulSet) { s.DeletionTimestamp = &now }), "db-2", "", goneAway, ""},
		"StatefulSet is scaled to 0":      {statefulSetOwner(func(s *appsv1.StatefulSet) { s.Spec.Replicas = new(int32(0)) }), "db-0", "", "scaled to 0 pods", ""},
		"StatefulSet is scaled to below":  {statefulSetOwner(func(s *appsv1.StatefulSet) { s.Spec.Replicas = new(int32(2)) }), "db-2", "", "wants no pod db-2", ""},
		"StatefulSet is scaled to this":   {statefulSetOwner(func(s *appsv1.StatefulSet) { s.Spec.Replicas = new(int32(2)) }), "db-1", "", "", ""},
		"StatefulSet begins later":        {statefulSetOwner(func(s *appsv1.StatefulSet) { s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 3} }), "db-2", "", "wants no pod db-2", ""},
		"StatefulSet begins with this":    {statefulSetOwner(func(s *appsv1.StatefulSet) { s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 3} }), "db-5", "", "", ""},
		"StatefulSet, the one beyond":     {statefulSetOwner(func(s *appsv1.StatefulSet) { s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 3} }), "db-6", "", "wants no pod db-6", ""},
		"StatefulSet, of another's name":  {statefulSetOwner(asIs), "cache-7", "", "", ""},
		"StatefulSet, not of a number":    {statefulSetOwner(asIs), "db-x", "", "", ""},
		"StatefulSet, of a longer prefix": {statefulSetOwner(asIs), "db-a-7", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			wantSentence(t, owners.Suspended(test.owner), test.suspended)
			wantSentence(t, owners.Ended(test.owner, test.identity), test.ended)
			wantSentence(t, owners.Abandons(test.owner), test.abandons)
			r := owners.NoNextPod(test.owner, test.identity, nil)
			if (r != nil) != (test.suspended != "" || test.ended != "") {
				t.Errorf("no next pod: %+v", r)
			}
		})
	}
}

// An owner that has all the pods it wants makes no other, also when it was not
// scaled to nothing.
func TestOwnersThatHaveAll(t *testing.T) {
	now := metav1.Now()
	job, rs := jobOwner(asIs), replicaSetOwner(asIs) // two pods are wanted of each
	of := func(o owners.Owner, changes ...func(*corev1.Pod)) corev1.Pod { return *podOf(o.Reference, changes...) }
	ending := func(p *corev1.Pod) { p.DeletionTimestamp = &now }
	done := func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }
	stranger := func(p *corev1.Pod) { p.OwnerReferences[0].UID = "other" }
	set := statefulSetOwner(asIs)
	for name, test := range map[string]struct {
		owner    owners.Owner
		siblings []corev1.Pod
		none     bool
	}{
		"ReplicaSet misses one":            {rs, []corev1.Pod{of(rs)}, false},
		"ReplicaSet has all":               {rs, []corev1.Pod{of(rs), of(rs)}, true},
		"ReplicaSet, one is ending":        {rs, []corev1.Pod{of(rs), of(rs, ending)}, false},
		"ReplicaSet, one is done":          {rs, []corev1.Pod{of(rs), of(rs, done)}, false},
		"ReplicaSet, one is not its own":   {rs, []corev1.Pod{of(rs), of(rs, stranger)}, false},
		"ReplicaSet, one has no owner":     {rs, []corev1.Pod{of(rs), of(owners.Owner{})}, false},
		"Job misses one":                   {job, []corev1.Pod{of(job)}, false},
		"Job has all":                      {job, []corev1.Pod{of(job), of(job)}, true},
		"Job has all that are left to do":  {jobOwner(func(j *batchv1.Job) { j.Status.Succeeded = 3 }), []corev1.Pod{of(job)}, true},
		"Job has nothing left to do":       {jobOwner(func(j *batchv1.Job) { j.Status.Succeeded = 4 }), nil, true},
		"work queue misses one":            {jobOwner(func(j *batchv1.Job) { j.Spec.Completions, j.Status.Succeeded = nil, 0 }), []corev1.Pod{of(job)}, false},
		"work queue that runs dry":         {jobOwner(func(j *batchv1.Job) { j.Spec.Completions = nil }), []corev1.Pod{of(job)}, true},
		"StatefulSet goes by names":        {set, []corev1.Pod{of(set), of(set), of(set)}, false},
		"bare pod, whatever else is there": {owners.Owner{}, []corev1.Pod{of(rs)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := owners.NoNextPod(test.owner, "", test.siblings)
			if (r != nil) != test.none || r != nil && (r.Reason != owners.RefusalOwnerScaled || r.Message == "") {
				t.Errorf("no next pod: %+v, want %v", r, test.none)
			}
		})
	}
}
