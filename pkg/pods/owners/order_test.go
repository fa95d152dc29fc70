package owners_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

func deploymentOwner(change func(*appsv1.Deployment)) owners.Owner {
	o := replicaSetOwner(asIs)
	o.Deployment = &appsv1.Deployment{ObjectMeta: meta("web"), Spec: appsv1.DeploymentSpec{Replicas: new(int32(2))},
		Status: appsv1.DeploymentStatus{Replicas: 2, UpdatedReplicas: 2}}
	change(o.Deployment)
	return o
}

func TestStopsFirst(t *testing.T) {
	surge := func(amount *intstr.IntOrString) func(*appsv1.Deployment) {
		return func(d *appsv1.Deployment) {
			d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: amount}}
		}
	}
	for name, test := range map[string]struct {
		owner owners.Owner
		want  string
	}{
		"Job":                                 {jobOwner(asIs), ""},
		"Job that is gone":                    {without(jobOwner(asIs)), ""},
		"Job, replaces what is terminating":   {jobOwner(func(j *batchv1.Job) { j.Spec.PodReplacementPolicy = new(batchv1.TerminatingOrFailed) }), ""},
		"Job, replaces only what has failed":  {jobOwner(func(j *batchv1.Job) { j.Spec.PodReplacementPolicy = new(batchv1.Failed) }), "podReplacementPolicy Failed"},
		"Job with a policy for failures":      {jobOwner(func(j *batchv1.Job) { j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{} }), "podFailurePolicy"},
		"Job with indexes":                    {jobOwner(func(j *batchv1.Job) { j.Spec.CompletionMode = new(batchv1.IndexedCompletion) }), "indexed"},
		"Job without indexes":                 {jobOwner(func(j *batchv1.Job) { j.Spec.CompletionMode = new(batchv1.NonIndexedCompletion) }), ""},
		"ReplicaSet":                          {replicaSetOwner(asIs), ""},
		"Deployment":                          {deploymentOwner(asIs), ""},
		"Deployment that recreates":           {deploymentOwner(func(d *appsv1.Deployment) { d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType }), "strategy Recreate"},
		"Deployment, surge by default":        {deploymentOwner(surge(nil)), ""},
		"Deployment, surge of one":            {deploymentOwner(surge(new(intstr.FromInt32(1)))), ""},
		"Deployment, surge of a percent":      {deploymentOwner(surge(new(intstr.FromString("1%")))), ""},
		"Deployment, no surge":                {deploymentOwner(surge(new(intstr.FromInt32(0)))), "maxSurge 0"},
		"Deployment, no surge as a percent":   {deploymentOwner(surge(new(intstr.FromString("0%")))), "maxSurge 0"},
		"Deployment, surge that has no sense": {deploymentOwner(surge(new(intstr.FromString("none")))), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := owners.StopsFirst(test.owner)
			if !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
				t.Errorf("stops first: %q, want %q", got, test.want)
			}
		})
	}
}
