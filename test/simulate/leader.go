package simulate

import (
	"context"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
)

// agentImage is the image of the node agent in every run.
const agentImage = "agent:1"

const (
	// leaseDuration is how long another replica waits for a leader that is silent.
	leaseDuration = 15 * time.Second
	firstRetry    = 100 * time.Millisecond
	lastRetry     = 30 * time.Second
)

// leader is a replica of the rebalancer: a reconciler, its queue and its cache. Only
// one leads; one that stalled leads on for a moment after it has lost the lease.
type leader struct {
	w          *world
	name       string
	skew       time.Duration
	reconciler reconcile.Reconciler
	cached     *cache
	queue      map[types.NamespacedName]moment
	failures   map[types.NamespacedName]int
	process    *process
	leads      bool
	// away is until when it is being started again.
	away moment
	// lastSteps is how many reconciliations it still begins without the lease.
	lastSteps int
}

func newLeader(w *world, name string, skew time.Duration) *leader {
	l := &leader{w: w, name: name, skew: skew, cached: &cache{w: w}}
	l.reset()
	return l
}

// reset is a new process: nothing of before is remembered.
func (l *leader) reset() {
	l.queue, l.failures = map[types.NamespacedName]moment{}, map[types.NamespacedName]int{}
	c := client.Client(&apiClient{w: l.w, cached: l.cached})
	live := client.Client(&apiClient{w: l.w})
	if l.w.plant != nil && l.w.plant.Client != nil {
		c, live = l.w.plant.Client(l.w, c), l.w.plant.Client(l.w, live)
	}
	l.reconciler = migration.NewReconciler(migration.Environment{
		Client: c, Live: live, Recorder: &events.FakeRecorder{}, Metrics: noMetrics{}, Clock: skewedClock{l},
	}, migration.Options{
		AgentImage: agentImage, Budget: &budget.Limits{InFlight: 4, PerNode: 4, PerNamespace: 4, PerWorkload: 1},
		OnStep: func(_ types.NamespacedName, step string) error { return l.w.reached(step) },
	})
}

// lead gives a replica the lease.
func (l *leader) lead() {
	l.leads = true
	l.cached.relist()
	l.queue, l.failures = map[types.NamespacedName]moment{}, map[types.NamespacedName]int{}
	each(l.w.store, migrations, func(m *v1alpha1.PodMigration) { l.enqueue(keyOf(m), l.w.now) })
}

func keyOf(object client.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetName()}
}

// observe is the watch of a replica. Events come late, some very late.
func (l *leader) observe(before, after client.Object) {
	object := after
	if object == nil {
		object = before
	}
	k := kindOf(object)
	if k != pods && k != migrations {
		return
	}
	delay := l.w.between(time.Millisecond, 30*time.Millisecond)
	if l.w.random.IntN(lateWatchOdds) == 0 {
		delay = l.w.between(time.Second, l.w.scenario.lateWatch)
	}
	if k == migrations {
		// A watch may be late, but not out of order.
		l.cached.until = max(l.cached.until, l.w.now+delay)
		l.w.at(l.cached.until, func() { l.cached.see(before, after) })
		l.enqueue(keyOf(object), l.cached.until)
		return
	}
	each(l.w.store, migrations, func(m *v1alpha1.PodMigration) {
		isMarked := string(m.UID) == object.GetLabels()[v1alpha1.MigrationUIDLabel]
		concerns := isMarked || m.Spec.PodName == object.GetName()
		if m.Status.Phase.IsFinished() {
			// What is made for it after its end.
			concerns = isMarked && (m.Status.Replacement == nil || m.Status.Replacement.UID != object.GetUID())
		}
		if m.Namespace == object.GetNamespace() && concerns {
			l.enqueue(keyOf(m), l.w.now+delay)
		}
	})
}

// lateWatchOdds is how many watch events come at once for one that does not.
const lateWatchOdds = 40

func (l *leader) enqueue(key types.NamespacedName, at moment) {
	if due, has := l.queue[key]; has && due <= at {
		return
	}
	l.queue[key] = at
	l.w.at(at, l.work)
}

// work begins the next reconciliation that is due. There is one at a time.
func (l *leader) work() {
	if l.process != nil || !l.leads && l.lastSteps == 0 {
		return
	}
	var next types.NamespacedName
	found := false
	for key, at := range l.queue {
		if at <= l.w.now && (!found || at < l.queue[next] || at == l.queue[next] && key.String() < next.String()) {
			next, found = key, true
		}
	}
	if !found {
		return
	}
	if !l.leads {
		l.lastSteps--
	}
	delete(l.queue, next)
	l.w.statistic.Reconciliations++
	var result ctrl.Result
	var err error
	l.process = l.w.spawn(l.name, l.skew, &l.w.leaderCalls, func(*process) {
		result, err = l.reconciler.Reconcile(context.Background(), ctrl.Request{NamespacedName: next})
	}, func() {
		l.process = nil
		switch {
		case err != nil:
			l.w.say(l.name, "fails: %v", err)
			wait := min(lastRetry, firstRetry<<min(l.failures[next], 10))
			l.failures[next]++
			l.enqueue(next, l.w.now+wait)
		case result.RequeueAfter > 0:
			l.failures[next] = 0
			l.enqueue(next, l.w.now+result.RequeueAfter)
		default:
			l.failures[next] = 0
		}
		l.work()
	})
}

// crash ends the process of a replica where it is. Another one leads after the lease,
// and it is back itself before that or after.
func (l *leader) crash(back time.Duration) {
	w := l.w
	w.say(l.name, "crashes")
	if l.process != nil {
		l.process.kill()
		l.process = nil
	}
	l.leads, l.lastSteps = false, 0
	l.away = w.now + back
	l.reset()
	w.after(leaseDuration, w.elect)
}

// stall suspends a replica. It loses the lease, and continues where it was.
func (l *leader) stall(d time.Duration, steps int) {
	w, p := l.w, l.process
	w.say(l.name, "stalls for %s", d.Round(time.Second))
	if p != nil {
		p.held = true
		w.after(d, func() { p.held = false; w.say(l.name, "continues") })
	}
	if d > leaseDuration {
		w.after(leaseDuration+2*time.Second, func() {
			l.leads, l.lastSteps = false, steps
			w.elect()
		})
	}
}

// elect gives the lease to a replica when none has it: one that neither stalls nor is
// being started again.
func (w *world) elect() {
	if slices.ContainsFunc(w.leaders, func(l *leader) bool { return l.leads }) {
		return
	}
	for _, l := range w.leaders {
		if w.now >= l.away && (l.process == nil || !l.process.held) {
			w.say(l.name, "leads")
			l.lead()
			return
		}
	}
	w.after(time.Second, w.elect)
}

// skewedClock is the clock of a machine.
type skewedClock struct{ l *leader }

func (c skewedClock) Now() time.Time                  { return c.l.w.clock().Add(c.l.skew) }
func (c skewedClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// noMetrics is a cluster without metrics API.
type noMetrics struct {
	metricsclient.PodMetricsInterface
}

func (n noMetrics) PodMetricses(string) metricsclient.PodMetricsInterface { return n }

func (noMetrics) Get(context.Context, string, metav1.GetOptions) (*metricsv1beta1.PodMetrics, error) {
	return nil, apierrors.NewServiceUnavailable("no metrics API")
}

// cache holds migrations as a replica has seen them.
type cache struct {
	w    *world
	seen []*v1alpha1.PodMigration
	// until is when the last event comes that is on its way.
	until moment
}

func (c *cache) relist() {
	c.seen = nil
	each(c.w.store, migrations, func(m *v1alpha1.PodMigration) { c.seen = append(c.seen, m) })
}

func (c *cache) see(before, after client.Object) {
	object := after
	if object == nil {
		object = before
	}
	c.seen = slices.DeleteFunc(slices.Clone(c.seen), func(m *v1alpha1.PodMigration) bool { return m.UID == object.GetUID() })
	if m, is := after.(*v1alpha1.PodMigration); is {
		c.seen = append(c.seen, m)
	}
}

// list serves the index that the budget is looked up by: migrations that hold a place.
func (c *cache) list(o client.ListOptions) (items []v1alpha1.PodMigration) {
	for _, m := range c.seen {
		if isListed(m, o) && (o.FieldSelector == nil || budget.HoldsPlace(m)) {
			items = append(items, *m.DeepCopy())
		}
	}
	return items
}
