package simulation

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"
)

// labelPair is a label that every pod has which an anti-affinity term matches.
// The zero value stands for a term that asks for no such label.
type labelPair struct{ key, value string }

// repelled lists, without repetition, one label for every required
// anti-affinity term of the pods.
func repelled(pods []fwk.PodInfo) []labelPair {
	var pairs []labelPair
	for _, pod := range pods {
		for _, term := range pod.GetRequiredAntiAffinityTerms() {
			if pair := neededLabel(term); !slices.Contains(pairs, pair) {
				pairs = append(pairs, pair)
			}
		}
	}
	return pairs
}

func neededLabel(term fwk.AffinityTerm) labelPair {
	requirements, _ := term.Selector.Requirements()
	for _, r := range requirements {
		if values := r.ValuesUnsorted(); (r.Operator() == "in" || r.Operator() == "=") && len(values) == 1 {
			return labelPair{r.Key(), values[0]}
		}
	}
	return labelPair{}
}

// repellers finds the nodes whose pods may keep a pod away. The scheduler's
// plugin looks at every term of every pod of the cluster for each pod that it is
// asked about; almost none of them concern it.
type repellers struct {
	byLabel map[labelPair][]int
	// changed are nodes whose pods are not those of the index any more.
	changed map[int]bool
}

func newRepellers(nodes []*baseNode) *repellers {
	r := &repellers{byLabel: map[labelPair][]int{}, changed: map[int]bool{}}
	for i, node := range nodes {
		for _, pair := range node.repels {
			r.byLabel[pair] = append(r.byLabel[pair], i)
		}
	}
	return r
}

// concerning lists the nodes, in order, that may have a term which matches the
// pod.
func (r *repellers) concerning(pod *corev1.Pod) []int {
	found := slices.Clone(r.byLabel[labelPair{}])
	for key, value := range pod.Labels {
		found = append(found, r.byLabel[labelPair{key, value}]...)
	}
	for i := range r.changed {
		found = append(found, i)
	}
	slices.Sort(found)
	return slices.Compact(found)
}
