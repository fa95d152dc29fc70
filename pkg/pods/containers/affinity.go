package containers

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// moveAffinity returns an affinity with the requirement to avoid the source, and to use
// the target, where there is one; what an earlier migration of the pod required is gone.
// Terms are alternatives, so every one of them gets the requirement.
func moveAffinity(of *corev1.Affinity, pod *corev1.Pod, source, targetNode string) *corev1.Affinity {
	affinity := of.DeepCopy()
	if affinity == nil {
		affinity = &corev1.Affinity{}
	}
	if affinity.NodeAffinity == nil {
		affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	var terms []corev1.NodeSelectorTerm
	if required := affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
		terms = withoutOurs(pod, required.NodeSelectorTerms)
	}
	requirements := nodeRequirements(source, targetNode)
	if len(terms)+len(requirements) == 0 {
		// Every node will do, and a term without requirements matches none.
		affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = nil
		return affinity
	}
	if len(terms) == 0 {
		terms = []corev1.NodeSelectorTerm{{MatchFields: requirements}}
	} else {
		for i := range terms {
			// A term without requirements matches no node, and must not begin to.
			if !isEmptyTerm(terms[i]) {
				terms[i].MatchFields = append(terms[i].MatchFields, requirements...)
			}
		}
	}
	affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: terms}
	return affinity
}

func nodeRequirements(source, target string) []corev1.NodeSelectorRequirement {
	var requirements []corev1.NodeSelectorRequirement
	if source != "" {
		requirements = append(requirements, onNodeName(corev1.NodeSelectorOpNotIn, source))
	}
	if target != "" {
		requirements = append(requirements, onNodeName(corev1.NodeSelectorOpIn, target))
	}
	return requirements
}

func onNodeName(operator corev1.NodeSelectorOperator, node string) corev1.NodeSelectorRequirement {
	return corev1.NodeSelectorRequirement{Key: metav1.ObjectNameField, Operator: operator, Values: []string{node}}
}

// withoutOurs removes what an earlier migration added: its source may be
// used again, and its target is the node that the pod leaves now.
func withoutOurs(pod *corev1.Pod, terms []corev1.NodeSelectorTerm) []corev1.NodeSelectorTerm {
	if pod.Labels[v1alpha1.MigrationUIDLabel] == "" {
		return terms
	}
	ours := nodeRequirements(pod.Annotations[v1alpha1.SourceNodeAnnotation], pod.Annotations[v1alpha1.RequiredNodeAnnotation])
	var left []corev1.NodeSelectorTerm
	for _, term := range terms {
		before := len(term.MatchFields)
		term.MatchFields = slices.DeleteFunc(term.MatchFields, func(r corev1.NodeSelectorRequirement) bool {
			return slices.ContainsFunc(ours, func(o corev1.NodeSelectorRequirement) bool {
				return r.Key == o.Key && r.Operator == o.Operator && slices.Equal(r.Values, o.Values)
			})
		})
		if len(term.MatchFields) < before && isEmptyTerm(term) {
			continue
		}
		left = append(left, term)
	}
	return left
}

func isEmptyTerm(term corev1.NodeSelectorTerm) bool {
	return len(term.MatchExpressions) == 0 && len(term.MatchFields) == 0
}
