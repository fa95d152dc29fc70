package owners_test

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// The API server does not find the label that is left out, and would leave its value out
// of the selectors that take it from there: pods of all revisions would be counted.
func TestSelectorsKnowTheLabelThatIsLeftOut(t *testing.T) {
	o := replicaSetOwner(func(rs *appsv1.ReplicaSet) {
		rs.Spec.Selector.MatchLabels = map[string]string{"app": "web", "pod-template-hash": "abc"}
	})
	pod := podOf(nil, func(p *corev1.Pod) {
		p.Labels = map[string]string{"app": "web", "pod-template-hash": "abc"}
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, MatchLabelKeys: []string{"pod-template-hash", "app"},
		}}
	})
	got := owners.Unmatched(pod, o).Spec.TopologySpreadConstraints[0]
	want := []metav1.LabelSelectorRequirement{{Key: "pod-template-hash", Operator: metav1.LabelSelectorOpIn, Values: []string{"abc"}}}
	if !equality.Semantic.DeepEqual(got.LabelSelector.MatchExpressions, want) || !slices.Equal(got.MatchLabelKeys, []string{"app"}) {
		t.Errorf("selector %v with keys %v, want %v with the other key", got.LabelSelector, got.MatchLabelKeys, want)
	}
	if before := pod.Spec.TopologySpreadConstraints[0]; len(before.MatchLabelKeys) != 2 || len(before.LabelSelector.MatchExpressions) > 0 {
		t.Errorf("the pod that was given is changed: %+v", before)
	}
}

func TestOffered(t *testing.T) {
	o := replicaSetOwner(asIs)
	pod := owners.Unmatched(podOf(nil, func(p *corev1.Pod) { p.Labels = map[string]string{"app": "web"} }), o)
	offered := owners.Offered(pod, o)
	if !owners.IsAdopted(offered, o) || !owners.HasHighestDeletionCost(offered) || owners.HasHighestDeletionCost(pod) || owners.HasHighestDeletionCost(owners.WithoutDeletionCost(offered)) {
		t.Errorf("offered with labels %v and annotations %v", offered.Labels, offered.Annotations)
	}
	for name, test := range map[string]struct {
		change func(rs *appsv1.ReplicaSet, p *corev1.Pod)
		want   bool
	}{
		"taken":             {func(*appsv1.ReplicaSet, *corev1.Pod) {}, true},
		"not taken":         {func(_ *appsv1.ReplicaSet, p *corev1.Pod) { p.OwnerReferences = nil }, false},
		"one too many":      {func(rs *appsv1.ReplicaSet, _ *corev1.Pod) { rs.Status.Replicas++ }, false},
		"not looked at yet": {func(rs *appsv1.ReplicaSet, _ *corev1.Pod) { rs.Generation++ }, false},
		"not one of its":    {func(rs *appsv1.ReplicaSet, p *corev1.Pod) { p.OwnerReferences, p.Labels = nil, nil }, true},
		"being deleted": {func(rs *appsv1.ReplicaSet, p *corev1.Pod) {
			p.OwnerReferences, rs.DeletionTimestamp = nil, &metav1.Time{}
		}, true},
	} {
		o := replicaSetOwner(asIs)
		rs, taken := o.ReplicaSet, offered.DeepCopy()
		taken.OwnerReferences = []metav1.OwnerReference{*o.Reference}
		test.change(rs, taken)
		if got := owners.HasChosen(taken, o); got != test.want {
			t.Errorf("%s: chosen %v, want %v", name, got, test.want)
		}
	}
	if !owners.HasChosen(offered, without(replicaSetOwner(asIs))) {
		t.Error("a ReplicaSet that is gone is waited for")
	}
}

func TestGivesWay(t *testing.T) {
	pod := podOf(nil)
	marked := owners.WithLowestDeletionCost(pod)
	if !owners.HasLowestDeletionCost(marked) || owners.HasLowestDeletionCost(pod) || owners.HasLowestDeletionCost(owners.WithoutDeletionCost(marked)) {
		t.Errorf("marked %v, unmarked %v", marked.Annotations, owners.WithoutDeletionCost(marked).Annotations)
	}
}
