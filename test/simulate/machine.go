package simulate

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// machine is a node: its kubelet, what runs on it, and its node agent.
type machine struct {
	w     *world
	node  string
	actor string
	// ip is the address of the node.
	ip string
	// cut: neither the API server nor another node is reached, and what runs continues. off:
	// nothing runs. dead: off for good, and its disks are gone.
	cut, off, dead bool
	// boots counts how often it was started again.
	boots     int
	instances []*instance
	// received is what its agent has on the disk of the node.
	received []*received
	// sent are the migrations that its agent has sent something of, as the disk says.
	sent  map[types.UID]bool
	agent *agent
	// downSince is when the kubelet was last heard of.
	downSince moment
	// waiting is set while a look at the node is due.
	waiting bool
}

// stage is how far a pod is on its node.
type stage int

const (
	mounting stage = iota
	initializing
	gated
	running
	ending
	ended
)

// instance is a pod on its node.
type instance struct {
	m         *machine
	pod       types.UID
	namespace string
	name      string
	lineage   *lineage
	stage     stage
	// gateOpen is the file that lets the containers of a replacement start.
	gateOpen bool
	hasGate  bool
	// seen are the claims that the kubelet has taken note of, before it mounts them.
	seen, mounted []types.UID
	// runs: the main containers were started, and have not ended.
	runs bool
	// frozenSince is when it was frozen last.
	frozen      bool
	frozenSince moment
	killed      bool
	// cleaned: its containers have ended, and what it had is unmounted.
	cleaned  bool
	restarts int32
	// grace is what a pod that ends was given, in seconds.
	grace int64
	// volume is what is on the emptyDirs, as of since.
	volume int64
	since  moment
	// restoredFrom is what was sealed and is on the emptyDirs now, before the containers run.
	restoredFrom content
	// ready is the condition Ready; wasReady that it was once.
	ready, wasReady bool
	// images are what its processes are to be restored from; nil for a pod that starts
	// afresh. held: they are restored, and stopped until the release.
	images *images
	held   bool
	// probe is the liveness probe of the main container; nil without one. excused: it may
	// fail, since the agent of the node could not do anything about it.
	probe   *prober
	excused bool
}

// makesProgress reports whether the main containers run and take steps.
func (i *instance) makesProgress() bool {
	return i.lineage != nil && i.runs && i.stage < ended && !i.frozen && !i.held && !i.m.off
}

func (i *instance) String() string {
	name := i.name + " on " + i.m.node
	if i.stage == ending {
		name += " (terminating)"
	}
	return name
}

// workInterval is what one step of the work of a container takes.
const workInterval = 100 * time.Millisecond

// settle counts the work until now.
func (i *instance) settle() {
	w := i.m.w
	if i.makesProgress() {
		i.volume += int64((w.now - i.since) / workInterval)
		i.since += (w.now - i.since) / workInterval * workInterval
		i.lineage.acknowledged = max(i.lineage.acknowledged, i.volume)
		return
	}
	i.since = w.now
}

// change lets something happen to an instance: what it worked at until then is counted.
func (i *instance) change(edit func()) {
	i.settle()
	wasStopped := i.isStopped()
	edit()
	i.since = i.m.w.now
	if isStopped := i.isStopped(); isStopped != wasStopped && i.probe != nil {
		i.probe.stopped(isStopped)
	}
	i.m.w.checks.workChanged(i)
}

// isStopped reports whether the containers run, and answer nothing.
func (i *instance) isStopped() bool { return i.runs && (i.frozen || i.held) }

func (m *machine) isDown() bool { return m.cut || m.off || m.dead }

// mayHold reports whether what is on the emptyDirs of a pod counts: its containers have run,
// or it was sealed.
func (i *instance) mayHold() bool { return !i.hasGate || i.gateOpen || i.restoredFrom.digest != "" }

// hasClaim reports whether a claim is mounted in containers of the pod that run: its gate, or
// those of a placeholder.
func (i *instance) hasClaim(claim types.UID) bool {
	return slices.Contains(i.mounted, claim) && i.stage >= gated && i.stage < ended
}

func (m *machine) instance(pod types.UID) *instance {
	for _, i := range m.instances {
		if i.pod == pod {
			return i
		}
	}
	return nil
}

func (w *world) instance(pod types.UID) *instance {
	for _, m := range w.machines {
		if i := m.instance(pod); i != nil {
			return i
		}
	}
	return nil
}

// observe has the kubelet and the agent look at what was written.
func (m *machine) observe(before, after client.Object) {
	switch object := after.(type) {
	case *corev1.Pod:
		if object.Spec.NodeName == m.node {
			m.wake(m.w.between(time.Millisecond, 50*time.Millisecond))
		}
	default:
		if pod, is := before.(*corev1.Pod); is && after == nil && pod.Spec.NodeName == m.node {
			m.wake(time.Millisecond)
		}
	}
	m.agent.observe(before, after)
}

func (m *machine) wake(after time.Duration) {
	if m.waiting {
		return
	}
	m.waiting = true
	m.w.after(after, func() {
		m.waiting = false
		m.sync()
	})
}

// sync starts the pods that are new, and begins to end those that are deleted.
func (m *machine) sync() {
	if m.isDown() {
		return
	}
	w := m.w
	each(w.store, pods, func(p *corev1.Pod) {
		if p.Spec.NodeName != m.node {
			return
		}
		i := m.instance(p.UID)
		switch {
		case i == nil && isTerminal(p):
			if p.DeletionTimestamp != nil {
				m.finalize(p)
			}
		case i == nil && p.DeletionTimestamp != nil:
			m.finalize(p)
		case i == nil:
			m.start(p)
		case p.DeletionTimestamp != nil && i.stage < ending:
			i.terminate(p)
		case p.DeletionTimestamp != nil && i.cleaned:
			m.finalize(p)
		}
	})
	for _, i := range append([]*instance(nil), m.instances...) {
		if w.byUID[i.pod] == nil {
			// Deleted by force, or with its node: the kubelet ends what it still runs.
			i.stop()
			m.drop(i)
		}
	}
}

func (m *machine) start(p *corev1.Pod) {
	i := &instance{m: m, pod: p.UID, namespace: p.Namespace, name: p.Name, lineage: m.w.work.lineageOf(p), since: m.w.now}
	for _, c := range p.Spec.InitContainers {
		i.hasGate = i.hasGate || c.Name == gateContainer
	}
	m.instances = append(m.instances, i)
	m.w.after(m.w.between(100*time.Millisecond, time.Second), i.mount)
}

// drop removes what a pod had on its node: its emptyDirs go.
func (m *machine) drop(i *instance) {
	for at, other := range m.instances {
		if other == i {
			m.instances = append(m.instances[:at:at], m.instances[at+1:]...)
			break
		}
	}
	m.w.checks.wereReady[i.pod] = i.wasReady
	m.w.checks.contentGone(i)
}

// finalize tells the API server that nothing of a pod runs any more.
func (m *machine) finalize(p *corev1.Pod) {
	zero, uid := int64(0), string(p.UID)
	m.w.as(m.actor, func() { _ = m.w.delete(pods, p.Namespace, p.Name, preconditions{uid: &uid}, &zero, false) })
	if i := m.instance(p.UID); i != nil {
		m.drop(i)
	}
}
