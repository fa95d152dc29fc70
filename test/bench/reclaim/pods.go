package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"

	"github.com/ai-storage/orchestrator/pkg/controllers/reclaim/decide"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

const mebibyte = 1 << 20

// live is a pod of a task as the API server has it. All pods of one task are at
// the same stage, and a decision depends on nothing else: one stands for all.
type live struct {
	task     *task
	pod      *corev1.Pod
	original *corev1.Pod
	class    corev1.PodQOSClass
	resizes  int
}

func newLive(t *task) *live {
	pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "node", RestartPolicy: corev1.RestartPolicyNever}}
	pod.Namespace, pod.Name, pod.Status.Phase = "bench", "pod", corev1.PodRunning
	for i, s := range t.steps {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: fmt.Sprintf("step-%d", i), Resources: corev1.ResourceRequirements{
			Requests: quantities(s.cpu, s.memory), Limits: quantities(s.cpuLimit, s.memoryMax),
		}})
	}
	pod.Status.QOSClass = qos.ComputePodQOS(pod)
	l := &live{task: t, pod: pod, original: pod.DeepCopy(), class: pod.Status.QOSClass}
	l.report(0)
	return l
}

func quantities(cpu, memory *int64) corev1.ResourceList {
	list := corev1.ResourceList{}
	if cpu != nil {
		list[corev1.ResourceCPU] = *resource.NewMilliQuantity(*cpu, resource.DecimalSI)
	}
	if memory != nil {
		list[corev1.ResourceMemory] = *resource.NewQuantity(*memory*mebibyte, resource.BinarySI)
	}
	return list
}

// finishedAt returns how many steps have finished at a stage. The last one runs
// on: with it the pod would be over, and free of itself.
func (t *task) finishedAt(stage int) int { return min(stage, len(t.steps)-1) }

// report writes the status as a kubelet would that has done every resize.
func (l *live) report(finished int) {
	l.pod.Status.ContainerStatuses = nil
	for i := range l.pod.Spec.Containers {
		c := &l.pod.Spec.Containers[i]
		status := corev1.ContainerStatus{
			Name: c.Name, Resources: c.Resources.DeepCopy(), AllocatedResources: c.Resources.DeepCopy().Requests,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		}
		if i < finished && l.task.steps[i].finishes {
			status.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed"}}
		}
		l.pod.Status.ContainerStatuses = append(l.pod.Status.ContainerStatuses, status)
	}
}

// advance lets steps finish and does what is decided then.
func (l *live) advance(stage int) error {
	l.report(l.task.finishedAt(stage))
	if err := l.act(); err != nil {
		return err
	}
	l.report(l.task.finishedAt(stage))
	return nil
}

// act does what the controller does with a decision.
func (l *live) act() error {
	d, err := decide.Decide(l.pod, decide.Facts{MayShrink: true})
	if err != nil {
		return err
	}
	if err := d.Remember.Write(l.pod); err != nil {
		return err
	}
	if d.Resized != nil {
		l.resizes++
		l.pod.Spec = d.Resized.Spec
	}
	if class := qos.ComputePodQOS(l.pod); class != l.class {
		return fmt.Errorf("task %s: the quality of service became %s, was %s", l.task.name, class, l.class)
	}
	return d.Keep.Write(l.pod)
}

// counted is what the scheduler counts for the pod.
func (l *live) counted() cluster.Resources {
	return cluster.ResourcesOf(resourcehelper.PodRequests(l.pod, resourcehelper.PodResourcesOptions{UseStatusResources: true}))
}

// checkEnds wants a pod of which everything has finished untouched, and a pod of
// which everything starts again to be as it was.
func (l *live) checkEnds() error {
	over := newLive(l.task)
	over.report(len(l.task.steps))
	for _, phase := range []corev1.PodPhase{corev1.PodRunning, corev1.PodSucceeded} {
		over.pod.Status.Phase = phase
		if err := over.act(); err != nil {
			return err
		}
	}
	allFinish := true
	for _, s := range l.task.steps {
		allFinish = allFinish && s.finishes
	}
	if allFinish && over.resizes != 0 {
		return fmt.Errorf("task %s: a pod that is over was resized", l.task.name)
	}
	l.report(0)
	if err := l.act(); err != nil {
		return err
	}
	if !equality.Semantic.DeepEqual(l.pod.Spec, l.original.Spec) || len(l.pod.Annotations) != 0 {
		return fmt.Errorf("task %s: not as it was after all of it started again: %v", l.task.name, l.pod.Annotations)
	}
	return nil
}

// ceilingAt is what the finished steps of a pod requested, from the data alone.
func (t *task) ceilingAt(stage int) (sum cluster.Resources) {
	for _, s := range t.steps[:t.finishedAt(stage)] {
		if s.finishes {
			sum = sum.Add(s.asks())
		}
	}
	return sum
}

func (t *task) asks() (sum cluster.Resources) {
	for _, s := range t.steps {
		sum = sum.Add(s.asks())
	}
	return sum
}

func (s *step) asks() (r cluster.Resources) {
	if s.cpu != nil {
		r.MilliCPU = *s.cpu
	}
	if s.memory != nil {
		r.Memory = *s.memory * mebibyte
	}
	return r
}
