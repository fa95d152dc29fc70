package simulate

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
)

// agent is a node agent: the real decisions, and a model of what carries them out.
type agent struct {
	w      *world
	m      *machine
	name   string
	client client.Client
	// records are the pods that it has frozen, on the disk of the node.
	records []frozenRecord
	// fingerprint is that of its certificate. restarts are those of the pods that it has
	// copied, by migration, and receivers what it receives into. All are those of a process: a
	// crash loses them.
	fingerprint string
	restarts    map[types.UID]int32
	receivers   map[types.UID]*receiver
	running     map[types.NamespacedName]*process
	due         map[types.NamespacedName]moment
	again       map[types.NamespacedName]bool
	down        bool
	// watching is set while it looks at frozen pods.
	watching bool
}

type frozenRecord struct {
	key       types.NamespacedName
	migration types.UID
	pod       types.UID
	attempt   int32
	// until is when it must be thawed, unless a seal is accepted; sealed: there is a seal,
	// which must be complete at sealBy.
	until, sealBy moment
	sealed        bool
	// boots and restarts are those of machine and pod when it was frozen.
	boots    int
	restarts int32
	// disturbed: it did not stay as it was. released: its replacement may run. stranded: a
	// user has to decide which of the two continues.
	disturbed, released, stranded bool
}

const (
	lookAgain  = 300 * time.Millisecond
	gcInterval = 5 * time.Second
	// hangGrace is how long the work on a seal may take to notice that its time is over.
	hangGrace = 2 * time.Second
)

// errNotWanted and errNoProcess are what the agent calls transient.
var (
	errNotWanted = errors.New("the migration no longer asks for it")
	errNoProcess = errors.New("no process of it runs here")
)

func newAgent(m *machine) *agent {
	a := &agent{w: m.w, m: m, name: "agent " + m.node}
	a.client = &apiClient{w: m.w}
	if m.w.plant != nil && m.w.plant.Client != nil {
		a.client = m.w.plant.Client(m.w, a.client)
	}
	a.forget()
	m.w.after(gcInterval, a.collect)
	return a
}

func (a *agent) forget() {
	a.fingerprint = a.w.newFingerprint()
	a.restarts, a.receivers = map[types.UID]int32{}, map[types.UID]*receiver{}
	a.running, a.due, a.again = map[types.NamespacedName]*process{}, map[types.NamespacedName]moment{}, map[types.NamespacedName]bool{}
}

// hold suspends what the agent does: it does not reach the API server.
func (a *agent) hold(is bool) {
	for _, p := range a.running {
		p.held = is
	}
}

// crash ends the agent until start.
func (a *agent) crash() {
	a.m.excuseProbes()
	for _, p := range a.running {
		p.kill()
	}
	a.forget()
	a.down = true
}

func (a *agent) start() {
	a.down = false
	a.watching = false
	a.beginWatch()
	a.due = map[types.NamespacedName]moment{}
	each(a.w.store, migrations, func(m *v1alpha1.PodMigration) { a.enqueue(keyOf(m), a.w.now) })
}

func (a *agent) observe(before, after client.Object) {
	object := after
	if object == nil {
		object = before
	}
	if kindOf(object) == migrations {
		a.enqueue(keyOf(object), a.w.now+a.w.between(time.Millisecond, 30*time.Millisecond))
	}
}

func (a *agent) enqueue(key types.NamespacedName, at moment) {
	if due, has := a.due[key]; has && due <= at {
		return
	}
	a.due[key] = at
	a.w.at(at, func() { a.work(key) })
}

func (a *agent) work(key types.NamespacedName) {
	due, has := a.due[key]
	if !has || due > a.w.now || a.down || a.m.isDown() {
		return
	}
	delete(a.due, key)
	if a.running[key] != nil {
		a.again[key] = true
		return
	}
	var wait time.Duration
	var err error
	a.running[key] = a.w.spawn(a.name, 0, &a.w.agentCalls, func(*process) { wait, err = a.reconcile(key) }, func() {
		delete(a.running, key)
		switch {
		case isConflict(err):
			wait = time.Millisecond
		case errors.Is(err, errNotWanted), errors.Is(err, errNoProcess):
			wait = lookAgain
		case errors.Is(err, errDisconnected), errors.Is(err, errRefused):
			wait = a.w.between(lookAgain, time.Second)
		case err != nil:
			wait = time.Second
		}
		if a.again[key] {
			delete(a.again, key)
			a.enqueue(key, a.w.now)
		}
		if wait > 0 {
			a.enqueue(key, a.w.now+wait)
		}
	})
}

func isConflict(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Reason == metav1.StatusReasonConflict
}

func (a *agent) reconcile(key types.NamespacedName) (time.Duration, error) {
	m := &v1alpha1.PodMigration{}
	if err := a.client.Get(context.Background(), key, m); err != nil {
		return 0, client.IgnoreNotFound(err)
	}
	original, pod := m.Status.Original, m.DestinationPod()
	var wait time.Duration
	var err error
	if original != nil && original.NodeName == a.m.node {
		wait, err = a.serveSource(m.DeepCopy())
	}
	if m.Status.Checkpoint != nil && (pod != nil && pod.NodeName == a.m.node || a.keeps(m.UID)) {
		err = errors.Join(err, a.serveDestination(m))
	}
	return wait, err
}

func (a *agent) record(migration types.UID) *frozenRecord {
	for i := range a.records {
		if a.records[i].migration == migration {
			return &a.records[i]
		}
	}
	return nil
}

// while takes time, and ends with errNotWanted when the work is not wanted any more.
func (a *agent) while(m *v1alpha1.PodMigration, d time.Duration) error {
	p := a.w.running
	for d > 0 {
		nap := min(d, lookAgain)
		p.sleep(nap)
		d -= nap
		now := &v1alpha1.PodMigration{}
		err := a.client.Get(context.Background(), keyOf(m), now)
		if apierrors.IsNotFound(err) || err == nil && !decide.IsSame(m, now) {
			return errNotWanted
		}
	}
	return nil
}

func (a *agent) fail(m *v1alpha1.PodMigration, reason string) error {
	return a.reportLate(m, func(c *v1alpha1.CheckpointStatus) {
		s := a.source(c)
		s.Phase, s.Reason, s.Message = v1alpha1.SourceFailed, reason, reason
	})
}

func (a *agent) microNow() *metav1.MicroTime {
	t := metav1.NewMicroTime(a.w.clock())
	return &t
}

// report changes the status, unless the migration has changed since it was read.
func (a *agent) report(m *v1alpha1.PodMigration, change func(*v1alpha1.CheckpointStatus)) error {
	base := m.DeepCopy()
	change(m.Status.Checkpoint)
	err := a.client.Status().Patch(context.Background(), m, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
	if err != nil {
		base.DeepCopyInto(m)
	}
	return err
}

// reportLate reports what took its time, as long as it is still wanted.
func (a *agent) reportLate(m *v1alpha1.PodMigration, change func(*v1alpha1.CheckpointStatus)) error {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, lookAgain) {
		now := &v1alpha1.PodMigration{}
		err := a.client.Get(context.Background(), keyOf(m), now)
		if apierrors.IsNotFound(err) || err == nil && !decide.IsSame(m, now) {
			return errNotWanted
		}
		if err == nil {
			err = a.report(now, change)
		}
		switch {
		case err == nil:
			now.DeepCopyInto(m)
			return nil
		case apierrors.IsNotFound(err):
			return errNotWanted
		}
		a.w.running.sleep(pause)
	}
}

func (a *agent) pod(namespace string, reference *v1alpha1.PodReference) (*corev1.Pod, error) {
	p := &corev1.Pod{}
	err := a.client.Get(context.Background(), types.NamespacedName{Namespace: namespace, Name: reference.Name}, p)
	if apierrors.IsNotFound(err) || err == nil && p.UID != reference.UID {
		return nil, nil
	}
	return p, err
}
