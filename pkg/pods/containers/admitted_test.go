package containers_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	podregistry "k8s.io/kubernetes/pkg/registry/core/pod"

	. "github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// create does to a pod what the API server does at creation: defaults, what its strategy
// adds, and validation. It returns what is stored, in the state in which the pod was.
func create(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	stored, problems := tryCreate(t, pod)
	for _, problem := range problems {
		t.Errorf("the API server refuses pod %s: %s", pod.Name, problem)
	}
	return stored
}

func tryCreate(t *testing.T, pod *corev1.Pod) (stored *corev1.Pod, problems []string) {
	t.Helper()
	pod = pod.DeepCopy()
	pod.Spec.TerminationGracePeriodSeconds = new(int64(1))
	legacyscheme.Scheme.Default(pod)
	internal := &core.Pod{}
	if err := legacyscheme.Scheme.Convert(pod, internal, nil); err != nil {
		t.Fatal(err)
	}
	podregistry.Strategy.PrepareForCreate(context.Background(), internal)
	for _, problem := range podregistry.Strategy.Validate(context.Background(), internal) {
		problems = append(problems, problem.Error())
	}
	stored = &corev1.Pod{}
	if err := legacyscheme.Scheme.Convert(internal, stored, nil); err != nil {
		t.Fatal(err)
	}
	stored.Status = pod.Status
	return stored, problems
}

func selector(role string, more ...metav1.LabelSelectorRequirement) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"role": role}, MatchExpressions: more}
}

// keyed is a pod whose selectors take values from its labels, in all places that have
// such keys.
func keyed() *corev1.Pod {
	return MakePod("tenant").Label("tenant", "a").Label("version", "1").Container("main", Running()).With(func(p *corev1.Pod) {
		mine := metav1.LabelSelectorRequirement{Key: "tenant", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"b"}}
		term := func() corev1.PodAffinityTerm {
			return corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: selector("x"), MatchLabelKeys: []string{"version", "tenant", "absent"}}
		}
		// The author says the same as the merge does, and something after it.
		also := metav1.LabelSelectorRequirement{Key: "tenant", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"a"}}
		last := metav1.LabelSelectorRequirement{Key: "zone", Operator: metav1.LabelSelectorOpExists}
		not := corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: selector("x", mine, also, last), MismatchLabelKeys: []string{"tenant", "absent"}, MatchLabelKeys: []string{"version"}}
		p.Spec.Affinity = &corev1.Affinity{
			PodAffinity: &corev1.PodAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution:  []corev1.PodAffinityTerm{not},
				PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: term()}},
			},
			PodAntiAffinity: &corev1.PodAntiAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution:  []corev1.PodAffinityTerm{term(), {TopologyKey: corev1.LabelHostname, LabelSelector: selector("y", mine)}},
				PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: not}},
			},
		}
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{
			{MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: selector("x", mine), MatchLabelKeys: []string{"version"}},
			{MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: selector("y")},
		}
	}).Obj()
}

// The API server merges labels into selectors, and refuses a pod that brings the merge
// with it. A copy has the selectors of its original once it is stored, again and again.
func TestMergedLabelKeysAreNotMergedTwice(t *testing.T) {
	stored := create(t, keyed())
	want := stored.Spec.Affinity
	if len(want.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].LabelSelector.MatchExpressions) != 2 {
		t.Fatal("nothing was merged: this test shows nothing")
	}
	if _, problems := tryCreate(t, stored); len(problems) == 0 {
		t.Fatal("the API server accepts the stored pod: this test shows nothing")
	}
	for range 2 {
		stored.Spec.NodeName, stored.Status = "a", keyed().Status
		replacement := create(t, build(t, stored, options))
		if diff := cmp.Diff(want.PodAffinity, replacement.Spec.Affinity.PodAffinity); diff != "" {
			t.Errorf("affinity (-original +replacement):\n%s", diff)
		}
		if diff := cmp.Diff(want.PodAntiAffinity, replacement.Spec.Affinity.PodAntiAffinity); diff != "" {
			t.Errorf("anti-affinity (-original +replacement):\n%s", diff)
		}
		if diff := cmp.Diff(stored.Spec.TopologySpreadConstraints, replacement.Spec.TopologySpreadConstraints); diff != "" {
			t.Errorf("spread (-original +replacement):\n%s", diff)
		}
		stored = replacement
	}
}

// The label has another value now than at creation: the replacement is merged with the
// value of today.
func TestALabelThatWasChangedIsMergedAsItIsToday(t *testing.T) {
	stored := create(t, keyed())
	stored.Labels["version"], stored.Spec.NodeName = "2", "a"
	replacement := create(t, build(t, stored, options))
	got := replacement.Spec.TopologySpreadConstraints[0].LabelSelector.MatchExpressions
	want := []metav1.LabelSelectorRequirement{
		{Key: "tenant", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"b"}}, {Key: "version", Operator: metav1.LabelSelectorOpIn, Values: []string{"2"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What the planner asks about is not created, so nothing is merged into it.
func TestAnImaginedReplacementKeepsWhatTheAPIServerAdded(t *testing.T) {
	stored := create(t, keyed())
	stored.Spec.NodeName, stored.Spec.Overhead = "a", Amounts("10m", "16Mi")
	imagined, created := build(t, stored, containers.ReplacementOptions{}), build(t, stored, options)
	if !equality.Semantic.DeepEqual(imagined.Spec.Affinity.PodAntiAffinity, stored.Spec.Affinity.PodAntiAffinity) ||
		!equality.Semantic.DeepEqual(imagined.Spec.TopologySpreadConstraints, stored.Spec.TopologySpreadConstraints) {
		t.Error("the selectors of the imagined replacement are others")
	}
	if len(imagined.Spec.Overhead) != 2 || created.Spec.Overhead != nil {
		t.Errorf("overhead %v, and %v of the created one, whose class sets it", imagined.Spec.Overhead, created.Spec.Overhead)
	}
}

// The placeholder does not have the labels, and goes where the pod would.
func TestAPlaceholderHasTheMergedSelectors(t *testing.T) {
	stored := create(t, keyed())
	stored.Spec.NodeName = "a"
	replacement := build(t, stored, options)
	before := replacement.DeepCopy()
	placeholder := create(t, containers.BuildPlaceholder(replacement, "h", "pause", nil, nil))
	expressions := func(p *corev1.Pod) (all [][]metav1.LabelSelectorRequirement) {
		for _, term := range p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			all = append(all, term.LabelSelector.MatchExpressions)
		}
		for _, constraint := range p.Spec.TopologySpreadConstraints {
			all = append(all, constraint.LabelSelector.MatchExpressions)
		}
		return all
	}
	if diff := cmp.Diff(expressions(stored), expressions(placeholder)); diff != "" {
		t.Errorf("selectors (-original +placeholder):\n%s", diff)
	}
	if diff := cmp.Diff(before, replacement); diff != "" {
		t.Errorf("the replacement was changed:\n%s", diff)
	}
}
