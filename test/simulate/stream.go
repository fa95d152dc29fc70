package simulate

import (
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
)

// reasonRefused is that of a pass that changes what was sealed.
const reasonRefused = "Refused"

// transferPort is where agents listen.
const transferPort = "10271"

// Failures of a connection (pkg/node/transfer, errors.go).
var (
	errDisconnected = errors.New("the connection ended")
	errRefused      = errors.New("the other side refuses")
)

// receiver is what the agent of a destination receives into. It is gone with its process.
type receiver struct {
	at *received
	// claim is what a sealed copy is made on; "" for none. holder is the pod that mounts it.
	claim, holder types.UID
	// passes is the last complete pass that this process has received.
	passes int32
	// served is the connection that has the turn; a later one takes it.
	served *connection
}

// connection is one between the processes of two agents. It ends with either, and with the
// way between their nodes.
type connection struct {
	from, to *agent
	// own and peer are the fingerprints of the two processes.
	own, peer string
	migration types.UID
	attempt   int32
}

// addressOf is where the agent of a node listens.
func (m *machine) addressOf() string { return m.ip + ":" + transferPort }

// dial connects to the agent at an address, which must have the certificate of a
// fingerprint.
func (a *agent) dial(address, peer string, h decide.Sender) (*connection, error) {
	w := a.w
	w.running.sleep(w.latency())
	for _, m := range w.machines {
		b := m.agent
		switch {
		case m.addressOf() != address:
			continue
		case b.down || m.isDown() || w.isCut(a.m, m):
			return nil, errDisconnected
		case b.fingerprint != peer:
			return nil, errRefused
		}
		if err := b.admit(h); err != nil {
			w.say(b.name, "does not admit %s: %v", a.name, err)
			return nil, errRefused
		}
		w.checks.connects(b, h)
		c := &connection{from: a, to: b, own: h.Fingerprint, peer: peer, migration: h.Migration, attempt: h.Attempt}
		b.receivers[h.Migration].served = c
		return c, nil
	}
	return nil, errDisconnected
}

// isUp reports whether both sides and the way between them are still there.
func (c *connection) isUp() bool {
	for _, side := range []struct {
		a           *agent
		fingerprint string
	}{{c.from, c.own}, {c.to, c.peer}} {
		if side.a.down || side.a.m.isDown() || side.a.fingerprint != side.fingerprint {
			return false
		}
	}
	o := c.to.receivers[c.migration]
	return !c.from.w.isCut(c.from.m, c.to.m) && o != nil && o.served == c && o.at.attempt == c.attempt
}

// isCut reports whether two nodes do not reach each other.
func (w *world) isCut(a, b *machine) bool {
	return a != b && (w.now < w.linksCut || a.cut || b.cut)
}

// sending is a pass: how long it takes, and until when it must have ended. What the volumes
// hold is read when it ends. last asks the other side to seal that.
type sending struct {
	took  time.Duration
	until moment
	last  bool
	read  func() (content, *lineage, error)
}

// forEver is later than everything.
const forEver = moment(1<<63 - 1)

// pass sends what differs from what the other side has.
func (c *connection) pass(m *v1alpha1.PodMigration, s sending) (content, error) {
	if !c.isUp() {
		return content{}, errDisconnected
	}
	w, r := c.from.w, c.to.receivers[c.migration]
	if !r.at.isSealed() {
		r.at.tear(r.copyOnClaim())
	}
	for took := s.took; took > 0; {
		w.faults.reach("pass")
		if err := c.from.while(m, min(took, lookAgain)); err != nil {
			return content{}, err
		}
		switch {
		case !c.isUp():
			return content{}, errDisconnected
		case w.now > s.until:
			return content{}, &notPossible{v1alpha1.ReportFreezeTooLong}
		case r.claim == "" || w.now >= w.hanging:
			took -= lookAgain // else the storage of the claim does not answer
		}
	}
	sent, l, err := s.read()
	if err != nil {
		return content{}, err
	}
	sent, err = r.take(c, sent, l, s.last)
	if err != nil {
		return content{}, err
	}
	w.say(c.to.name, "has pass %d of %s, at work %d, sealed %t", sent.pass, m.Name, sent.work, s.last)
	if s.last {
		w.faults.reach("seal")
	}
	c.to.enqueue(keyOf(m), w.now)
	return sent, c.awaitReport(m)
}

// awaitReport waits until the destination has said that a first pass is there: the answer to
// the sender comes after that.
func (c *connection) awaitReport(m *v1alpha1.PodMigration) error {
	for c.isUp() {
		now := c.from.w.checks.migrationOf(m.UID)
		if now == nil || !decide.IsSame(m, now) {
			return errNotWanted
		}
		if report := decide.CurrentDestination(now); report != nil && report.Pass > 0 {
			return nil
		}
		c.from.w.running.sleep(20 * time.Millisecond)
	}
	return errDisconnected
}

// take is the end of a pass, as the receiver sees it.
func (r *receiver) take(c *connection, sent content, l *lineage, last bool) (content, error) {
	w := r.at.m.w
	switch {
	case !c.isUp(), r.claim != "" && !r.mounts():
		return content{}, errDisconnected
	case r.claim != "" && w.now < w.full, w.now < w.diskFull:
		return content{}, &notPossible{v1alpha1.ReportNoSpace}
	}
	sent.attempt, sent.pass = c.attempt, r.at.pass+1
	digest := digestOf(l, sent)
	switch {
	case r.at.isSealed() && r.at.digest != digest:
		return content{}, &notPossible{reasonRefused}
	case r.at.isSealed():
		return r.at.content, nil
	case last:
		sent.digest = digest
	}
	onClaim := r.copyOnClaim()
	if p := w.plant; last && p != nil && p.SkipCopy {
		onClaim = nil
	}
	r.at.write(sent, onClaim)
	if last {
		w.work.sealed(c.migration, sent)
	}
	r.passes++
	return sent, nil
}

// copyOnClaim is the sealed copy that is being made; nil where there is none, or its claim
// is not mounted any more.
func (r *receiver) copyOnClaim() *copied {
	if r.claim == "" || !r.mounts() {
		return nil
	}
	return r.at.m.w.work.copyFor(r.claim, r.at.migration)
}

// mounts reports whether the pod by which the claim is written still has it.
func (r *receiver) mounts() bool {
	i := r.at.m.instance(r.holder)
	return i != nil && i.hasClaim(r.claim)
}

// newFingerprint makes one for each process of an agent.
func (w *world) newFingerprint() string {
	w.certificates++
	return fmt.Sprintf("sha256:%064x", w.certificates)
}

// admit is what the agent of a destination asks of a connection: whether it is that of the
// source of a migration whose volumes it has open, as the API server has it now.
func (a *agent) admit(h decide.Sender) error {
	m, r := a.w.checks.migrationOf(h.Migration), a.receivers[h.Migration]
	if m == nil || r == nil {
		return errors.New("nothing is open for that migration")
	}
	pod, _ := a.w.byUID[r.holder].(*corev1.Pod)
	if p := a.w.plant; p != nil && p.Admits != nil {
		return p.Admits(m, a.m.node, h, pod)
	}
	return decide.Admits(m, a.m.node, h, pod)
}

// strangerDials has someone else connect to the agents of destinations: with a certificate
// of its own, or with that of the source and what it said in an earlier attempt. What it
// sends are empty volumes.
func (w *world) strangerDials(d Disturbance) {
	for _, m := range w.machines {
		for _, r := range m.received {
			c, _ := w.byUID[r.migration].(*v1alpha1.PodMigration)
			if m.agent.receivers[r.migration] == nil || c == nil || c.Status.Checkpoint == nil || c.Status.Checkpoint.Source == nil {
				continue
			}
			h := decide.Sender{Fingerprint: w.newFingerprint(), Migration: r.migration, Attempt: c.Status.Checkpoint.Attempt}
			if d.Target%2 == 0 {
				h.Fingerprint, h.Attempt = c.Status.Checkpoint.Source.Fingerprint, h.Attempt-1
			}
			if m.agent.down || m.isDown() || m.agent.admit(h) != nil {
				continue
			}
			w.checks.connects(m.agent, h)
			m.agent.receivers[r.migration].served = nil
			r.tear(m.agent.receivers[r.migration].copyOnClaim())
		}
	}
}
