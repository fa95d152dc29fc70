package containers

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// clearAdmitted removes what the API server adds at creation from what others say, and
// adds again to the replacement. What it finds there already it refuses, or it counts it
// twice.
func clearAdmitted(spec *corev1.PodSpec, labels map[string]string) {
	// Of the RuntimeClass; another amount than the class has today is refused
	// (k8s.io/kubernetes/plugin/pkg/admission/runtimeclass, setOverhead).
	spec.Overhead = nil
	eachLabelKeys(spec, func(l labelKeys) {
		if *l.selector == nil {
			return
		}
		selector := (*l.selector).DeepCopy()
		for _, key := range *l.match {
			// The value is the one that the label had at creation, whatever it is now. The
			// API server allows the author no requirement with the same key.
			undoMerge(selector, func(e metav1.LabelSelectorRequirement) bool {
				return e.Key == key && e.Operator == metav1.LabelSelectorOpIn && len(e.Values) == 1
			})
		}
		for _, key := range *l.mismatch {
			// The author may have such requirements. One that is there twice is valid.
			undoMerge(selector, func(e metav1.LabelSelectorRequirement) bool {
				value, is := labels[key]
				return is && e.Key == key && e.Operator == metav1.LabelSelectorOpNotIn && slices.Equal(e.Values, []string{value})
			})
		}
		*l.selector = selector
	})
}

// undoMerge removes the last requirement that is asked for: what is merged comes last.
func undoMerge(selector *metav1.LabelSelector, is func(metav1.LabelSelectorRequirement) bool) {
	for i, e := range slices.Backward(selector.MatchExpressions) {
		if is(e) {
			selector.MatchExpressions = slices.Delete(selector.MatchExpressions, i, i+1)
			break
		}
	}
	if len(selector.MatchExpressions) == 0 {
		selector.MatchExpressions = nil
	}
}

// ResolveLabelKeys writes the values of labels into the selectors that would take them
// from there at creation (matchLabelKeys and mismatchLabelKeys), and removes their keys:
// for a pod that is created without these labels, and that goes where a pod with them
// would.
func ResolveLabelKeys(spec *corev1.PodSpec, labels map[string]string) {
	eachLabelKeys(spec, func(l labelKeys) {
		if *l.selector == nil {
			return
		}
		selector := (*l.selector).DeepCopy()
		resolve := func(keys []string, operator metav1.LabelSelectorOperator) (left []string) {
			for _, key := range keys {
				value, is := labels[key]
				if !is {
					left = append(left, key)
					continue
				}
				selector.MatchExpressions = append(selector.MatchExpressions,
					metav1.LabelSelectorRequirement{Key: key, Operator: operator, Values: []string{value}})
			}
			return left
		}
		*l.match = resolve(*l.match, metav1.LabelSelectorOpIn)
		*l.mismatch = resolve(*l.mismatch, metav1.LabelSelectorOpNotIn)
		*l.selector = selector
	})
}

// labelKeys are a selector, and the keys of labels whose values the API server merges
// into it (matchLabelKeys and mismatchLabelKeys, KEP-3633 and KEP-3243).
type labelKeys struct {
	selector        **metav1.LabelSelector
	match, mismatch *[]string
}

// eachLabelKeys visits the selectors into which the API server merges labels
// (k8s.io/kubernetes/pkg/registry/core/pod, mutatePodAffinity and
// mutateTopologySpreadConstraints).
func eachLabelKeys(spec *corev1.PodSpec, visit func(labelKeys)) {
	term := func(t *corev1.PodAffinityTerm) {
		visit(labelKeys{&t.LabelSelector, &t.MatchLabelKeys, &t.MismatchLabelKeys})
	}
	terms := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range required {
			term(&required[i])
		}
		for i := range preferred {
			term(&preferred[i].PodAffinityTerm)
		}
	}
	if a := spec.Affinity; a != nil && a.PodAffinity != nil {
		terms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := spec.Affinity; a != nil && a.PodAntiAffinity != nil {
		terms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	for i := range spec.TopologySpreadConstraints {
		c := &spec.TopologySpreadConstraints[i]
		visit(labelKeys{&c.LabelSelector, &c.MatchLabelKeys, new([]string)})
	}
}
