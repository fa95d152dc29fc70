package owners_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

func TestAdoption(t *testing.T) {
	for name, test := range map[string]struct {
		selector map[string]string
		dropped  string
	}{
		"of a Deployment": {map[string]string{"app": "web", "pod-template-hash": "abc"}, "pod-template-hash"},
		"of a Rollout":    {map[string]string{"app": "web", "rollouts-pod-template-hash": "abc"}, "rollouts-pod-template-hash"},
		"of its own":      {map[string]string{"zone": "z", "app": "web"}, "app"},
	} {
		t.Run(name, func(t *testing.T) {
			o := replicaSetOwner(func(rs *appsv1.ReplicaSet) { rs.Spec.Selector.MatchLabels = test.selector })
			pod := podOf(nil, func(p *corev1.Pod) { p.Labels = map[string]string{"more": "x"} })
			for key, value := range test.selector {
				pod.Labels[key] = value
			}
			apart := owners.Unmatched(pod, o)
			if _, has := apart.Labels[test.dropped]; has || len(apart.Labels) != len(pod.Labels)-1 || owners.IsAdopted(apart, o) {
				t.Errorf("labels %v, want all but %s", apart.Labels, test.dropped)
			}
			if again := owners.Adopted(apart, o); !equality.Semantic.DeepEqual(again, pod) || !owners.IsAdopted(again, o) {
				t.Errorf("labels %v, want %v", again.Labels, pod.Labels)
			}
		})
	}
}

func TestGivesWay(t *testing.T) {
	pod := podOf(nil)
	marked := owners.WithLowestDeletionCost(pod)
	if !owners.HasLowestDeletionCost(marked) || owners.HasLowestDeletionCost(pod) || owners.HasLowestDeletionCost(owners.WithoutDeletionCost(marked)) {
		t.Errorf("marked %v, unmarked %v", marked.Annotations, owners.WithoutDeletionCost(marked).Annotations)
	}
}
