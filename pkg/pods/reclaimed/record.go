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

// Explains reports whether resources are what this change, half done or done,
// makes of the original: no other client has set them.
func (c Change) Explains(found corev1.ResourceRequirements) bool {
	within := func(found, least, most corev1.ResourceList) bool {
		for name := range most {
			amount, is := found[name]
			if !is || amount.Cmp(least[name]) < 0 || amount.Cmp(most[name]) > 0 {
				return false
			}
		}
		return true
	}
	return within(found.Requests, c.Resized.Requests, c.Original.Requests) && within(found.Limits, c.Resized.Limits, c.Original.Limits)
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
