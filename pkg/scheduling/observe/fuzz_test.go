package observe

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// source turns the bytes of the fuzzer into choices; after the last byte, all
// are the first.
type source struct{ data []byte }

func (s *source) next() int {
	if len(s.data) == 0 {
		return 0
	}
	first := s.data[0]
	s.data = s.data[1:]
	return int(first)
}

func (s *source) below(n int) int { return s.next() % n }

func choose[T any](s *source, values ...T) T { return values[s.below(len(values))] }

// moment is within some minutes of now, or far away.
func (s *source) moment() time.Time {
	switch s.below(16) {
	case 0:
		return time.Time{}
	case 1:
		return now.Add(1000 * time.Hour)
	}
	return now.Add(time.Duration(s.below(256)-200) * 7 * time.Second)
}

func (s *source) amounts() corev1.ResourceList {
	list := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, "example.com/gpu"} {
		switch s.below(8) {
		case 0:
		case 1:
			list[name] = choose(s, resource.MustParse("-5"), resource.MustParse("9E"), resource.MustParse("-9E"), resource.MustParse("1n"))
		default:
			list[name] = *resource.NewQuantity(int64(s.next())*int64(s.next()), resource.DecimalSI)
		}
	}
	return list
}

func (s *source) node() *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", s.below(4))}}
	n.Labels = choose(s, nil, map[string]string{"pool": "a"}, map[string]string{"pool": "b"})
	n.Status.Allocatable = s.amounts()
	n.Spec.Unschedulable = s.below(5) == 0
	n.Status.Conditions = choose(s, nil, []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}})
	return n
}

func (s *source) pod() *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: choose(s, "ns", "other"), Name: fmt.Sprint("p", s.below(6)), UID: types.UID(fmt.Sprint(s.below(4)))}}
	p.CreationTimestamp = metav1.NewTime(s.moment())
	p.Labels = choose(s, nil, map[string]string{"app": "web"}, map[string]string{v1alpha1.MigrationUIDLabel: "m"}, map[string]string{v1alpha1.OriginalPodLabel: "p1"})
	p.Annotations = choose(s, nil, nil, map[string]string{v1alpha1.ExcludeAnnotation: "true"}, map[string]string{v1alpha1.RecreateAnnotation: "true"})
	if kind := choose(s, "", "ReplicaSet", "Job", "StatefulSet", "DaemonSet", "Other"); kind != "" {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: choose(s, "apps/v1", "batch/v1", "x/v1"), Kind: kind, Name: fmt.Sprint("o", s.below(3)), Controller: new(s.below(4) > 0)}}
	}
	p.Spec.SchedulerName = choose(s, v1alpha1.SchedulerName, v1alpha1.SchedulerName, "default-scheduler")
	p.Spec.NodeName = choose(s, "", "n0", "n1", "n2", "nowhere")
	p.Spec.RestartPolicy = choose(s, corev1.RestartPolicyAlways, corev1.RestartPolicyNever, corev1.RestartPolicyOnFailure, "")
	p.Spec.Priority = choose(s, nil, new(int32(-1)), new(int32(2000)))
	p.Status.Phase = choose(s, corev1.PodRunning, corev1.PodRunning, corev1.PodPending, corev1.PodSucceeded, corev1.PodFailed, "")
	for i := range s.below(4) {
		s.container(p, fmt.Sprint("c", i))
	}
	if s.below(4) == 0 {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: choose(s, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
			corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}, corev1.VolumeSource{})}}
	}
	return p
}

func (s *source) container(p *corev1.Pod, name string) {
	c := corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: s.amounts()}}
	state := choose(s, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
		corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: int32(s.below(2))}}, corev1.ContainerState{})
	status := corev1.ContainerStatus{Name: choose(s, name, name, name, "unknown"), State: state, RestartCount: int32(s.below(3))}
	if s.below(4) == 0 {
		c.RestartPolicy = choose(s, nil, new(corev1.ContainerRestartPolicyAlways))
		p.Spec.InitContainers, p.Status.InitContainerStatuses = append(p.Spec.InitContainers, c), append(p.Status.InitContainerStatuses, status)
		return
	}
	c.VolumeMounts = choose(s, nil, nil, []corev1.VolumeMount{{Name: "v", MountPath: "/v"}})
	p.Spec.Containers, p.Status.ContainerStatuses = append(p.Spec.Containers, c), append(p.Status.ContainerStatuses, status)
}

func (s *source) migration() v1alpha1.PodMigration {
	name := func() string { return fmt.Sprint("p", s.below(6)) }
	m := v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: choose(s, "ns", "other")}, Spec: v1alpha1.PodMigrationSpec{PodName: name()}}
	m.Status.Phase = choose(s, v1alpha1.PhaseSucceeded, v1alpha1.PhaseFailed, v1alpha1.PhaseCancelled, v1alpha1.PhasePlacing, "")
	m.Status.Original = choose(s, nil, &v1alpha1.PodReference{Name: m.Spec.PodName, NodeName: "n0"})
	m.Status.Replacement = choose(s, nil, &v1alpha1.PodReference{}, &v1alpha1.PodReference{Name: name(), NodeName: "n1"})
	m.Status.Handover = choose(s, nil, &v1alpha1.Handover{}, &v1alpha1.Handover{Owner: &metav1.OwnerReference{Kind: "ReplicaSet", Name: "o1"}})
	for _, at := range []**metav1.MicroTime{&m.Status.Times.Placed, &m.Status.Times.OriginalGone, &m.Status.Times.Finished} {
		if s.below(3) > 0 {
			*at = new(metav1.NewMicroTime(s.moment()))
		}
	}
	return m
}

func (s *source) observation(at time.Time) *Observation {
	r := &Observation{At: at, Source: choose(s, "", "", cluster.SourceRequests, cluster.SourceMeasured)}
	for range s.below(6) {
		r.Nodes = append(r.Nodes, s.node())
		r.NodeMetrics = append(r.NodeMetrics, metricsv1beta1.NodeMetrics{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", s.below(5))},
			Timestamp: metav1.NewTime(s.moment()), Window: metav1.Duration{Duration: time.Duration(s.below(256)-10) * time.Second}, Usage: s.amounts()})
	}
	for range s.below(10) {
		p := s.pod()
		r.Pods = append(r.Pods, p)
		r.PodMetrics = append(r.PodMetrics, metricsv1beta1.PodMetrics{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: fmt.Sprint("p", s.below(6))},
			Timestamp: metav1.NewTime(s.moment()), Containers: []metricsv1beta1.ContainerMetrics{{Usage: s.amounts()}, {Usage: s.amounts()}}})
	}
	for range s.below(5) {
		r.Migrations = append(r.Migrations, s.migration())
	}
	for range s.below(3) {
		r.Budgets = append(r.Budgets, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b"},
			Spec:   policyv1.PodDisruptionBudgetSpec{Selector: choose(s, nil, &metav1.LabelSelector{}, &metav1.LabelSelector{MatchLabels: map[string]string{"a b": "c"}})},
			Status: policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: int32(s.below(3) - 1)}})
	}
	r.Claims = func(string) containers.ClaimLookup {
		return func(string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) { return nil, nil }
	}
	// An owner is there, or it is gone.
	isThere := s.below(4) > 0
	r.Owner = func(pod *corev1.Pod) owners.Owner {
		if isThere {
			return fixture.OwnerOf(pod)
		}
		return owners.Owner{Reference: metav1.GetControllerOf(pod)}
	}
	return r
}

// Whatever a cluster looks like, the snapshot is built, and what it promises
// holds: over several observations, since measurements are remembered.
func FuzzBuild(f *testing.F) {
	f.Add([]byte{})
	for seed := range 8 {
		data := make([]byte, 400)
		for i := range data {
			data[i] = byte((i*i*(seed+3) + 7*seed) >> (seed % 4))
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &source{data}
		options := testOptions()
		options.MetricsHistory = NewMetricsHistory(MetricsHistoryOptions{HalfLife: time.Duration(s.below(100)) * time.Second, Window: time.Duration(s.below(256)) * time.Second, Percentile: 1 + s.below(100)})
		options.MinimumSamples = s.below(4)
		if s.below(2) == 0 {
			options.Pools = []labels.Selector{labels.SelectorFromSet(labels.Set{"pool": "a"}), labels.Everything()}[:1+s.below(2)]
		}
		for range 1 + s.below(3) {
			observation := s.observation(now.Add(time.Duration(s.below(256)) * time.Second))
			options.MetricsHistory.Record(observation)
			checkSnapshot(t, Build(observation, options), observation, options)
			for _, c := range Cooldowns(observation, options) {
				if !c.Until.After(observation.At) || c.Migrations < 1 {
					t.Errorf("a cooldown that is over: %+v", c)
				}
			}
			PendingShapes(observation.Pods, options.SchedulerName)
		}
	})
}

func checkSnapshot(t *testing.T, snapshot *cluster.Snapshot, observation *Observation, options Options) {
	if len(snapshot.Nodes) != len(observation.Nodes) || len(snapshot.Pods) > len(observation.Pods) {
		t.Errorf("%d nodes and %d pods of %d and %d", len(snapshot.Nodes), len(snapshot.Pods), len(observation.Nodes), len(observation.Pods))
	}
	for i, node := range snapshot.Nodes {
		if i > 0 && snapshot.Nodes[i-1].Name > node.Name {
			t.Errorf("node %s comes after %s", node.Name, snapshot.Nodes[i-1].Name)
		}
		checkUsage(t, node.Measured, observation, options)
		switch {
		case (node.Measured == nil) != (node.Smoothed == nil):
			t.Errorf("node %s: measured %v, smoothed %v", node.Name, node.Measured, node.Smoothed)
		case node.Skipped == "" && (node.Measured == nil || node.Pool < 0):
			t.Errorf("node %s may be touched: measured %v, pool %d", node.Name, node.Measured, node.Pool)
		case node.Stabilizing && node.Skipped == "":
			t.Errorf("node %s is stabilizing and may be touched", node.Name)
		case node.Measured != nil && (node.Smoothed.MilliCPU > node.Measured.MilliCPU || node.Smoothed.Memory > node.Measured.Memory):
			t.Errorf("node %s: smoothed %v is above %v", node.Name, node.Smoothed, node.Measured)
		}
	}
	for i, pod := range snapshot.Pods {
		if i > 0 && snapshot.Pods[i-1].Key().Compare(pod.Key()) > 0 {
			t.Errorf("pod %s comes after %s", pod.Key(), snapshot.Pods[i-1].Key())
		}
		checkUsage(t, pod.Measured, observation, options)
		if pod.Immovable == "" && (pod.Measured == nil || pod.Replacement == nil || pod.NodeName == "" || pod.Object.Spec.SchedulerName != options.SchedulerName) {
			t.Errorf("pod %s may move: %+v", pod.Key(), pod)
		}
		if pod.Immovable != "" && pod.Replacement != nil {
			t.Errorf("pod %s may not move and has a replacement", pod.Key())
		}
	}
}

func checkUsage(t *testing.T, usage *cluster.Usage, observation *Observation, options Options) {
	if usage == nil {
		return
	}
	if usage.MilliCPU < 0 || usage.Memory < 0 || usage.MilliCPU > mostOf || usage.Memory > mostOf {
		t.Errorf("usage %+v", usage)
	}
	if observation.At.Sub(usage.At) > options.MetricsMaxAge {
		t.Errorf("usage of %s is used at %s", usage.At, observation.At)
	}
}
