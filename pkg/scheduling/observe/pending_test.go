package observe

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

func TestPendingShapes(t *testing.T) {
	waiting := func(cpu string, minutes int, change ...func(*corev1.Pod)) *corev1.Pod {
		pod := testPod()
		pod.Spec.NodeName = ""
		pod.Spec.Containers = pod.Spec.Containers[:1]
		pod.Spec.Containers[0].Resources.Requests = resources(cpu, "1Gi")
		pod.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable}}}
		pod.CreationTimestamp = metav1.NewTime(now.Add(-time.Duration(minutes) * time.Minute))
		for _, c := range change {
			c(pod)
		}
		return pod
	}
	got := PendingShapes([]*corev1.Pod{
		waiting("2", 5), waiting("3", 9), waiting("2", 7), testPod(),
		waiting("4", 9, func(p *corev1.Pod) { p.Spec.SchedulerName = "other" }),
		waiting("5", 9, func(p *corev1.Pod) { p.Status.Conditions = nil }),
		waiting("6", 9, func(p *corev1.Pod) { p.Status.Conditions[0].Reason = corev1.PodReasonSchedulingGated }),
		waiting("7", 9, func(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.NewTime(now)) }),
	}, testOptions().SchedulerName)
	want := []cluster.Resources{{MilliCPU: 3000, Memory: 1 << 30}, {MilliCPU: 2000, Memory: 1 << 30}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("shapes (-want +got):\n%s", diff)
	}
}
