package decide

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/reclaimed"
)

// Decision is what to do about one pod, in this order: write Remember, resize,
// write Keep. Doing it again, or after a crash in between, does no harm. Remember says
// of every change that is about to be made what is found, and Keep does not: so what
// a crash has left is not taken for what another client has set.
type Decision struct {
	// Remember is the record that must be on the pod before it is resized.
	Remember reclaimed.Record
	// Resized is the pod with other resources; nil when they are as they should be.
	Resized *corev1.Pod
	// Keep is the record once the pod is resized.
	Keep reclaimed.Record
	// Shrunk and Restored are the names of containers.
	Shrunk, Restored []string
	// Why is a sentence that says why a pod is not touched though it might be.
	Why string
}

// Facts are what the pod itself does not tell.
type Facts struct {
	// MayShrink allows to shrink containers. Those that were shrunk and start again
	// get back what they had in any case.
	MayShrink bool
	// StartedAgain names containers that were started after they had finished. The
	// API server does not let a kubelet report that of a container that, by its
	// policy, would not start again: its status stays what it was.
	StartedAgain map[string]bool
}

// Decide looks at a pod. It fails when the record on the pod cannot be read.
func Decide(pod *corev1.Pod, facts Facts) (Decision, error) {
	old, err := reclaimed.Of(pod)
	if err != nil {
		return Decision{}, err
	}
	stay := Decision{Remember: old, Keep: old}
	if stay.Why = notResizable(pod); stay.Why != "" {
		return stay, nil
	}
	if why := rollbackReason(pod, old, facts); why != "" {
		return rollBack(pod, old, why), nil
	}
	finished, _ := containers.Finished(pod)
	if d, needed := restore(pod, old, finished); needed {
		return d, nil
	}
	if !facts.MayShrink || old.Skipped != "" {
		stay.Why = old.Skipped
		return stay, nil
	}
	return shrink(pod, old, finished), nil
}

// Skip is the record of a pod that the API server does not let us shrink:
// nothing more is tried, and what was shrunk before can still be given back.
func Skip(pod *corev1.Pod, why string) (reclaimed.Record, error) {
	old, err := reclaimed.Of(pod)
	old.Skipped = why
	return old, err
}

// notResizable follows ValidatePodResize of the API server (1.35).
func notResizable(pod *corev1.Pod) string {
	_, static := pod.Annotations[corev1.MirrorPodAnnotationKey]
	switch {
	case pod.DeletionTimestamp != nil:
		return "the pod is being deleted"
	case pod.Spec.NodeName == "" || pod.Status.Phase != corev1.PodRunning:
		return "the pod does not run"
	case static:
		return "a static pod cannot be resized"
	case pod.Spec.OS != nil && pod.Spec.OS.Name == corev1.Windows:
		return "a Windows pod cannot be resized"
	}
	for i := range pod.Status.ContainerStatuses {
		if status := &pod.Status.ContainerStatuses[i]; status.State.Running != nil {
			if status.Resources == nil {
				return "the pod's node does not resize pods"
			}
			break
		}
	}
	return ""
}

// rollbackReason says why all is given back and nothing more is taken; "" when
// nothing speaks against it: a container started again against its policy, the
// kubelet cannot do a resize of ours, or another client resizes the pod as well.
// Two that resize the same pod would not end.
func rollbackReason(pod *corev1.Pod, old reclaimed.Record, facts Facts) string {
	isResized := len(old.Containers) > 0 || old.Pod != nil
	if isResized || old.Skipped == "" {
		for _, name := range slices.Sorted(maps.Keys(facts.StartedAgain)) {
			return fmt.Sprintf("container %s has started again after it had finished", name)
		}
	}
	if !isResized {
		return ""
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodResizePending && c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonInfeasible {
			return "the kubelet cannot resize the pod: " + c.Message
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if change, resized := old.Containers[c.Name]; resized && !change.Explains(c.Resources) {
			return fmt.Sprintf("another client has resized container %s", c.Name)
		}
	}
	if old.Pod != nil && (pod.Spec.Resources == nil || !old.Pod.Explains(*pod.Spec.Resources)) {
		return "another client has resized the pod"
	}
	return ""
}

// rollBack gives back all that is still as we left it.
func rollBack(pod *corev1.Pod, old reclaimed.Record, why string) Decision {
	d := Decision{Keep: reclaimed.Record{Skipped: why}, Why: why}
	want := pod.DeepCopy()
	for i := range want.Spec.Containers {
		c := &want.Spec.Containers[i]
		if change, resized := old.Containers[c.Name]; resized && change.Explains(c.Resources) {
			reclaimed.Set(&c.Resources, change.Original)
			d.Restored = append(d.Restored, c.Name)
		}
	}
	if old.Pod != nil && want.Spec.Resources != nil && old.Pod.Explains(*want.Spec.Resources) {
		reclaimed.Set(want.Spec.Resources, old.Pod.Original)
	}
	d.resizeTo(want, pod)
	d.Remember = pending(pod, want, old, d.Keep)
	d.Remember.Skipped = old.Skipped
	return d
}

// pending is the record that must be on a pod before it becomes what is wanted: of
// every change that is kept or undone, what is found and what will be. It leaves out
// what was undone before, and leaves what another client has set as it is recorded,
// since that is why.
func pending(pod, want *corev1.Pod, old, keep reclaimed.Record) reclaimed.Record {
	record := keep.Clone()
	for i := range pod.Spec.Containers {
		found, wanted := pod.Spec.Containers[i], want.Spec.Containers[i]
		if change, kept := keep.Containers[found.Name]; kept {
			record.Containers[found.Name] = change.Pending(found.Resources, wanted.Resources)
		} else if change, undone := old.Containers[found.Name]; undone {
			if c := undoing(change, found.Resources, wanted.Resources); c != nil {
				record.Containers[found.Name] = *c
			}
		}
	}
	if pod.Spec.Resources == nil || want.Spec.Resources == nil {
		return record
	}
	if keep.Pod != nil {
		record.Pod = new(keep.Pod.Pending(*pod.Spec.Resources, *want.Spec.Resources))
	} else if old.Pod != nil {
		record.Pod = undoing(*old.Pod, *pod.Spec.Resources, *want.Spec.Resources)
	}
	return record
}

// undoing is the record of a change that is undone; nil when it has been.
func undoing(change reclaimed.Change, found, wanted corev1.ResourceRequirements) *reclaimed.Change {
	if !change.Explains(found) {
		return &change
	}
	if change = change.Pending(found, wanted); change.Before == nil {
		return nil
	}
	return &change
}

// restore gives containers that start again what they had. The running one, of which
// a thousandth of a CPU was taken, follows when no container is shrunk any more.
func restore(pod *corev1.Pod, old reclaimed.Record, finished map[string]bool) (Decision, bool) {
	keep := old.Clone()
	var d Decision
	want := pod.DeepCopy()
	giveBack := func(wanted func(*corev1.Container, reclaimed.Change) bool) {
		for i := range want.Spec.Containers {
			c := &want.Spec.Containers[i]
			if change, resized := keep.Containers[c.Name]; resized && wanted(c, change) {
				reclaimed.Set(&c.Resources, change.Original)
				delete(keep.Containers, c.Name)
				d.Restored = append(d.Restored, c.Name)
			}
		}
	}
	giveBack(func(c *corev1.Container, change reclaimed.Change) bool { return !change.TookMilli && !finished[c.Name] })
	if len(d.Restored) == 0 {
		return Decision{}, false
	}
	if !hasShrunk(keep) {
		giveBack(func(*corev1.Container, reclaimed.Change) bool { return true })
	}
	sharePodLevel(want, &keep)
	settle(want, &keep)
	d.Remember, d.Keep = pending(pod, want, old, keep), keep
	d.resizeTo(want, pod)
	return d, true
}

// settle records what is wanted as done. Of a container from which nothing is taken
// any more, nothing is kept.
func settle(want *corev1.Pod, keep *reclaimed.Record) {
	for i := range want.Spec.Containers {
		c := &want.Spec.Containers[i]
		change, kept := keep.Containers[c.Name]
		if !kept {
			continue
		}
		if change = change.Pending(c.Resources, c.Resources); sameAmounts(change.Original, change.Resized) {
			delete(keep.Containers, c.Name)
		} else {
			keep.Containers[c.Name] = change
		}
	}
	if keep.Pod != nil && want.Spec.Resources != nil {
		keep.Pod = new(keep.Pod.Pending(*want.Spec.Resources, *want.Spec.Resources))
	}
}

func hasShrunk(r reclaimed.Record) bool {
	for _, change := range r.Containers {
		if !change.TookMilli {
			return true
		}
	}
	return false
}

// shrink takes from finished containers what they do not need.
func shrink(pod *corev1.Pod, old reclaimed.Record, finished map[string]bool) Decision {
	// A pod of which all containers have finished is over in a moment.
	if len(finished) == 0 || len(finished) == len(pod.Spec.Containers) {
		return Decision{Remember: old, Keep: old}
	}
	class := pods.QOSClass(pod)
	if class == corev1.PodQOSGuaranteed && hasPodLevel(&pod.Spec) {
		return Decision{Remember: old, Keep: old, Why: "the limits of the pod are shared by its containers, and its quality of service needs requests to be the same"}
	}
	keep := old.Clone()
	want := pod.DeepCopy()
	var d Decision
	for i := range want.Spec.Containers {
		c := &want.Spec.Containers[i]
		if !finished[c.Name] {
			continue
		}
		before, known := keep.Containers[c.Name]
		change, ok := shrinkContainer(c, before, known, class)
		if !ok {
			continue
		}
		keep.Containers[c.Name] = change
		// What a crash kept from being resized is so now.
		if !sameAmounts(withAmounts(c.Resources, change.Resized), c.Resources) {
			d.Shrunk = append(d.Shrunk, c.Name)
			reclaimed.Set(&c.Resources, change.Resized)
		}
	}
	if len(d.Shrunk) > 0 && pod.Status.Resources != nil {
		takeOneMilli(want, &keep, class)
	}
	sharePodLevel(want, &keep)
	settle(want, &keep)
	d.Remember, d.Keep = pending(pod, want, old, keep), keep
	d.resizeTo(want, pod)
	return d
}

func (d *Decision) resizeTo(want, pod *corev1.Pod) {
	same := samePodLevel(want.Spec.Resources, pod.Spec.Resources) &&
		slices.EqualFunc(want.Spec.Containers, pod.Spec.Containers, func(a, b corev1.Container) bool {
			return sameAmounts(a.Resources, b.Resources)
		})
	if !same {
		d.Resized = want
	}
}
