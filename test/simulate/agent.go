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

// crash ends the agent; down keeps it so until start.
func (a *agent) crash(down bool) {
	a.m.excuseProbes()
	for _, p := range a.running {
		p.kill()
	}
	a.forget()
	a.down = down
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

func (a *agent) serveSource(m *v1alpha1.PodMigration) (time.Duration, error) {
	original := decide.Original{}
	if report := m.Status.Checkpoint; report != nil && decide.CurrentSource(report) != nil {
		original.IsIntroduced = report.Source.Fingerprint == a.fingerprint
	}
	r := a.record(m.UID)
	if r != nil {
		r.released = r.released || decide.IsReleased(m)
		original.FrozenIn, original.IsDisturbed, original.IsOverdue = r.attempt, r.disturbed, r.sealed && a.w.now > r.until
		p, err := a.pod(m.Namespace, m.Status.Original)
		if err != nil {
			return 0, err
		}
		original.IsLeaving = p == nil || p.DeletionTimestamp != nil
	}
	pod := m.Status.Original.UID
	task := decide.SourceTask(m, original)
	if a.w.plant != nil && a.w.plant.SourceTask != nil {
		task = a.w.plant.SourceTask(m, task)
	}
	switch task {
	case decide.TaskMeasure:
		return 0, a.measure(m)
	case decide.TaskCopy:
		return 0, a.copyWhileRunning(m)
	case decide.TaskIntroduce:
		return 0, a.report(m, func(c *v1alpha1.CheckpointStatus) { a.source(c) })
	case decide.TaskSeal:
		return 0, a.seal(m)
	case decide.TaskSealAgain:
		return 0, a.reportAndThaw(m, v1alpha1.SourceSealing)
	case decide.TaskReportAndThaw, decide.TaskVoidSeal:
		return 0, a.reportAndThaw(m, v1alpha1.SourceThawed)
	case decide.TaskThaw:
		a.unfreeze(m.UID, pod)
	case decide.TaskKill:
		a.kill(m.UID, pod)
	case decide.TaskKillAndHold:
		a.killAndHold(m.UID)
	case decide.TaskStrand:
		if r := a.record(m.UID); r != nil {
			r.stranded = true
		}
	case decide.TaskKeepFrozen:
		return lookAgain, nil
	}
	return 0, nil
}

func (a *agent) source(c *v1alpha1.CheckpointStatus) *v1alpha1.SourceReport {
	if c.Source == nil || c.Source.Attempt != c.Attempt {
		c.Source = &v1alpha1.SourceReport{Attempt: c.Attempt}
	}
	c.Source.Node, c.Source.Fingerprint = a.m.node, a.fingerprint
	return c.Source
}

// reportAndThaw says that a seal does not count any more, before the pod runs.
func (a *agent) reportAndThaw(m *v1alpha1.PodMigration, as v1alpha1.SourcePhase) error {
	if err := a.report(m, func(c *v1alpha1.CheckpointStatus) { a.source(c).Phase = as }); err != nil {
		return err
	}
	a.unfreeze(m.UID, m.Status.Original.UID)
	return nil
}

func (a *agent) measure(m *v1alpha1.PodMigration) error {
	if err := a.while(m, a.w.between(10*time.Millisecond, time.Second)); err != nil {
		return err
	}
	i := a.m.instance(m.Status.Original.UID)
	if i == nil {
		return errNoProcess
	}
	if err := a.moving(m, i); err != nil {
		return a.failed(m, err)
	}
	if i.stage != running {
		return errNoProcess
	}
	if movesProcesses(m) && a.w.scenario.immovable == failsToMeasure {
		return a.fail(m, v1alpha1.ReportProcessNotMovable)
	}
	return a.reportLate(m, func(c *v1alpha1.CheckpointStatus) {
		s := a.source(c)
		s.Phase, s.Bytes, s.Files = v1alpha1.SourceMeasured, 1<<20, 1
	})
}

func movesProcesses(m *v1alpha1.PodMigration) bool { return len(m.Status.Checkpoint.Processes) > 0 }

// notPossible is a failure that will not pass by itself, with the reason to report.
type notPossible struct{ reason string }

func (f *notPossible) Error() string { return f.reason }

// failed reports a failure that will not pass by itself, and returns any other.
func (a *agent) failed(m *v1alpha1.PodMigration, failure error) error {
	if f, is := errors.AsType[*notPossible](failure); is {
		return a.fail(m, f.reason)
	}
	return failure
}

// moving wants the containers to run whose processes move.
func (a *agent) moving(m *v1alpha1.PodMigration, i *instance) error {
	if movesProcesses(m) && !i.runs {
		return &notPossible{v1alpha1.ReportProcessNotMovable}
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

// original is the pod to copy, as it runs here.
func (a *agent) original(m *v1alpha1.PodMigration) (*instance, error) {
	i := a.m.instance(m.Status.Original.UID)
	if i == nil {
		return nil, errNoProcess
	}
	if err := a.moving(m, i); err != nil {
		return nil, err
	}
	if i.stage != running {
		return nil, errNoProcess
	}
	return i, nil
}

// read is what the volumes of the original hold now.
func (a *agent) read(m *v1alpha1.PodMigration) (content, *lineage, error) {
	i, err := a.original(m)
	if err != nil {
		return content{}, nil, err
	}
	i.settle()
	return content{work: i.volume}, i.lineage, nil
}

// connect connects to the agent of the destination, if all is as its report says.
func (a *agent) connect(m *v1alpha1.PodMigration) (*connection, error) {
	report := decide.Receiver(m)
	if report == nil {
		return nil, errNoProcess
	}
	pod, err := a.pod(m.Namespace, m.DestinationPod())
	if err != nil {
		return nil, err
	}
	node := &corev1.Node{}
	if err := a.client.Get(context.Background(), types.NamespacedName{Name: report.Node}, node); client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	address, fingerprint, err := decide.ConnectTo(m, pod, node)
	if err != nil {
		a.w.say(a.name, "does not connect: %v", err)
		return nil, errNoProcess
	}
	a.m.sent[m.UID] = true
	return a.dial(address, fingerprint, decide.Sender{Fingerprint: a.fingerprint, Migration: m.UID, Attempt: m.Status.Checkpoint.Attempt})
}

func (a *agent) copyWhileRunning(m *v1alpha1.PodMigration) error {
	if _, err := a.original(m); err != nil {
		return a.failed(m, err)
	}
	c, err := a.connect(m)
	if err != nil {
		return err
	}
	sent, err := c.pass(m, a.passing(m))
	if err != nil {
		return a.failed(m, err)
	}
	if i := a.m.instance(m.Status.Original.UID); i != nil {
		a.restarts[m.UID] = i.restarts
	}
	return a.reportLate(m, func(c *v1alpha1.CheckpointStatus) {
		s := a.source(c)
		s.Phase, s.Pass, s.Bytes, s.Files = v1alpha1.SourceCopied, sent.pass, 1<<20, 1
	})
}

// passing is a pass while the pod runs.
func (a *agent) passing(m *v1alpha1.PodMigration) sending {
	return sending{took: a.w.between(20*time.Millisecond, a.w.scenario.copying), until: forEver, read: func() (content, *lineage, error) { return a.read(m) }}
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
