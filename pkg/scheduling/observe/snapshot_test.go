package observe

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func testOptions() Options {
	return Options{
		SchedulerName: v1alpha1.SchedulerName, Nodes: labels.Everything(),
		MetricsMaxAge: 2 * time.Minute, MinimumPodAge: time.Minute, Cooldown: 10 * time.Minute, MaxCooldown: time.Hour, PriorityCeiling: 1000,
	}
}

func testNode() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"pool": "gpu"}},
		Status: corev1.NodeStatus{
			Allocatable: resources("4", "8Gi"),
			Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
}

func resources(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

// testPod has a running container and one that has finished.
func testPod() *corev1.Pod {
	container := func(name, cpu string) corev1.Container {
		return corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: resources(cpu, "1Gi")}}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: "p", UID: "uid-p", Labels: map[string]string{"app": "web"},
			CreationTimestamp: metav1.NewTime(now.Add(-time.Hour)),
		},
		Spec: corev1.PodSpec{
			NodeName: "n1", SchedulerName: v1alpha1.SchedulerName, RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{container("prepare", "900m"), container("train", "500m")},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning,
			ContainerStatuses: []corev1.ContainerStatus{
				{Name: "prepare", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 0}}},
				{Name: "train", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
			},
		},
	}
}

func testObservation() *Observation {
	return &Observation{
		At: now, Nodes: []*corev1.Node{testNode()}, Pods: []*corev1.Pod{testPod()},
		Claims: func(string) containers.ClaimLookup {
			return func(string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) { return nil, nil }
		},
		Owner: fixture.OwnerOf,
		NodeMetrics: []metricsv1beta1.NodeMetrics{{
			ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Timestamp: metav1.NewTime(now.Add(-10 * time.Second)),
			Window: metav1.Duration{Duration: 15 * time.Second}, Usage: resources("3", "2Gi"),
		}},
		PodMetrics: []metricsv1beta1.PodMetrics{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Timestamp: metav1.NewTime(now.Add(-10 * time.Second)),
			Containers: []metricsv1beta1.ContainerMetrics{{Name: "train", Usage: resources("400m", "512Mi")}, {Name: "other", Usage: resources("100m", "512Mi")}},
		}},
	}
}

func migrationOf(phase v1alpha1.Phase, ended time.Time) v1alpha1.PodMigration {
	m := v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "m"},
		Spec:       v1alpha1.PodMigrationSpec{PodName: "before"},
		Status: v1alpha1.PodMigrationStatus{
			Phase:       phase,
			Original:    &v1alpha1.PodReference{Name: "before", NodeName: "n0"},
			Replacement: &v1alpha1.PodReference{Name: "p", NodeName: "n1"},
		},
	}
	if !ended.IsZero() {
		m.Status.Times.Finished = &metav1.MicroTime{Time: ended}
		m.Status.Times.OriginalGone = &metav1.MicroTime{Time: ended}
	}
	return m
}

func TestBuildTakesAmounts(t *testing.T) {
	snapshot := Build(testObservation(), testOptions())
	if len(snapshot.Nodes) != 1 || len(snapshot.Pods) != 1 {
		t.Fatalf("snapshot has %d nodes and %d pods", len(snapshot.Nodes), len(snapshot.Pods))
	}
	node, pod := snapshot.Nodes[0], snapshot.Pods[0]
	at := now.Add(-10 * time.Second)
	for _, check := range []struct{ what, diff string }{
		{"node use", cmp.Diff(&cluster.Usage{MilliCPU: 3000, Memory: 2 << 30, At: at}, node.Measured)},
		{"allocatable", cmp.Diff(cluster.Resources{MilliCPU: 4000, Memory: 8 << 30}, node.Allocatable)},
		{"pod use", cmp.Diff(&cluster.Usage{MilliCPU: 500, Memory: 1 << 30, At: at}, pod.Measured)},
		{"requests", cmp.Diff(cluster.Resources{MilliCPU: 1400, Memory: 2 << 30}, pod.Requests)},
		{"stripped requests", cmp.Diff(cluster.Resources{MilliCPU: 500, Memory: 1 << 30}, pod.StrippedRequests)},
		{"immovable", cmp.Diff("", pod.Immovable)},
		{"skipped", cmp.Diff("", node.Skipped)},
	} {
		if check.diff != "" {
			t.Errorf("%s (-want +got):\n%s", check.what, check.diff)
		}
	}
	if replacement := pod.Replacement(); len(replacement.Spec.Containers) != 1 || replacement.Spec.NodeName != "" {
		t.Errorf("replacement has %d containers and node %q, want one container and no node", len(replacement.Spec.Containers), replacement.Spec.NodeName)
	}
}

func TestBuildLeavesOutPodsThatHoldNoPlace(t *testing.T) {
	observation := testObservation()
	pending, done := testPod(), testPod()
	pending.Name, pending.Spec.NodeName = "pending", ""
	done.Name, done.Status.Phase = "done", corev1.PodSucceeded
	observation.Pods = append(observation.Pods, pending, done)
	if snapshot := Build(observation, testOptions()); len(snapshot.Pods) != 1 {
		t.Errorf("snapshot has %d pods, want 1", len(snapshot.Pods))
	}
}

func TestImmovable(t *testing.T) {
	controlled := func(kind string) func(*Observation) {
		return func(r *Observation) {
			r.Pods[0].OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: "owner", Controller: new(true)}}
		}
	}
	annotated := func(key, value string) func(*Observation) {
		return func(r *Observation) { r.Pods[0].Annotations = map[string]string{key: value} }
	}
	job := func(change func(*batchv1.Job)) func(*Observation) {
		return func(r *Observation) {
			r.Pods[0].OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "sum", Controller: new(true)}}
			r.Pods[0].Finalizers = []string{batchv1.JobTrackingFinalizer}
			r.Owner = func(pod *corev1.Pod) owners.Owner {
				o := fixture.OwnerOf(pod)
				change(o.Job)
				return o
			}
		}
	}
	claim := func(mode corev1.PersistentVolumeAccessMode, user string) func(*Observation) {
		return func(r *Observation) {
			spec := &r.Pods[0].Spec
			spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
			spec.Containers[1].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
			if user != "" {
				other := r.Pods[0].DeepCopy()
				other.Name, other.UID = user, types.UID(user)
				r.Pods = append(r.Pods, other)
			}
			r.Claims = func(string) containers.ClaimLookup {
				return func(string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
					return &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{mode}}}, nil
				}
			}
		}
	}
	pdb := func(allowed int32, selector map[string]string) func(*Observation) {
		return func(r *Observation) {
			r.Budgets = []*policyv1.PodDisruptionBudget{{
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pdb"},
				Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: new(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: selector}},
				Status:     policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: allowed},
			}}
		}
	}
	migrated := func(phase v1alpha1.Phase, ended time.Time) func(*Observation) {
		return func(r *Observation) { r.Migrations = []v1alpha1.PodMigration{migrationOf(phase, ended)} }
	}
	scratch := func(r *Observation) {
		spec := &r.Pods[0].Spec
		spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		spec.Containers[1].VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}
	}
	withMemory := func(r *Observation) { r.Pods[0].Spec.RuntimeClassName = new(v1alpha1.ProcessRuntimeClass) }
	carries := func(o *Options) { o.CarriesState = true }
	tests := []struct {
		name    string
		change  func(*Observation)
		want    string
		options func(*Options)
	}{
		{name: "scratch volume, nothing to carry it", change: scratch, want: "scratch"},
		{name: "scratch volume that is carried", change: scratch, options: carries},
		{name: "memory, nothing to carry it", change: withMemory, want: "--node-agent-image"},
		{name: "memory that is carried", change: withMemory, options: carries},
		{name: "memory that cannot be carried", change: func(r *Observation) {
			withMemory(r)
			r.Pods[0].Spec.Containers[1].TTY = true
		}, options: carries, want: "its processes cannot move"},
		{"movable", func(*Observation) {}, "", nil},
		{"other scheduler", func(r *Observation) { r.Pods[0].Spec.SchedulerName = "default-scheduler" }, "has not opted in", nil},
		{"our veto", annotated(v1alpha1.ExcludeAnnotation, "true"), v1alpha1.ExcludeAnnotation, nil},
		{"the autoscaler's veto", annotated("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"), "safe-to-evict", nil},
		{"the autoscaler's consent", annotated("cluster-autoscaler.kubernetes.io/safe-to-evict", "true"), "", nil},
		{"the descheduler's veto", annotated("descheduler.alpha.kubernetes.io/prefer-no-eviction", ""), "prefer-no-eviction", nil},
		{"Karpenter's veto", annotated("karpenter.sh/do-not-disrupt", "true"), "karpenter.sh/do-not-disrupt", nil},
		{"Karpenter's consent", annotated("karpenter.sh/do-not-disrupt", "false"), "", nil},
		{"a Job of one worker", job(func(*batchv1.Job) {}), "", nil},
		{"a Job that is gone", func(r *Observation) {
			job(func(*batchv1.Job) {})(r)
			r.Owner = func(pod *corev1.Pod) owners.Owner { return owners.Owner{Reference: metav1.GetControllerOf(pod)} }
		}, "Job sum, to which the pod belongs, is gone", nil},
		{"a Job that is suspended", job(func(j *batchv1.Job) { j.Spec.Suspend = new(true) }), "is suspended", nil},
		{"a Job that wants one pod at a time", job(func(j *batchv1.Job) { j.Spec.PodReplacementPolicy = new(batchv1.Failed) }), "have to stop before it moves: Job sum wants one pod at a time", nil},
		{"a Job of workers", job(func(j *batchv1.Job) { j.Spec.Parallelism = new(int32(2)) }), "2 workers", nil},
		{"a Job that has lost a pod", job(func(j *batchv1.Job) { j.Status.Active = 0 }), "has 0 active pods and wants 1", nil},
		{"a Job of workers that opts in", func(r *Observation) {
			job(func(j *batchv1.Job) { j.Spec.Parallelism, j.Status.Active = new(int32(2)), 2 })(r)
			annotated(v1alpha1.RebalanceAnnotation, "true")(r)
		}, "", nil},
		{"a member of a gang", func(r *Observation) { r.Pods[0].Labels["leaderworkerset.sigs.k8s.io/name"] = "serve" }, "leaderworkerset.sigs.k8s.io/name", nil},
		{"a Deployment in the middle of a rollout", func(r *Observation) {
			r.Pods[0].OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", Controller: new(true)}}
			r.Owner = func(pod *corev1.Pod) owners.Owner {
				o := fixture.OwnerOf(pod)
				o.Deployment = &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Status: appsv1.DeploymentStatus{Replicas: 2, UpdatedReplicas: 1}}
				return o
			}
		}, "a rollout of Deployment web is in flight", nil},
		{"a Deployment that recreates its pods", func(r *Observation) {
			r.Pods[0].OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", Controller: new(true)}}
			r.Owner = func(pod *corev1.Pod) owners.Owner {
				o := fixture.OwnerOf(pod)
				o.Deployment = &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}}}
				return o
			}
		}, "strategy Recreate", nil},
		{"a claim that another pod uses", claim(corev1.ReadWriteOnce, "reader"), "pod reader on node n1 uses it too", nil},
		{"a claim of its own", claim(corev1.ReadWriteOnce, ""), "two nodes cannot use it", nil},
		{"a claim for many nodes that another pod uses", claim(corev1.ReadWriteMany, "reader"), "", nil},
		{"DaemonSet", controlled("DaemonSet"), "DaemonSet", nil},
		{"ReplicaSet", controlled("ReplicaSet"), "ReplicaSet", nil},
		{"terminating", func(r *Observation) { r.Pods[0].DeletionTimestamp = new(metav1.NewTime(now)) }, "being deleted", nil},
		{"a container has not started", func(r *Observation) {
			r.Pods[0].Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}
		}, "has not started", nil},
		{"young", func(r *Observation) { r.Pods[0].CreationTimestamp = metav1.NewTime(now.Add(-59 * time.Second)) }, "younger than 1m", nil},
		{"old enough", func(r *Observation) { r.Pods[0].CreationTimestamp = metav1.NewTime(now.Add(-60 * time.Second)) }, "", nil},
		{"important", func(r *Observation) { r.Pods[0].Spec.Priority = new(int32(1001)) }, "above 1000", nil},
		{"as important as may be", func(r *Observation) { r.Pods[0].Spec.Priority = new(int32(1000)) }, "", nil},
		{"migration in flight", migrated(v1alpha1.PhasePlacing, time.Time{}), "in flight", nil},
		{"moved just now", migrated(v1alpha1.PhaseSucceeded, now.Add(-9*time.Minute)), "stays for another 1m0s", nil},
		{"failed to move just now", migrated(v1alpha1.PhaseFailed, now.Add(-9*time.Minute)), "stays for another 1m0s", nil},
		{"moved long ago", migrated(v1alpha1.PhaseSucceeded, now.Add(-11*time.Minute)), "", nil},
		{"a young replacement whose migration was deleted", func(r *Observation) {
			r.Pods[0].Labels[v1alpha1.MigrationUIDLabel] = "gone"
			r.Pods[0].CreationTimestamp = metav1.NewTime(now.Add(-9 * time.Minute))
		}, "stays for another 1m0s", nil},
		{"no disruption allowed", pdb(0, map[string]string{"app": "web"}), "disruption budget pdb", nil},
		{"disruption allowed", pdb(1, map[string]string{"app": "web"}), "", nil},
		{"two disruption budgets", func(r *Observation) {
			pdb(1, map[string]string{"app": "web"})(r)
			second := r.Budgets[0].DeepCopy()
			second.Name = "second"
			r.Budgets = append(r.Budgets, second)
		}, "more than one disruption budget", nil},
		{"a disruption budget that nobody can read", func(r *Observation) {
			pdb(0, nil)(r)
			r.Budgets[0].Spec.Selector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Like", Values: []string{"db"}}}
		}, "disruption budget pdb", nil},
		{"another pod's disruption budget", pdb(0, map[string]string{"app": "db"}), "", nil},
		{"not measured", func(r *Observation) { r.PodMetrics = nil }, "no fresh measurement", nil},
		{"measured long ago", func(r *Observation) { r.PodMetrics[0].Timestamp = metav1.NewTime(now.Add(-121 * time.Second)) }, "no fresh measurement", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			observation := testObservation()
			tt.change(observation)
			options := testOptions()
			if tt.options != nil {
				tt.options(&options)
			}
			pod := Build(observation, options).Pods[0]
			if !strings.Contains(pod.Immovable, tt.want) || (tt.want == "") != (pod.Immovable == "") {
				t.Errorf("Immovable = %q, want %q", pod.Immovable, tt.want)
			}
			if (pod.Replacement == nil) != (tt.want != "") {
				t.Errorf("an imagined replacement is there: %t", pod.Replacement != nil)
			}
		})
	}
}

func TestSkipped(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Observation, *Options)
		want   string
	}{
		{"fresh", func(*Observation, *Options) {}, ""},
		{"not measured", func(r *Observation, _ *Options) { r.NodeMetrics = nil }, "no measurement"},
		{"measured once", func(_ *Observation, o *Options) { o.MinimumSamples = 2 }, "measured 1 of 2 times"},
		{"measured long ago", func(r *Observation, _ *Options) {
			r.NodeMetrics[0].Timestamp = metav1.NewTime(now.Add(-3 * time.Minute))
		}, "3m0s old"},
		{"outside of the selector", func(_ *Observation, o *Options) { o.Nodes = labels.SelectorFromSet(labels.Set{"pool": "cpu"}) }, "outside of the node selector"},
		{"inside of the selector", func(_ *Observation, o *Options) { o.Nodes = labels.SelectorFromSet(labels.Set{"pool": "gpu"}) }, ""},
		{"migration in flight", func(r *Observation, _ *Options) {
			r.Migrations = []v1alpha1.PodMigration{migrationOf(v1alpha1.PhaseHandingOver, time.Time{})}
		}, "in flight"},
		{"changed within the window", func(r *Observation, _ *Options) {
			r.Migrations = []v1alpha1.PodMigration{migrationOf(v1alpha1.PhaseSucceeded, now.Add(-24*time.Second))}
		}, "before its last migration ended"},
		{"changed before the window", func(r *Observation, _ *Options) {
			r.Migrations = []v1alpha1.PodMigration{migrationOf(v1alpha1.PhaseSucceeded, now.Add(-26*time.Second))}
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			observation, options := testObservation(), testOptions()
			tt.change(observation, &options)
			node := Build(observation, options).Nodes[0]
			if !strings.Contains(node.Skipped, tt.want) || (tt.want == "") != (node.Skipped == "") {
				t.Errorf("Skipped = %q, want %q", node.Skipped, tt.want)
			}
			// Only a node that was measured too seldom is stabilizing: the load of the others
			// is not their own.
			if node.Stabilizing != strings.Contains(tt.want, "measured 1 of 2 times") {
				t.Errorf("Stabilizing = %t of a node that is skipped because %q", node.Stabilizing, node.Skipped)
			}
		})
	}
}

func TestSchedulable(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*corev1.Node)
		want   bool
	}{
		"ready":        {func(*corev1.Node) {}, true},
		"cordoned":     {func(n *corev1.Node) { n.Spec.Unschedulable = true }, false},
		"not ready":    {func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown }, false},
		"no condition": {func(n *corev1.Node) { n.Status.Conditions = nil }, false},
		"going":        {func(n *corev1.Node) { n.DeletionTimestamp = new(metav1.NewTime(now)) }, false},
	} {
		node := testNode()
		tt.change(node)
		if got := isSchedulable(node); got != tt.want {
			t.Errorf("%s: isSchedulable = %t", name, got)
		}
	}
}

func TestBuildDoesNotDependOnOrder(t *testing.T) {
	observation := testObservation()
	for i := range 5 {
		node, pod := testNode(), testPod()
		node.Name, pod.Name, pod.UID = fmt.Sprint("n", i), fmt.Sprint("p", i), types.UID(fmt.Sprint("uid", i))
		observation.Nodes, observation.Pods = append(observation.Nodes, node), append(observation.Pods, pod)
	}
	first := Build(observation, testOptions())
	for i, j := 0, len(observation.Pods)-1; i < j; i, j = i+1, j-1 {
		observation.Nodes[i], observation.Nodes[j] = observation.Nodes[j], observation.Nodes[i]
		observation.Pods[i], observation.Pods[j] = observation.Pods[j], observation.Pods[i]
	}
	if diff := cmp.Diff(first, Build(observation, testOptions())); diff != "" {
		t.Errorf("the order of the lists shows (-first +second):\n%s", diff)
	}
}
