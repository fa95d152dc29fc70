package world

import (
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/scheduling/observe"
)

// Noon is when all worlds are observed first.
var Noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

const (
	zones = 3
	// overutilizedShare of the nodes run overutilized.
	overutilizedShare = 0.05
	// daemons is how many DaemonSets have a pod on every node.
	daemons = 3
	gib     = int64(1) << 30
)

// World is a cluster that can be observed, and changes.
type World struct {
	At    time.Time
	Nodes []*corev1.Node
	Pods  []*corev1.Pod
	// Usage of pods by UID, in millicores and bytes.
	Usage map[types.UID][2]int64

	random    *rand.Rand
	places    []*place
	workloads []*workload
	made      int
}

// place is a node while the world is built.
type place struct {
	node     *corev1.Node
	zone     int
	pool     string
	free     [2]int64
	heat     float64
	occupied map[int]bool
}

// workload is a template of pods.
type workload struct {
	id       int
	name     string
	requests [2]int64
	load     float64
	pool     string
	apart    bool
	spread   bool
	optedIn  bool
}

// New makes a cluster with podsPerNode pods on each node in the mean.
func New(nodes, podsPerNode int, seed uint64) *World {
	w := &World{At: Noon, Usage: map[types.UID][2]int64{}, random: rand.New(rand.NewPCG(seed, 7))}
	for i := range nodes {
		w.addNode(i)
	}
	for i := range w.places {
		for d := range daemons {
			w.addDaemon(w.places[i], d)
		}
	}
	for len(w.Pods) < nodes*podsPerNode {
		w.addWorkload(nodes*podsPerNode - len(w.Pods))
	}
	return w
}

func (w *World) addNode(i int) {
	cores := []int64{16, 32, 32, 64}[w.random.IntN(4)]
	p := &place{zone: i % zones, pool: "general", heat: 0.6 + 0.5*w.random.Float64(), occupied: map[int]bool{}}
	if w.random.Float64() < overutilizedShare {
		p.heat = 1.9 + 0.5*w.random.Float64()
	}
	name := fmt.Sprintf("node-%05d", i)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	switch r := w.random.Float64(); {
	case r < 0.1:
		p.pool = "batch"
		node.Spec.Taints = []corev1.Taint{{Key: "dedicated", Value: "batch", Effect: corev1.TaintEffectNoSchedule}}
	case r < 0.2:
		p.pool = "fast"
	}
	node.Labels = map[string]string{
		corev1.LabelHostname: name, corev1.LabelTopologyZone: fmt.Sprint("zone-", p.zone), "pool": p.pool,
	}
	p.free = [2]int64{cores * 1000, cores * 4 * gib}
	node.Status.Allocatable = amounts(p.free)
	node.Status.Allocatable[corev1.ResourcePods] = *resource.NewQuantity(110, resource.DecimalSI)
	node.Status.Capacity = node.Status.Allocatable
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	p.node = node
	w.Nodes, w.places = append(w.Nodes, node), append(w.places, p)
}

func amounts(a [2]int64) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(a[0], resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(a[1], resource.BinarySI),
	}
}

func (w *World) addDaemon(p *place, d int) {
	name := fmt.Sprintf("daemon-%d", d)
	wl := &workload{id: -1 - d, name: name, requests: [2]int64{100, gib / 4}, load: 0.3}
	w.addPod(wl, p, "DaemonSet")
}

// addWorkload makes a workload of 1 to 40 pods, or fewer when no more are
// wanted, and puts them where the scheduler might have.
func (w *World) addWorkload(most int) {
	id := len(w.workloads)
	wl := &workload{
		id: id, name: fmt.Sprintf("app-%05d", id), load: 0.2 + 0.6*w.random.Float64(),
		requests: [2]int64{100 * (1 + w.random.Int64N(14)), gib / 4 * (1 + w.random.Int64N(14))},
		pool:     "general", optedIn: w.random.Float64() < 0.9,
	}
	switch r := w.random.Float64(); {
	case r < 0.08:
		wl.pool = "batch"
	case r < 0.16:
		wl.pool = "fast"
	}
	wl.spread, wl.apart = w.random.Float64() < 0.3, w.random.Float64() < 0.2
	w.workloads = append(w.workloads, wl)
	count := min(most, 1+w.random.IntN(40))
	first := w.random.IntN(zones)
	for i := range count {
		zone := -1
		if wl.spread {
			zone = (first + i) % zones
		}
		p := w.choose(wl, zone)
		if p == nil {
			return
		}
		w.addPod(wl, p, "ReplicaSet")
	}
}

// choose finds a node for a pod of the workload: the freer of two at random.
func (w *World) choose(wl *workload, zone int) *place {
	var best *place
	found := 0
	for range 200 {
		p := w.places[w.random.IntN(len(w.places))]
		fits := p.free[0] >= wl.requests[0] && p.free[1] >= wl.requests[1]
		if !fits || p.pool != wl.pool && (wl.pool != "general" || p.pool == "batch") || zone >= 0 && p.zone != zone || wl.apart && p.occupied[wl.id] {
			continue
		}
		if best == nil || p.free[0]*best.node.Status.Allocatable.Cpu().MilliValue() > best.free[0]*p.node.Status.Allocatable.Cpu().MilliValue() {
			best = p
		}
		if found++; found == 2 {
			break
		}
	}
	return best
}

func (w *World) addPod(wl *workload, p *place, owner string) {
	pod := w.podOf(wl, p, owner)
	w.Pods = append(w.Pods, pod)
	p.free[0] -= wl.requests[0]
	p.free[1] -= wl.requests[1]
	p.occupied[wl.id] = true
	w.Usage[pod.UID] = w.use(wl, p)
}

func (w *World) use(wl *workload, p *place) [2]int64 {
	noise := 0.7 + 0.6*w.random.Float64()
	cpu := float64(wl.requests[0]) * min(1.6, wl.load*p.heat*noise)
	return [2]int64{int64(cpu), int64(float64(wl.requests[1]) * 0.8 * (0.5 + 0.5*w.random.Float64()))}
}

func (w *World) podOf(wl *workload, p *place, owner string) *corev1.Pod {
	w.made++
	name := fmt.Sprintf("%s-%06d", wl.name, w.made)
	yes := true
	labelsOf := map[string]string{"app": wl.name}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "apps", Name: name, UID: types.UID(name), Labels: labelsOf,
			CreationTimestamp: metav1.NewTime(Noon.Add(-time.Hour)),
			OwnerReferences:   []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: owner, Name: wl.name, UID: types.UID(wl.name), Controller: &yes}},
		},
		Spec: corev1.PodSpec{
			NodeName: p.node.Name, RestartPolicy: corev1.RestartPolicyAlways,
			Containers: []corev1.Container{{Name: "main", Image: "registry.example.com/" + wl.name + ":1", Resources: corev1.ResourceRequirements{Requests: amounts(wl.requests)}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, QOSClass: corev1.PodQOSBurstable, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "main", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}},
	}
	if wl.optedIn {
		pod.Spec.SchedulerName = v1alpha1.SchedulerName
	}
	constrain(pod, wl)
	return pod
}

func constrain(pod *corev1.Pod, wl *workload) {
	selector := &metav1.LabelSelector{MatchLabels: pod.Labels}
	if wl.pool != "general" && wl.pool != "" {
		pod.Spec.NodeSelector = map[string]string{"pool": wl.pool}
	}
	if wl.pool == "batch" || wl.pool == "" {
		pod.Spec.Tolerations = []corev1.Toleration{{Key: "dedicated", Operator: corev1.TolerationOpExists}}
	}
	if wl.spread {
		pod.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 2, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: selector}}
	}
	if wl.apart {
		pod.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey: corev1.LabelHostname, LabelSelector: selector}}}}
	}
}

// Change replaces share of the pods by new ones on other nodes, lets share of
// all pods use something else, and lets time pass.
func (w *World) Change(share float64) {
	w.At = w.At.Add(30 * time.Second)
	count := int(share * float64(len(w.Pods)))
	byNode := map[string]*place{}
	for _, p := range w.places {
		byNode[p.node.Name] = p
	}
	for range count {
		pod := w.Pods[w.random.IntN(len(w.Pods))]
		use := w.Usage[pod.UID]
		w.Usage[pod.UID] = [2]int64{use[0] * (50 + w.random.Int64N(100)) / 100, use[1]}
	}
	for range count / 4 {
		i := w.random.IntN(len(w.Pods))
		wl := w.workloadOf(w.Pods[i])
		if wl == nil || wl.spread || wl.apart {
			continue
		}
		if p := w.choose(wl, -1); p != nil {
			from := byNode[w.Pods[i].Spec.NodeName]
			from.free[0] += wl.requests[0]
			from.free[1] += wl.requests[1]
			delete(w.Usage, w.Pods[i].UID)
			w.addPod(wl, p, "ReplicaSet")
			w.Pods[i] = w.Pods[len(w.Pods)-1]
			w.Pods = w.Pods[:len(w.Pods)-1]
		}
	}
}

func (w *World) workloadOf(pod *corev1.Pod) *workload {
	var id int
	if _, err := fmt.Sscanf(pod.Labels["app"], "app-%d", &id); err != nil {
		return nil
	}
	return w.workloads[id]
}

// Options are those of the loop.
func Options() observe.Options {
	return observe.Options{
		SchedulerName: v1alpha1.SchedulerName, Nodes: labels.Everything(),
		MetricsMaxAge: 2 * time.Minute, MinimumPodAge: time.Minute, Cooldown: 10 * time.Minute, PriorityCeiling: 1_000_000_000,
	}
}

// noClaims finds no claim: the pods of a world have no volumes.
func noClaims(string) containers.ClaimLookup {
	return func(string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) { return nil, nil }
}
