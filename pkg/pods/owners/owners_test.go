package owners_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

const (
	jobIndex      = "batch.kubernetes.io/job-completion-index"
	jobTracking   = "batch.kubernetes.io/job-tracking"
	jobController = "batch.kubernetes.io/controller-uid"
)

func reference(apiVersion, kind, name string) *metav1.OwnerReference {
	return &metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name, UID: "uid-of-owner", Controller: new(true), BlockOwnerDeletion: new(true)}
}

func podOf(owner *metav1.OwnerReference, changes ...func(*corev1.Pod)) *corev1.Pod {
	b := fixture.MakePod("p").Node("a").Container("c", fixture.Running())
	if owner != nil {
		b.With(func(p *corev1.Pod) { p.OwnerReferences = []metav1.OwnerReference{*owner} })
	}
	for _, change := range changes {
		b.With(change)
	}
	return b.Obj()
}

func annotated(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { metav1.SetMetaDataAnnotation(&p.ObjectMeta, key, value) }
}

func TestMethod(t *testing.T) {
	for name, test := range map[string]struct {
		owner                 *metav1.OwnerReference
		startFirst, stopFirst v1alpha1.ReplacementMethod
		stops                 bool
	}{
		"none":             {nil, v1alpha1.MethodCreate, v1alpha1.MethodCreate, false},
		"ReplicaSet":       {reference("apps/v1", "ReplicaSet", "web"), v1alpha1.MethodAdopt, v1alpha1.MethodRelease, false},
		"Job":              {reference("batch/v1", "Job", "sum"), v1alpha1.MethodRelease, v1alpha1.MethodRelease, false},
		"StatefulSet":      {reference("apps/v1", "StatefulSet", "db"), v1alpha1.MethodRecreate, v1alpha1.MethodRecreate, true},
		"other":            {reference("example.org/v1", "Trainer", "x"), v1alpha1.MethodRecreate, v1alpha1.MethodRecreate, true},
		"of another group": {reference("batch.example.org/v1", "Job", "x"), v1alpha1.MethodRecreate, v1alpha1.MethodRecreate, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := owners.Owner{Reference: test.owner}
			for order, want := range map[v1alpha1.HandoverOrder]v1alpha1.ReplacementMethod{
				v1alpha1.OrderStartFirst: test.startFirst, v1alpha1.OrderStopFirst: test.stopFirst,
			} {
				got := owners.Method(o, order)
				if got != want {
					t.Errorf("%s: %s, want %s", order, got, want)
				}
				if needs := want == v1alpha1.MethodRelease || want == v1alpha1.MethodRecreate; owners.NeedsWebhook(got) != needs {
					t.Errorf("%s needs the webhook: %v", got, !needs)
				}
			}
			if stops := owners.StopsFirst(o); (stops != "") != test.stops {
				t.Errorf("stops first: %q", stops)
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	for name, test := range map[string]struct {
		owner *metav1.OwnerReference
		pod   func(*corev1.Pod)
		want  string
	}{
		"ReplicaSet":               {reference("apps/v1", "ReplicaSet", "web"), annotated(jobIndex, "3"), ""},
		"StatefulSet":              {reference("apps/v1", "StatefulSet", "db"), annotated("x", "y"), "p"},
		"indexed Job":              {reference("batch/v1", "Job", "sum"), annotated(jobIndex, "3"), "3"},
		"indexed Job, label alone": {reference("batch/v1", "Job", "sum"), func(p *corev1.Pod) { metav1.SetMetaDataLabel(&p.ObjectMeta, jobIndex, "4") }, "4"},
		"Job":                      {reference("batch/v1", "Job", "sum"), annotated("x", "y"), ""},
		"other":                    {reference("example.org/v1", "Trainer", "x"), annotated(jobIndex, "3"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := owners.Identity(podOf(test.owner, test.pod), owners.Owner{Reference: test.owner}); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestExpected(t *testing.T) {
	job := reference("batch/v1", "Job", "sum")
	expecting := func() *v1alpha1.PodMigration {
		m := &v1alpha1.PodMigration{}
		m.UID = "uid-m"
		m.Status.Phase = v1alpha1.PhaseHandingOver
		m.Status.Handover = &v1alpha1.Handover{Method: v1alpha1.MethodRelease, Owner: job, Identity: "2"}
		m.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReplacementPending, Status: metav1.ConditionTrue}}
		return m
	}
	index2 := annotated(jobIndex, "2")
	for name, test := range map[string]struct {
		change func(*v1alpha1.PodMigration)
		pod    *corev1.Pod
		want   bool
	}{
		"the one":               {nil, podOf(job, index2), true},
		"another index":         {nil, podOf(job, annotated(jobIndex, "1")), false},
		"no index":              {nil, podOf(job), false},
		"a probe":               {nil, podOf(job, annotated(v1alpha1.ProbeAnnotation, "uid-m")), true},
		"another's probe":       {nil, podOf(job, annotated(v1alpha1.ProbeAnnotation, "uid-x")), false},
		"any index will do":     {func(m *v1alpha1.PodMigration) { m.Status.Handover.Identity = "" }, podOf(job), true},
		"no controller":         {nil, podOf(nil, index2), false},
		"another owner":         {nil, podOf(job, index2, func(p *corev1.Pod) { p.OwnerReferences[0].UID = "other" }), false},
		"owner not controlling": {nil, podOf(job, index2, func(p *corev1.Pod) { p.OwnerReferences[0].Controller = nil }), false},
		"of a migration already": {nil, podOf(job, index2, func(p *corev1.Pod) {
			metav1.SetMetaDataLabel(&p.ObjectMeta, v1alpha1.MigrationUIDLabel, "x")
		}), false},
		"finished":          {func(m *v1alpha1.PodMigration) { m.Status.Phase = v1alpha1.PhaseFailed }, podOf(job, index2), false},
		"not expecting":     {func(m *v1alpha1.PodMigration) { m.Status.Conditions[0].Status = metav1.ConditionFalse }, podOf(job, index2), false},
		"never expected":    {func(m *v1alpha1.PodMigration) { m.Status.Conditions = nil }, podOf(job, index2), false},
		"not accepted":      {func(m *v1alpha1.PodMigration) { m.Status.Handover = nil }, podOf(job, index2), false},
		"another method":    {func(m *v1alpha1.PodMigration) { m.Status.Handover.Method = v1alpha1.MethodAdopt }, podOf(job, index2), false},
		"migration is bare": {func(m *v1alpha1.PodMigration) { m.Status.Handover.Owner = nil }, podOf(job, index2), false},
	} {
		t.Run(name, func(t *testing.T) {
			m := expecting()
			if test.change != nil {
				test.change(m)
			}
			if got := owners.Expected(m, test.pod); got != test.want {
				t.Errorf("expected: %v, want %v", got, test.want)
			}
		})
	}
}
