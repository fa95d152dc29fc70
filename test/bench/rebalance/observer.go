package main

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// observer watches all pods, keeps their lineage, and tells what uses how much.
// It is the truth of the benchmark: it knows neither tool and no metrics API.
type observer struct {
	scenario *scenario
	// slotted is called for each new pod that has a slot.
	slotted func(name string, r *replica)

	mu       sync.Mutex
	lineage  *lineage
	replicas map[slot]*replica
}

func newObserver(f *fixture, slotted func(string, *replica)) *observer {
	o := &observer{scenario: f.scenario, slotted: slotted, lineage: newLineage(), replicas: map[slot]*replica{}}
	now := time.Now()
	for i, r := range f.scenario.replicas {
		o.replicas[r.slot] = r
		o.lineage.seed(f.uids[i], "", r.slot, r.start, now)
	}
	return o
}

// start watches until ctx ends.
func (o *observer) start(ctx context.Context, client kubernetes.Interface) error {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	informer := factory.Core().V1().Pods().Informer()
	handlers := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { o.see(object.(*corev1.Pod)) },
		UpdateFunc: func(_, object any) { o.see(object.(*corev1.Pod)) },
		DeleteFunc: func(object any) {
			if final, missed := object.(cache.DeletedFinalStateUnknown); missed {
				object = final.Obj
			}
			if pod, ok := object.(*corev1.Pod); ok {
				o.seeGone(pod)
			}
		},
	}
	if _, err := informer.AddEventHandler(handlers); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	return ctx.Err()
}

func (o *observer) see(pod *corev1.Pod) {
	workload := pod.Labels[workloadLabel]
	if pod.Labels[v1alpha1.RoleLabel] != "" {
		return // holds a place for another pod and uses nothing
	}
	o.mu.Lock()
	uid, now := string(pod.UID), time.Now()
	known := o.lineage.pods[uid] != nil
	s, found := o.lineage.appeared(uid, pod.Name, workload, pod.Annotations[v1alpha1.OriginalUIDAnnotation])
	if pod.Spec.NodeName != "" {
		o.lineage.placed(uid, pod.Spec.NodeName)
	}
	if pod.Status.Phase == corev1.PodRunning {
		o.lineage.started(uid, now)
	}
	if pod.DeletionTimestamp != nil {
		o.lineage.leaving(uid, now)
	}
	if life := o.lineage.pods[uid]; life != nil {
		life.name = pod.Name
	}
	r := o.replicas[s]
	o.mu.Unlock()
	if found && !known && o.slotted != nil {
		o.slotted(pod.Name, r)
	}
}

func (o *observer) seeGone(pod *corev1.Pod) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lineage.gone(string(pod.UID), time.Now())
}

// present are the pods that are there, by name, with their replicas.
func (o *observer) present() map[string]*replica {
	o.mu.Lock()
	defer o.mu.Unlock()
	pods := map[string]*replica{}
	for _, life := range o.lineage.pods {
		if life.gone.IsZero() && life.name != "" {
			pods[life.name] = o.replicas[life.slot]
		}
	}
	return pods
}

// point is the cluster at a moment.
type point struct {
	// Seconds since the tool was started.
	Seconds float64 `json:"seconds"`
	// Deviation of the CPU load over the nodes, in percent of allocatable, and
	// what it would be if no pod had moved.
	Deviation float64 `json:"deviation"`
	Skipped   float64 `json:"skipped"`
	Mean      float64 `json:"mean"`
	Max       float64 `json:"max"`
	// Overutilized nodes are above the threshold.
	Overutilized int `json:"overutilized"`
	// Down are the replicas of which no pod runs.
	Down int `json:"down"`
	// Moves so far.
	Moves int `json:"moves"`
}

// measure takes the loads from what is there and what it uses.
func (o *observer) measure(elapsed time.Duration, sample int, threshold float64) point {
	o.mu.Lock()
	defer o.mu.Unlock()
	var now, start []placed
	down := 0
	for _, life := range o.lineage.pods {
		if life.runs() {
			now = append(now, placed{life.node, o.replicas[life.slot].milliCPUAt(sample)})
		}
	}
	for _, r := range o.scenario.replicas {
		start = append(start, placed{r.start, r.milliCPUAt(sample)})
		if o.lineage.slots[r.slot].isDown() {
			down++
		}
	}
	shares := loads(o.scenario.nodes, now)
	p := point{
		Seconds: elapsed.Seconds(), Deviation: 100 * deviation(shares), Mean: 100 * mean(shares), Down: down,
		Skipped: 100 * deviation(loads(o.scenario.nodes, start)), Moves: len(o.lineage.moves()),
	}
	for _, share := range shares {
		p.Max = max(p.Max, 100*share)
		if share > threshold {
			p.Overutilized++
		}
	}
	return p
}

// moves and strangers so far.
func (o *observer) moves() (moves []move, strangers int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lineage.moves(), len(o.lineage.strangers)
}
