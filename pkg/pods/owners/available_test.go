package owners_test

import (
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

func TestSettlingTime(t *testing.T) {
	readiness := func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{} }
	startup := func(p *corev1.Pod) { p.Spec.Containers[0].StartupProbe = &corev1.Probe{} }
	liveness := func(p *corev1.Pod) { p.Spec.Containers[0].LivenessProbe = &corev1.Probe{} }
	gate := func(p *corev1.Pod) {
		p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.org/in-service"}}
	}
	sidecar := func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "proxy", ReadinessProbe: &corev1.Probe{}}}
	}
	slowDeployment := deploymentOwner(func(d *appsv1.Deployment) { d.Spec.MinReadySeconds = 30 })
	for name, test := range map[string]struct {
		owner          owners.Owner
		pod            func(*corev1.Pod)
		wanted, settle time.Duration
	}{
		"no owner, no probe":       {owners.Owner{}, nil, 0, 5 * time.Second},
		"no owner, a probe":        {owners.Owner{}, readiness, 0, 0},
		"a startup probe":          {owners.Owner{}, startup, 0, 0},
		"a liveness probe alone":   {owners.Owner{}, liveness, 0, 5 * time.Second},
		"a readiness gate":         {owners.Owner{}, gate, 0, 0},
		"a probe of a sidecar":     {owners.Owner{}, sidecar, 0, 0},
		"Job":                      {jobOwner(asIs), nil, 0, 5 * time.Second},
		"ReplicaSet":               {replicaSetOwner(func(rs *appsv1.ReplicaSet) { rs.Spec.MinReadySeconds = 2 }), nil, 2 * time.Second, 2 * time.Second},
		"ReplicaSet, nothing said": {replicaSetOwner(asIs), readiness, 0, 0},
		"Deployment":               {slowDeployment, readiness, 30 * time.Second, 30 * time.Second},
		"StatefulSet":              {statefulSetOwner(func(s *appsv1.StatefulSet) { s.Spec.MinReadySeconds = 3 }), nil, 3 * time.Second, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			pod := podOf(test.owner.Reference)
			if test.pod != nil {
				test.pod(pod)
			}
			if got := owners.MinReady(test.owner); got != test.wanted {
				t.Errorf("minimum %s, want %s", got, test.wanted)
			}
			if got := owners.SettlingTime(test.owner, pod, 5*time.Second); got != test.settle {
				t.Errorf("settles for %s, want %s", got, test.settle)
			}
		})
	}
}

func TestAvailableIn(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ready := func(status corev1.ConditionStatus, ago time.Duration) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(at.Add(-ago))}}
		}
	}
	const settling = 10 * time.Second
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		want time.Duration
	}{
		"no condition":             {podOf(nil), settling},
		"not Ready for long":       {podOf(nil, ready(corev1.ConditionFalse, time.Hour)), settling},
		"Ready now":                {podOf(nil, ready(corev1.ConditionTrue, 0)), settling},
		"Ready for a while":        {podOf(nil, ready(corev1.ConditionTrue, 4*time.Second)), 6 * time.Second},
		"Ready for long enough":    {podOf(nil, ready(corev1.ConditionTrue, settling)), 0},
		"Ready by a clock ahead":   {podOf(nil, ready(corev1.ConditionTrue, -time.Minute)), settling},
		"Ready for more than that": {podOf(nil, ready(corev1.ConditionTrue, time.Minute)), 0},
	} {
		if got := owners.AvailableIn(test.pod, settling, at); got != test.want {
			t.Errorf("%s: available in %s, want %s", name, got, test.want)
		}
	}
}

func TestForeignGates(t *testing.T) {
	gated := func(names ...string) *corev1.Pod {
		return podOf(nil, func(p *corev1.Pod) {
			for _, name := range names {
				p.Spec.SchedulingGates = append(p.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: name})
			}
		})
	}
	for _, test := range []struct{ gates, want []string }{
		{nil, nil},
		{[]string{v1alpha1.WaitForOriginalGate}, nil},
		{[]string{v1alpha1.WaitForOriginalGate, "kueue.x-k8s.io/admission", "example.org/x"}, []string{"kueue.x-k8s.io/admission", "example.org/x"}},
	} {
		if got := owners.ForeignGates(gated(test.gates...)); !slices.Equal(got, test.want) {
			t.Errorf("gates %v: %v, want %v", test.gates, got, test.want)
		}
	}
}
