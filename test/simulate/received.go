package simulate

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// content is what volumes of a pod hold, as of the end of a pass.
type content struct {
	attempt int32
	pass    int32
	work    int64
	// memory: the images of the processes are there too; process is what those hold.
	memory  bool
	process int64
	// torn: a pass has begun to write, and has not ended.
	torn bool
	// digest is set when that was sealed.
	digest string
}

func (c *content) isSealed() bool { return c.digest != "" && !c.torn }

// digestOf is the digest of the manifest of volumes: two that hold the same have the same.
func digestOf(l *lineage, c content) string {
	return fmt.Sprintf("sha256:%024x%020x%020x", l.number, c.work, c.process)
}

// received is what the agent of a node has on its disk of a migration: the volumes that
// wait in a directory of its own, or what it knows of those of a pod that it has written.
// It outlives the agent and a reboot, and goes with the disk of the node.
type received struct {
	m         *machine
	migration types.UID
	// pod is the one whose volumes are written; "" while they wait. waited: they were moved
	// into the volumes of the pod, or are being moved.
	pod    types.UID
	waited bool
	content
}

// isWaiting reports whether the volumes are there, and not in a pod.
func (r *received) isWaiting() bool { return r.pod == "" }

// receivedOf is what a node has of a migration; nil when there is nothing.
func (m *machine) receivedOf(migration types.UID) *received {
	for _, r := range m.received {
		if r.migration == migration {
			return r
		}
	}
	return nil
}

// receive begins to have something of a migration in an attempt, for a pod or to wait.
// What there is of another attempt, or for another pod, goes.
func (m *machine) receive(migration, pod types.UID, attempt int32) *received {
	if r := m.receivedOf(migration); r != nil {
		if r.pod == pod && r.attempt == attempt {
			return r
		}
		m.forget(migration)
	}
	r := &received{m: m, migration: migration, pod: pod, content: content{attempt: attempt}}
	m.received = append(m.received, r)
	return r
}

// forget removes what a node has of a migration, and with it what waits.
func (m *machine) forget(migration types.UID) {
	r := m.receivedOf(migration)
	if r == nil {
		return
	}
	m.received = slices.DeleteFunc(slices.Clone(m.received), func(other *received) bool { return other == r })
	if r.isWaiting() {
		m.w.say(m.agent.name, "removes the waiting directory of %s, at work %d", migration, r.work)
		m.w.checks.waitingGone(r)
	}
}

// write puts what a pass has brought into the volumes of a pod, or where they wait, and on
// the claim where a copy is made.
func (r *received) write(from content, onClaim *copied) {
	w := r.m.w
	if i := r.m.instance(r.pod); i != nil {
		w.checks.writesVolumes(i)
		i.change(func() { i.volume = from.work })
		if from.digest != "" {
			i.restoredFrom = from
		}
	}
	r.content = from
	if onClaim != nil {
		onClaim.content = from
	}
}

// tear says that a pass has begun to write: until it has ended, nothing counts of what is
// there.
func (r *received) tear(onClaim *copied) {
	r.torn = true
	if i := r.m.instance(r.pod); i != nil {
		r.m.w.checks.writesVolumes(i)
		i.change(func() { i.volume, i.restoredFrom = 0, content{} })
	}
	if onClaim != nil {
		onClaim.torn, onClaim.digest = true, ""
	}
}
