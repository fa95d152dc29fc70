package containers

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestFreezeBound(t *testing.T) {
	probe := func(period, timeout, failures int32) *corev1.Probe {
		return &corev1.Probe{PeriodSeconds: period, TimeoutSeconds: timeout, FailureThreshold: failures}
	}
	live := func(name string, p *corev1.Probe) corev1.Container {
		return corev1.Container{Name: name, LivenessProbe: p}
	}
	sidecar := func(name string, p *corev1.Probe) corev1.Container {
		return corev1.Container{Name: name, LivenessProbe: p, RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}
	}
	starts := func(name string, startup, liveness *corev1.Probe) corev1.Container {
		return corev1.Container{Name: name, StartupProbe: startup, LivenessProbe: liveness}
	}
	running := func(name string, started bool) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, Started: &started, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	}
	ended := corev1.ContainerStatus{Name: "a", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}
	waits := corev1.ContainerStatus{Name: "a", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}
	pod := func(containers []corev1.Container, statuses ...corev1.ContainerStatus) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{Containers: containers}, Status: corev1.PodStatus{ContainerStatuses: statuses}}
	}
	withSidecar := pod([]corev1.Container{live("a", probe(10, 1, 3))}, running("a", true))
	withSidecar.Spec.InitContainers = []corev1.Container{{Name: "setup"}, sidecar("proxy", probe(2, 1, 4))}
	withSidecar.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "setup", State: ended.State}, running("proxy", true)}
	sidecarGone := withSidecar.DeepCopy()
	sidecarGone.Status.InitContainerStatuses[1].State = ended.State
	leaving := pod([]corev1.Container{live("a", probe(10, 1, 3))}, running("a", true))
	leaving.DeletionTimestamp = &metav1.Time{}
	never := pod([]corev1.Container{live("a", probe(5, 1, 2))}, running("a", true))
	never.Spec.RestartPolicy = corev1.RestartPolicyNever
	tests := []struct {
		name      string
		pod       *corev1.Pod
		want      time.Duration
		container string
	}{
		{"no probe", pod([]corev1.Container{{Name: "a"}}, running("a", true)), 0, ""},
		{"readiness ends no container", pod([]corev1.Container{{Name: "a", ReadinessProbe: probe(1, 1, 1)}}, running("a", true)), 0, ""},
		{"the defaults of the API", pod([]corev1.Container{live("a", &corev1.Probe{})}, running("a", true)), 20 * time.Second, "a"},
		{"as the API writes them down", pod([]corev1.Container{live("a", probe(10, 1, 3))}, running("a", true)), 20 * time.Second, "a"},
		{"the first failure ends it", pod([]corev1.Container{live("a", probe(10, 1, 1))}, running("a", true)), 0, "a"},
		{"slow probes follow one another", pod([]corev1.Container{live("a", probe(2, 5, 3))}, running("a", true)), 10 * time.Second, "a"},
		{"the shortest of two", pod([]corev1.Container{live("a", probe(10, 1, 3)), live("b", probe(2, 1, 3))}, running("a", true), running("b", true)), 4 * time.Second, "b"},
		{"the first of two alike", pod([]corev1.Container{live("a", probe(10, 1, 3)), live("b", probe(10, 1, 3))}, running("a", true), running("b", true)), 20 * time.Second, "a"},
		{"0 is shorter than any", pod([]corev1.Container{live("a", probe(10, 1, 1)), live("b", probe(2, 1, 3))}, running("a", true), running("b", true)), 0, "a"},
		{"a sidecar", withSidecar, 6 * time.Second, "proxy"},
		{"a sidecar that does not run", sidecarGone, 20 * time.Second, "a"},
		{"a container that has ended is not probed", pod([]corev1.Container{live("a", probe(1, 1, 1))}, ended), 0, ""},
		{"nor one that waits to be started", pod([]corev1.Container{live("a", probe(1, 1, 1))}, waits), 0, ""},
		{"one without a status may run", pod([]corev1.Container{live("a", probe(10, 1, 3))}), 20 * time.Second, "a"},
		{"it is starting: its failures are not known", pod([]corev1.Container{starts("a", probe(10, 1, 30), probe(10, 1, 3))}, running("a", false)), 0, "a"},
		{"it is starting, without a liveness probe", pod([]corev1.Container{starts("a", probe(10, 1, 30), nil)}, running("a", false)), 0, "a"},
		{"it has started", pod([]corev1.Container{starts("a", probe(10, 1, 30), probe(10, 1, 3))}, running("a", true)), 20 * time.Second, "a"},
		{"it has started, and nothing probes it", pod([]corev1.Container{starts("a", probe(10, 1, 30), nil)}, running("a", true)), 0, ""},
		{"never restarted, and ended all the same", never, 5 * time.Second, "a"},
		{"a pod that is being deleted is not probed", leaving, 0, ""},
		{"far", pod([]corev1.Container{live("a", probe(1<<30, 1, 1<<10))}, running("a", true)), longestBound, "a"},
	}
	for _, test := range tests {
		if got, container := FreezeBound(test.pod); got != test.want || container != test.container {
			t.Errorf("%s: %s of %q, want %s of %q", test.name, got, container, test.want, test.container)
		}
	}
}
