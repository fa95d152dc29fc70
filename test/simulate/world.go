package simulate

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// epoch is when runs begin.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// world is one run.
type world struct {
	*store
	now    moment
	events eventQueue
	number int
	// orphaned: the owner was deleted, and has left its pods behind.
	orphaned bool
	// random draws what happens by itself: latencies, names, durations. What the seed
	// draws of the scenario and of disturbances is drawn before, from other sources.
	random    *rand.Rand
	processes []*process
	running   *process
	scenario  *scenario

	leaders  []*leader
	machines []*machine
	webhook  *webhook
	work     *ledger
	checks   *checker
	// faults is what the client of an actor meets with its next calls.
	faults *faultPlan
	plant  *Plant
	// player plays a script; nil when there is none.
	player *player
	// memory is what a plant remembers of this run.
	memory map[string]client.Object

	// hanging is until when no volume can be mounted.
	hanging moment
	// recoverUntil is until when a user recovers what failed migrations have kept.
	recoverUntil moment
	// full is until when claims have no space left, and diskFull until when the disks of
	// nodes have none; linksCut is until when nodes do not reach each other.
	full, diskFull, linksCut moment
	// certificates counts those of agents.
	certificates int
	// frozen is how long a pod was frozen that was thawed again, at most.
	frozen time.Duration
	// evicting is the pod that the Eviction API deletes now.
	evicting types.UID
	// budgetsDue is set while the disruption controller is late.
	budgetsDue bool
	// gone are the moments at which pods ceased to count for the quota.
	gone []moment
	// leaderCalls and agentCalls count the calls of all of them.
	leaderCalls, agentCalls int

	// owned are the creations of the controllers of Kubernetes; binding is where the
	// scheduler is binding a pod to.
	owned   creations
	binding map[types.UID]string
	// jobsDue is set while the Job controller gathers changes; jobPause is until when a
	// Job creates no pod after a failure, jobIndexes are those that have succeeded.
	jobsDue    bool
	jobPause   map[types.UID]moment
	jobIndexes map[types.UID][]int

	// changed are the kinds that were written since the models looked last.
	changed   [kinds]bool
	modelsDue bool
	statistic Statistic

	traced  bool
	trace   []string
	actor   string
	failure *Violation
}

// event is something that happens at a moment; those of one moment in the order in
// which they were asked for.
type event struct {
	at     moment
	number int
	run    func()
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].number < q[j].number
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	*q = (*q)[:last]
	return e
}

func (w *world) at(when moment, run func()) {
	w.number++
	heap.Push(&w.events, event{at: max(when, w.now), number: w.number, run: run})
}

func (w *world) after(d time.Duration, run func()) { w.at(w.now+d, run) }

// step runs the next event. It returns false when there is none until the moment.
func (w *world) step(until moment) bool {
	if len(w.events) == 0 || w.events[0].at > until {
		return false
	}
	e := heap.Pop(&w.events).(event)
	w.now = e.at
	e.run()
	w.statistic.Steps++
	return true
}

// clock is the wall clock of the API server and of the controllers of Kubernetes.
func (w *world) clock() time.Time { return epoch.Add(w.now) }

// stamp is the current time as the API stores it: in whole seconds.
func (w *world) stamp() metav1.Time { return metav1.NewTime(w.clock().Truncate(time.Second)) }

// between draws a duration, more often short than long.
func (w *world) between(low, high time.Duration) time.Duration {
	f := w.random.Float64()
	return low + time.Duration(f*f*float64(high-low))
}

// say adds a line to the trace.
func (w *world) say(actor, format string, arguments ...any) {
	if !w.traced {
		return
	}
	w.trace = append(w.trace, fmt.Sprintf("%9.3f %-16s %s", w.now.Seconds(), actor, fmt.Sprintf(format, arguments...)))
}

// as runs something in the name of an actor.
func (w *world) as(actor string, run func()) {
	before := w.actor
	w.actor = actor
	run()
	w.actor = before
}

// end kills what is still running. No goroutine outlives a run.
func (w *world) end() {
	for _, p := range w.processes {
		p.kill()
	}
}

// wrote is called with each change of the store: before is nil for a new object, after
// for one that is gone.
func (w *world) wrote(before, after client.Object) {
	object := after
	if object == nil {
		object = before
	}
	w.changed[kindOf(object)] = true
	if !w.modelsDue {
		w.modelsDue = true
		w.after(modelDelay, w.runModels)
	}
	for _, l := range w.leaders {
		l.observe(before, after)
	}
	for _, m := range w.machines {
		m.observe(before, after)
	}
	if kindOf(object) == migrations {
		w.configure()
	}
	if isCounted(before) && !isCounted(after) {
		w.gone = append(w.gone, w.now)
	}
	w.checks.wrote(w.actor, before, after)
}

// isCounted reports whether a quota counts an object as a pod.
func isCounted(object client.Object) bool {
	p, is := object.(*corev1.Pod)
	return is && !isTerminal(p)
}

// modelDelay is how long watches of the controllers of Kubernetes take.
const modelDelay = 5 * time.Millisecond
