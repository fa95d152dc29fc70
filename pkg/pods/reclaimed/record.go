// Package record keeps, on a pod that was resized in place, what the pod asked
// for before. It must not call an API server, read a clock or log.
package reclaimed

import (
	"encoding/json"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Record is the content of the annotation v1alpha1.ReclaimedAnnotation.
type Record struct {
	// Containers that were resized, by name.
	Containers map[string]Change `json:"containers,omitempty"`
	// Pod is for pod-level resources; nil where they are as they were.
	Pod *Change `json:"pod,omitempty"`
	// Skipped says why the pod is not resized any more; empty when it may be.
	Skipped string `json:"skipped,omitempty"`
}

// Change holds the CPU and memory that were changed, and nothing else.
type Change struct {
	Original corev1.ResourceRequirements `json:"original"`
	Resized  corev1.ResourceRequirements `json:"resized"`
	// Before is there from before the resize until after it, and is what was found: a
	// crash in between leaves Before or Resized.
	Before *corev1.ResourceRequirements `json:"before,omitempty"`
	// TookMilli marks a running container, of which a thousandth of a CPU was taken
	// so that the kubelet looks at its pod again.
	TookMilli bool `json:"tookMilli,omitempty"`
}

// Of reads the record of a pod; a pod without one has an empty record.
func Of(pod *corev1.Pod) (Record, error) {
	var r Record
	text := pod.Annotations[v1alpha1.ReclaimedAnnotation]
	if text == "" {
		return r, nil
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return Record{}, fmt.Errorf("annotation %s of pod %s/%s: %w", v1alpha1.ReclaimedAnnotation, pod.Namespace, pod.Name, err)
	}
	return r, nil
}

// IsEmpty reports whether there is nothing to remember.
func (r Record) IsEmpty() bool {
	return len(r.Containers) == 0 && r.Pod == nil && r.Skipped == ""
}

// Write puts the record on a pod, or takes it away when it is empty.
func (r Record) Write(pod *corev1.Pod) error {
	if r.IsEmpty() {
		delete(pod.Annotations, v1alpha1.ReclaimedAnnotation)
		return nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("writing what pod %s/%s asked for: %w", pod.Namespace, pod.Name, err)
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[v1alpha1.ReclaimedAnnotation] = string(text)
	return nil
}

// Clone returns a record that can be changed alone.
func (r Record) Clone() Record {
	r.Containers = maps.Clone(r.Containers)
	if r.Containers == nil {
		r.Containers = map[string]Change{}
	}
	return r
}

// Original returns the pod as its author made it: with the resources from its
// record, and without the record. A pod that was never resized is returned
// itself. What another client has set since then stays.
func Original(pod *corev1.Pod) (*corev1.Pod, error) {
	r, err := Of(pod)
	if err != nil || r.IsEmpty() {
		return pod, err
	}
	pod = pod.DeepCopy()
	delete(pod.Annotations, v1alpha1.ReclaimedAnnotation)
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if change, resized := r.Containers[c.Name]; resized && change.Explains(c.Resources) {
			Set(&c.Resources, change.Original)
		}
	}
	if r.Pod != nil && pod.Spec.Resources != nil && r.Pod.Explains(*pod.Spec.Resources) {
		Set(pod.Spec.Resources, r.Pod.Original)
	}
	return pod, nil
}

// Explains reports whether resources are what this change, about to be done or done,
// makes of the original. All else another client has set: also the original, once the
// change is done.
func (c Change) Explains(found corev1.ResourceRequirements) bool {
	return c.matches(found, c.Resized) || c.Before != nil && c.matches(found, *c.Before)
}

// matches compares the amounts that may change.
func (c Change) matches(found, wanted corev1.ResourceRequirements) bool {
	same := func(names, found, wanted corev1.ResourceList) bool {
		for name := range names {
			if amount, is := found[name]; !is || amount.Cmp(wanted[name]) != 0 {
				return false
			}
		}
		return true
	}
	return same(c.Original.Requests, found.Requests, wanted.Requests) && same(c.Original.Limits, found.Limits, wanted.Limits)
}

// Pending returns the change as it is written down before resources are resized to
// what is wanted. Where they are so already, there is nothing pending.
func (c Change) Pending(found, wanted corev1.ResourceRequirements) Change {
	c.Resized, c.Before = c.named(wanted), nil
	if !c.matches(found, wanted) {
		c.Before = new(c.named(found))
	}
	return c
}

// named returns of resources the amounts that may change.
func (c Change) named(resources corev1.ResourceRequirements) corev1.ResourceRequirements {
	pick := func(names, from corev1.ResourceList) corev1.ResourceList {
		if names == nil {
			return nil
		}
		picked := corev1.ResourceList{}
		for name := range names {
			if amount, is := from[name]; is {
				picked[name] = amount.DeepCopy()
			}
		}
		return picked
	}
	return corev1.ResourceRequirements{Requests: pick(c.Original.Requests, resources.Requests), Limits: pick(c.Original.Limits, resources.Limits)}
}

// Set copies the amounts that are named into resources and leaves all others.
func Set(resources *corev1.ResourceRequirements, amounts corev1.ResourceRequirements) {
	set := func(list *corev1.ResourceList, amounts corev1.ResourceList) {
		for name, amount := range amounts {
			if *list == nil {
				*list = corev1.ResourceList{}
			}
			(*list)[name] = amount.DeepCopy()
		}
	}
	set(&resources.Requests, amounts.Requests)
	set(&resources.Limits, amounts.Limits)
}
