package simulate

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/utils/ptr"
)

const jobActor = "job"

const (
	// jobBatch is how long changes of pods are gathered (SyncJobBatchPeriod), jobBackoff the
	// first pause after a failure (DefaultJobPodFailureBackOff).
	jobBatch   = time.Second
	jobBackoff = 10 * time.Second
)

// completeJob does what the API server does for a new Job: selector and labels by its UID.
func completeJob(job *batchv1.Job, uid types.UID) {
	labels := map[string]string{batchv1.ControllerUidLabel: string(uid), "controller-uid": string(uid), batchv1.JobNameLabel: job.Name, "job-name": job.Name}
	job.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: string(uid)}}
	for key, value := range labels {
		job.Spec.Template.Labels[key] = value
	}
	job.Spec.Template.Finalizers = []string{batchv1.JobTrackingFinalizer}
}

// syncJobs counts, creates and deletes pods (k8s.io/kubernetes/pkg/controller/job at
// 1.35.4, syncJob), a moment after something changed.
func (w *world) syncJobs() {
	if w.jobsDue {
		return
	}
	w.jobsDue = true
	w.after(w.between(10*time.Millisecond, jobBatch), func() {
		w.jobsDue = false
		w.as(jobActor, func() {
			each(w.store, jobs, w.syncJob)
			w.releaseOrphans()
		})
	})
}

// releaseOrphans takes the finalizer from pods whose Job is gone (syncOrphanPod).
func (w *world) releaseOrphans() {
	each(w.store, pods, func(p *corev1.Pod) {
		c := metav1.GetControllerOf(p)
		if tracked(p) && (c == nil || w.byUID[c.UID] == nil) {
			w.untrack(p)
		}
	})
}

func tracked(p *corev1.Pod) bool { return slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) }

func (w *world) untrack(p *corev1.Pod) {
	change(w, p, false, func(p *corev1.Pod) {
		p.Finalizers = slices.DeleteFunc(p.Finalizers, func(f string) bool { return f == batchv1.JobTrackingFinalizer })
	})
}

func onlyReplaceFailed(job *batchv1.Job) bool {
	return ptr.Deref(job.Spec.PodReplacementPolicy, "") == batchv1.Failed || job.Spec.PodFailurePolicy != nil
}

func isIndexed(job *batchv1.Job) bool {
	return ptr.Deref(job.Spec.CompletionMode, "") == batchv1.IndexedCompletion
}

func indexOf(p *corev1.Pod) int {
	i, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil {
		return -1
	}
	return i
}

// jobCount is what a Job counts of its pods.
type jobCount struct {
	pods, active, succeeded, failed []*corev1.Pod
	terminating                     int
}

func (w *world) countJob(job *batchv1.Job) jobCount {
	c := jobCount{pods: w.claimPods(job, job.Spec.Selector, "batch/v1", func(*corev1.Pod) bool { return true })}
	uncounted := ptr.Deref(job.Status.UncountedTerminatedPods, batchv1.UncountedTerminatedPods{})
	for _, p := range c.pods {
		isActive := !isTerminal(p) && p.DeletionTimestamp == nil
		if isActive {
			c.active = append(c.active, p)
		}
		if p.DeletionTimestamp != nil && !isTerminal(p) {
			c.terminating++
		}
		if !tracked(p) || slices.Contains(uncounted.Succeeded, p.UID) || slices.Contains(uncounted.Failed, p.UID) || isIndexed(job) && indexOf(p) < 0 {
			continue
		}
		switch {
		case p.Status.Phase == corev1.PodSucceeded:
			c.succeeded = append(c.succeeded, p)
		case p.Status.Phase == corev1.PodFailed, !onlyReplaceFailed(job) && p.DeletionTimestamp != nil:
			c.failed = append(c.failed, p)
		}
	}
	return c
}

func (w *world) syncJob(job *batchv1.Job) {
	if hasJobCondition(job.Status.Conditions, batchv1.JobComplete) || hasJobCondition(job.Status.Conditions, batchv1.JobFailed) {
		w.expireJob(job)
		// A finished Job tracks nothing any more (handleSingleOrphanPod).
		for _, p := range w.claimPods(job, job.Spec.Selector, "batch/v1", tracked) {
			w.untrack(p)
		}
		return
	}
	c := w.countJob(job)
	status := job.Status.DeepCopy()
	w.flushUncounted(job, status, c.pods)
	if status.StartTime == nil && !*job.Spec.Suspend {
		status.StartTime = ptr.To(w.stamp())
	}
	counted := w.countedFailures(job, c.failed)
	if counted > 0 {
		w.jobPause[job.UID] = w.now + jobBackoff<<min(int(status.Failed), 5)
		w.at(w.jobPause[job.UID], w.wakeModels)
	}
	for _, p := range c.succeeded {
		status.UncountedTerminatedPods.Succeeded = append(status.UncountedTerminatedPods.Succeeded, p.UID)
	}
	for _, p := range c.failed {
		if _, counts := matchFailurePolicy(job.Spec.PodFailurePolicy, p); counts {
			status.UncountedTerminatedPods.Failed = append(status.UncountedTerminatedPods.Failed, p.UID)
		} else {
			w.untrack(p)
		}
	}
	succeeded := int(status.Succeeded) + len(status.UncountedTerminatedPods.Succeeded)
	failed := int(status.Failed) + len(status.UncountedTerminatedPods.Failed)
	active := len(c.active)
	satisfied := w.owned.flying[job.UID] == 0
	w.failJob(job, status, c, failed)
	target := hasJobCondition(status.Conditions, batchv1.JobFailureTarget)
	isCounted := len(status.UncountedTerminatedPods.Failed)+len(status.UncountedTerminatedPods.Succeeded) == 0
	switch {
	case target:
		for _, p := range c.active {
			w.deleteJobPod(p, false)
		}
		if isCounted && satisfied && active == 0 && c.terminating == 0 {
			setJobCondition(status, batchv1.JobFailed, true, w.stamp())
		}
	case satisfied && job.DeletionTimestamp == nil:
		active = w.manageJob(job, c, succeeded)
		wasSuspended := hasJobCondition(status.Conditions, batchv1.JobSuspended)
		setJobCondition(status, batchv1.JobSuspended, *job.Spec.Suspend, w.stamp())
		if wasSuspended && !*job.Spec.Suspend {
			status.StartTime = ptr.To(w.stamp())
		}
		if succeeded >= int(*job.Spec.Completions) && active == 0 && isCounted {
			setJobCondition(status, batchv1.JobSuccessCriteriaMet, true, w.stamp())
			if c.terminating == 0 {
				setJobCondition(status, batchv1.JobComplete, true, w.stamp())
			}
		}
	}
	status.Active, status.Terminating = int32(active), ptr.To(int32(c.terminating))
	if now := lookup[*batchv1.Job](w.store, jobs, job.Namespace, job.Name); now != nil {
		change(w, now, true, func(j *batchv1.Job) { j.Status = *status })
	}
}

// flushUncounted takes the finalizer from pods that were written down, and counts those
// that have none any more.
func (w *world) flushUncounted(job *batchv1.Job, status *batchv1.JobStatus, all []*corev1.Pod) {
	if status.UncountedTerminatedPods == nil {
		status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	flush := func(uids []types.UID, count *int32, done func(types.UID)) (left []types.UID) {
		for _, uid := range uids {
			i := slices.IndexFunc(all, func(p *corev1.Pod) bool { return p.UID == uid })
			if i >= 0 && tracked(all[i]) {
				done(uid)
				w.untrack(all[i])
				left = append(left, uid)
				continue
			}
			*count++
		}
		return left
	}
	u := status.UncountedTerminatedPods
	u.Succeeded = flush(u.Succeeded, &status.Succeeded, func(uid types.UID) {
		if p, is := w.byUID[uid].(*corev1.Pod); is && isIndexed(job) {
			w.jobIndexes[job.UID] = append(w.jobIndexes[job.UID], indexOf(p))
		}
	})
	u.Failed = flush(u.Failed, &status.Failed, func(types.UID) {})
}

// manageJob makes as many pods active as are wanted, and returns how many then are.
func (w *world) manageJob(job *batchv1.Job, c jobCount, succeeded int) int {
	active := len(c.active)
	if *job.Spec.Suspend {
		for _, p := range c.active {
			w.deleteJobPod(p, true)
		}
		return 0
	}
	wanted := max(0, min(int(*job.Spec.Parallelism), int(*job.Spec.Completions)-succeeded))
	if remove := podsForRemoval(job, c.active, max(0, active-wanted)); len(remove) > 0 {
		for _, p := range remove {
			w.deleteJobPod(p, true)
		}
		return active - len(remove)
	}
	diff := wanted - active
	if onlyReplaceFailed(job) {
		diff -= c.terminating
	}
	if diff <= 0 || w.now < w.jobPause[job.UID] || !w.owned.mayAct(job.UID, w.now) {
		return active
	}
	if !isIndexed(job) {
		for range diff {
			w.send(jobActor, w.owned, job.UID, podOf(job, &job.Spec.Template, "batch/v1", job.Name+"-"))
		}
		return active + diff
	}
	for _, index := range w.pendingIndexes(job, c)[:diff] {
		p := podOf(job, &job.Spec.Template, "batch/v1", fmt.Sprintf("%s-%d-", job.Name, index))
		metav1.SetMetaDataAnnotation(&p.ObjectMeta, batchv1.JobCompletionIndexAnnotation, strconv.Itoa(index))
		metav1.SetMetaDataLabel(&p.ObjectMeta, batchv1.JobCompletionIndexAnnotation, strconv.Itoa(index))
		w.send(jobActor, w.owned, job.UID, p)
	}
	return active + diff
}

// pendingIndexes are those that no pod has (firstPendingIndexes), the lowest first.
func (w *world) pendingIndexes(job *batchv1.Job, c jobCount) (pending []int) {
	taken := slices.Clone(w.jobIndexes[job.UID])
	for _, p := range c.active {
		taken = append(taken, indexOf(p))
	}
	for _, p := range c.succeeded {
		taken = append(taken, indexOf(p))
	}
	if onlyReplaceFailed(job) {
		for _, p := range c.pods {
			if p.DeletionTimestamp != nil && !isTerminal(p) {
				taken = append(taken, indexOf(p))
			}
		}
	}
	for i := range int(*job.Spec.Completions) + len(taken) {
		if !slices.Contains(taken, i) {
			pending = append(pending, i)
		}
	}
	return pending
}

// podsForRemoval are, of an indexed Job, all but one pod of each index, and then the
// first to go (activePodsForRemoval).
func podsForRemoval(job *batchv1.Job, active []*corev1.Pod, atLeast int) (remove []*corev1.Pod) {
	left := slices.Clone(active)
	sort.Sort(controller.ActivePods(left))
	if isIndexed(job) {
		var last []*corev1.Pod
		for at, p := range left {
			// The last of an index in this order stays.
			if slices.ContainsFunc(left[at+1:], func(other *corev1.Pod) bool { return indexOf(other) == indexOf(p) }) {
				remove = append(remove, p)
			} else {
				last = append(last, p)
			}
		}
		left = last
	}
	if missing := atLeast - len(remove); missing > 0 {
		remove = append(remove, left[:missing]...)
	}
	return remove
}

// deleteJobPod deletes a pod; one that is not to be counted loses the finalizer before.
func (w *world) deleteJobPod(p *corev1.Pod, uncounted bool) {
	if uncounted && tracked(p) {
		w.untrack(p)
	}
	_ = w.delete(pods, p.Namespace, p.Name, preconditions{}, nil, false)
}

func setJobCondition(status *batchv1.JobStatus, kind batchv1.JobConditionType, is bool, now metav1.Time) {
	value := corev1.ConditionFalse
	if is {
		value = corev1.ConditionTrue
	}
	i := slices.IndexFunc(status.Conditions, func(c batchv1.JobCondition) bool { return c.Type == kind })
	switch {
	case i >= 0 && status.Conditions[i].Status != value:
		status.Conditions[i].Status, status.Conditions[i].LastTransitionTime = value, now
	case i < 0 && is:
		status.Conditions = append(status.Conditions, batchv1.JobCondition{Type: kind, Status: value, LastTransitionTime: now})
	}
}
