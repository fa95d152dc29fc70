package rebalance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
	"github.com/ai-storage/orchestrator/pkg/scheduling/observe"
)

const (
	nodeCPU = 16_000
	// scrapeInterval is metrics-server's, and the length of its windows.
	scrapeInterval = 15 * time.Second
	// migrationTime is how long a migration of the model takes.
	migrationTime = 22 * time.Second
)

// model is a cluster with a clock of its own: pods have a load, the metrics API
// shows the mean of the last window, and migrations succeed. What the loop reads
// and writes are the objects of an API server, so a new loop finds what the one
// before it left. Replacements are those of the product, with the checkpoint claim,
// so whether a pod may move once more is decided as in the product.
//
// It leaves out: migrations that fail, take longer or are cancelled; the scheduler's
// choice, which is always the planned node; limits of the scheduler's filters (every
// pod fits everywhere it has room for); the pods that the owner of an adopted pod
// deletes and creates; what the copy of state costs the nodes; and noise of
// measurements.
type model struct {
	client.Client
	t     *testing.T
	clock *clocktesting.FakeClock
	nodes []*corev1.Node
	pods  map[string]*modelPod // by name
	// scraped is what the metrics API answers.
	nodeMetrics []metricsv1beta1.NodeMetrics
	podMetrics  []metricsv1beta1.PodMetrics
	moves       []modelMove
	accepted    map[types.UID]time.Time
	// claims are the checkpoint claims of all migrations, by name.
	claims map[string]*corev1.PersistentVolumeClaim
}

type modelPod struct {
	object *corev1.Pod
	// load in thousandths of a core, at so long after noon.
	load func(time.Duration) float64
	// used since the last scrape, in milli-core-seconds.
	used float64
}

type modelMove struct {
	workload          string
	from, to          string
	created, finished time.Time
}

func newModel(t *testing.T, nodes int) *model {
	scheme := runtime.NewScheme()
	must(t, corev1.AddToScheme(scheme))
	must(t, v1alpha1.AddToScheme(scheme))
	m := &model{
		Client: fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.PodMigration{}).Build(),
		t:      t, clock: clocktesting.NewFakeClock(noon), pods: map[string]*modelPod{}, accepted: map[types.UID]time.Time{}, claims: map[string]*corev1.PersistentVolumeClaim{},
	}
	for i := range nodes {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%02d", i)}, Status: corev1.NodeStatus{
			Allocatable: corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(nodeCPU, resource.DecimalSI), corev1.ResourceMemory: resource.MustParse("64Gi")},
			Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		}}
		must(t, m.Create(t.Context(), node.DeepCopy()))
		m.nodes = append(m.nodes, node)
	}
	return m
}

// addPod puts a pod on a node; an owner is a ReplicaSet.
func (m *model) addPod(name, owner, node string, load func(time.Duration) float64) {
	request := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("256Mi")}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(noon.Add(-time.Hour))},
		Spec: corev1.PodSpec{NodeName: node, SchedulerName: v1alpha1.SchedulerName,
			Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: request}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning,
			ContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}},
	}
	if owner != "" {
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: owner, UID: types.UID(owner), Controller: new(true)}}
	}
	m.add(&modelPod{object: pod, load: load})
}

func (m *model) add(pod *modelPod) {
	must(m.t, m.Create(m.t.Context(), pod.object.DeepCopy()))
	m.pods[pod.object.Name] = pod
}

// Observe reads the cluster as package observe does.
func (m *model) Observe(ctx context.Context) (*observe.Observation, error) {
	migrations := &v1alpha1.PodMigrationList{}
	if err := m.List(ctx, migrations); err != nil {
		return nil, err
	}
	observation := &observe.Observation{At: m.clock.Now(), Nodes: m.nodes, Migrations: migrations.Items,
		NodeMetrics: m.nodeMetrics, PodMetrics: m.podMetrics, Claims: m.claimLookup, Owner: fixture.OwnerOf}
	for _, pod := range m.pods {
		observation.Pods = append(observation.Pods, pod.object)
	}
	return observation, nil
}

func (m *model) claimLookup(string) containers.ClaimLookup {
	return func(name string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
		return m.claims[name], nil
	}
}

// run lets time pass, second by second, with a cycle of the loop every interval.
// Restart is how often a new loop takes over; 0 is never.
func (m *model) run(args *config.RebalanceArgs, length, restart time.Duration) {
	quiet := klog.NewContext(m.t.Context(), logr.Discard())
	var loop *Loop
	for elapsed := time.Duration(0); elapsed < length; elapsed += time.Second {
		if loop == nil || restart > 0 && elapsed%restart == 0 {
			loop = newLoopWith(m.t, &world{Client: m}, m.clock, args)
			loop.Observer = m
		}
		if elapsed%args.Interval.Duration == 0 {
			must(m.t, loop.cycle(quiet))
		}
		m.clock.Step(time.Second)
		m.work(time.Second)
		if (elapsed+8*time.Second)%scrapeInterval == 0 {
			m.scrape()
		}
		if elapsed%(5*time.Second) == 0 {
			m.migrate()
		}
	}
}

func (m *model) work(length time.Duration) {
	for _, pod := range m.pods {
		pod.used += pod.load(m.clock.Since(noon)) * length.Seconds()
	}
}

func (m *model) scrape() {
	m.nodeMetrics, m.podMetrics = nil, nil
	now, window := metav1.NewTime(m.clock.Now()), metav1.Duration{Duration: scrapeInterval}
	amounts := func(milliCPU float64) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(int64(milliCPU), resource.DecimalSI), corev1.ResourceMemory: resource.MustParse("256Mi")}
	}
	used := map[string]float64{}
	for _, pod := range m.pods {
		mean := pod.used / scrapeInterval.Seconds()
		pod.used = 0
		used[pod.object.Spec.NodeName] += mean
		// Like metrics-server, it needs two scrapes of a pod.
		if now.Sub(pod.object.CreationTimestamp.Time) > scrapeInterval {
			m.podMetrics = append(m.podMetrics, metricsv1beta1.PodMetrics{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: pod.object.Name},
				Timestamp: now, Window: window, Containers: []metricsv1beta1.ContainerMetrics{{Name: "c", Usage: amounts(mean)}}})
		}
	}
	for _, node := range m.nodes {
		m.nodeMetrics = append(m.nodeMetrics, metricsv1beta1.NodeMetrics{ObjectMeta: metav1.ObjectMeta{Name: node.Name},
			Timestamp: now, Window: window, Usage: amounts(used[node.Name])})
	}
}

// migrate is the migration controller and the scheduler: a migration succeeds,
// after its time, on the node that was planned.
func (m *model) migrate() {
	list := &v1alpha1.PodMigrationList{}
	must(m.t, m.List(m.t.Context(), list))
	for i := range list.Items {
		migration := &list.Items[i]
		// The fake client gives no UID.
		id := types.UID(migration.Name)
		created, known := m.accepted[id]
		switch {
		case migration.Status.Phase.IsFinished():
		case !known:
			m.accepted[id] = m.clock.Now()
		case m.clock.Since(created) >= migrationTime:
			m.finish(migration, created)
		}
	}
}

func (m *model) finish(migration *v1alpha1.PodMigration, created time.Time) {
	original := m.pods[migration.Spec.PodName]
	if original == nil || original.object.Spec.NodeName != migration.Spec.SourceNode {
		m.t.Fatalf("a migration was created for a pod that is not there: %+v", migration.Spec)
	}
	now := m.clock.Now()
	replacement := m.replacementOf(original.object, migration)
	replacement.CreationTimestamp = metav1.NewTime(created)
	root, owner := containers.RootName(replacement), metav1.GetControllerOf(replacement)
	must(m.t, m.Delete(m.t.Context(), original.object.DeepCopy()))
	delete(m.pods, original.object.Name)
	m.add(&modelPod{object: replacement, load: original.load, used: original.used})

	at := metav1.NewMicroTime(now)
	migration.Status.Phase = v1alpha1.PhaseSucceeded
	migration.Status.Original = &v1alpha1.PodReference{Name: migration.Spec.PodName, NodeName: migration.Spec.SourceNode}
	migration.Status.Replacement = &v1alpha1.PodReference{Name: replacement.Name, NodeName: replacement.Spec.NodeName}
	migration.Status.Handover = &v1alpha1.Handover{Owner: owner}
	migration.Status.Downtime = &metav1.Duration{Duration: time.Second}
	migration.Status.Times = v1alpha1.StepTimes{Placed: &at, OriginalGone: &at, Finished: &at}
	must(m.t, m.Client.Status().Update(m.t.Context(), migration))
	workload := budget.WorkloadOf("ns", root, owner)
	m.moves = append(m.moves, modelMove{workload, migration.Spec.SourceNode, replacement.Spec.NodeName, created, now})
}

// replacementOf builds the replacement as the migration controller does, with a claim
// where one was asked for, and lets it run where it was planned. Its owner has adopted it.
func (m *model) replacementOf(original *corev1.Pod, migration *v1alpha1.PodMigration) *corev1.Pod {
	number, root, name := len(m.moves), containers.RootName(original), ""
	if migration.Spec.Checkpoint.ClaimPolicy() == v1alpha1.ClaimAlways {
		name = fmt.Sprintf("checkpoint-%d", number)
		m.claims[name] = &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
			Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{migration.Spec.Checkpoint.ClaimAccessMode()}}}
	}
	replacement, err := containers.BuildReplacement(original, containers.Judge(original, containers.PolicyOf(migration)), containers.ReplacementOptions{
		Name: fmt.Sprintf("%s-migrated-%d", root, number), MigrationUID: types.UID(migration.Name), ClaimName: name, PlannedNode: migration.Spec.PlannedNode,
	})
	must(m.t, err)
	replacement.UID = types.UID(replacement.Name)
	replacement.OwnerReferences = original.OwnerReferences
	replacement.Spec.NodeName = migration.Spec.PlannedNode
	replacement.Status = *original.Status.DeepCopy()
	return replacement
}

// describeLoads tells what the nodes use now, in percent of their CPU.
func (m *model) describeLoads() string {
	var loads []string
	for _, node := range m.nodes {
		sum := 0.0
		for _, pod := range m.pods {
			if pod.object.Spec.NodeName == node.Name {
				sum += pod.load(m.clock.Since(noon))
			}
		}
		loads = append(loads, fmt.Sprintf("%.0f%%", 100*sum/nodeCPU))
	}
	return strings.Join(loads, " ")
}

func (m *model) movesByWorkload() map[string][]modelMove {
	byWorkload := map[string][]modelMove{}
	for _, move := range m.moves {
		byWorkload[move.workload] = append(byWorkload[move.workload], move)
	}
	for _, moves := range byWorkload {
		slices.SortFunc(moves, func(a, b modelMove) int { return a.created.Compare(b.created) })
	}
	return byWorkload
}
