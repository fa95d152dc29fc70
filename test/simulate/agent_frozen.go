package simulate

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// seal freezes the pod and sends the last changes, within half of what a pod may be frozen.
// A pod whose seal has failed runs before that is reported.
func (a *agent) seal(m *v1alpha1.PodMigration) error {
	sealed := &v1alpha1.SourceReport{Phase: v1alpha1.SourceSealed, Bytes: 1 << 20, Files: 1}
	if err := a.lastPass(m, sealed); err != nil {
		a.unfreeze(m.UID, m.Status.Original.UID)
		if f, is := errors.AsType[*notPossible](err); is && f.reason == reasonRefused {
			// The other side has sealed in this attempt, and takes nothing more.
			return a.reportLate(m, func(c *v1alpha1.CheckpointStatus) { a.source(c).Phase = v1alpha1.SourceThawed })
		}
		return a.failed(m, err)
	}
	return a.reportLate(m, func(c *v1alpha1.CheckpointStatus) {
		report := *sealed
		report.Attempt, report.Node, report.Fingerprint = c.Attempt, a.m.node, a.fingerprint
		c.Source = &report
	})
}

// lastPass sends what has changed while the pod runs, then what has changed since while it
// is frozen, until the other side has sealed that.
func (a *agent) lastPass(m *v1alpha1.PodMigration, sealed *v1alpha1.SourceReport) error {
	if _, err := a.original(m); err != nil {
		return err
	}
	c, err := a.connect(m)
	if err != nil {
		return err
	}
	if _, err := c.pass(m, a.passing(m)); err != nil {
		return err
	}
	i, err := a.original(m)
	if err != nil {
		return err
	}
	limit := m.Spec.Checkpoint.MaxFreeze()
	isFrozen := m.Status.Checkpoint.Mode != v1alpha1.CheckpointLive
	if isFrozen {
		if limit, err = a.freeze(m, i, sealed); err != nil {
			return err
		}
	}
	last := sending{took: a.w.between(20*time.Millisecond, a.w.scenario.sealing), until: a.w.now + limit/2, last: true}
	last.read = func() (content, *lineage, error) {
		sent, l, err := a.read(m)
		switch {
		case err != nil:
		case isFrozen && a.record(m.UID) == nil:
			err = errNotWanted // thawed, since it took too long
		case movesProcesses(m) && a.w.scenario.immovable == failsToDump:
			err = &notPossible{v1alpha1.ReportProcessNotMovable}
		}
		sent.memory, sent.process = movesProcesses(m), sent.work
		return sent, l, err
	}
	if p := a.w.plant; p != nil && p.SealEarly {
		return a.sealEarly(m, last, sealed)
	}
	sent, err := c.pass(m, last)
	for errors.Is(err, errDisconnected) && a.w.now < last.until {
		// How long the pod is frozen decides, not the connection.
		if err = a.while(m, a.w.between(lookAgain, time.Second)); err != nil {
			return err
		}
		if c, err = a.connectAgain(m); err == nil {
			sent, err = c.pass(m, last)
		}
	}
	switch {
	case errors.Is(err, errDisconnected):
		return &notPossible{v1alpha1.ReportFreezeTooLong}
	case err != nil:
		return err
	}
	r := a.record(m.UID)
	if isFrozen && r == nil {
		return errNotWanted
	}
	if r != nil {
		r.sealed = true
	}
	sealed.Pass, sealed.ManifestDigest, sealed.SealedAt = sent.pass, sent.digest, a.microNow()
	return nil
}

// sealEarly is the fault of a source that waits for no confirmation.
func (a *agent) sealEarly(m *v1alpha1.PodMigration, s sending, sealed *v1alpha1.SourceReport) error {
	sent, l, err := s.read()
	if err != nil {
		return err
	}
	if r := a.record(m.UID); r != nil {
		r.sealed = true
	}
	sealed.Pass, sealed.ManifestDigest, sealed.SealedAt = 1, digestOf(l, sent), a.microNow()
	return nil
}

// connectAgain connects to the destination as it is reported now: its agent may have been
// restarted.
func (a *agent) connectAgain(m *v1alpha1.PodMigration) (*connection, error) {
	now := &v1alpha1.PodMigration{}
	if err := a.client.Get(context.Background(), keyOf(m), now); err != nil {
		return nil, errDisconnected
	}
	c, err := a.connect(now)
	if err != nil {
		return nil, errDisconnected
	}
	return c, nil
}

// freeze freezes a pod, and returns how long it may stay so: by the request, and by its
// probes.
func (a *agent) freeze(m *v1alpha1.PodMigration, i *instance, sealed *v1alpha1.SourceReport) (time.Duration, error) {
	limit := m.Spec.Checkpoint.MaxFreeze()
	p, err := a.pod(m.Namespace, m.Status.Original)
	switch {
	case err != nil:
		return 0, err
	case p == nil || i.stage != running:
		return 0, errNoProcess
	}
	bound, container := containers.FreezeBound(p)
	if a.w.plant != nil && a.w.plant.IgnoreProbes {
		container = ""
	}
	if container != "" && bound < limit {
		limit = bound
	}
	restarts, isKnown := a.restarts[m.UID]
	switch {
	case limit == 0:
		return 0, &notPossible{v1alpha1.ReportFreezeTooLong}
	case movesProcesses(m) && isKnown && restarts != i.restarts:
		return 0, &notPossible{v1alpha1.ReportProcessNotMovable}
	}
	a.records = append(a.records, frozenRecord{
		key: keyOf(m), migration: m.UID, pod: i.pod, attempt: m.Status.Checkpoint.Attempt,
		until: a.w.now + limit, sealBy: a.w.now + limit/2 + hangGrace, boots: a.m.boots, restarts: i.restarts,
	})
	a.beginWatch()
	i.change(func() { i.frozen = true })
	i.frozenSince = a.w.now
	a.w.say(a.name, "freezes %s at work %d", i.name, i.volume)
	sealed.FrozenAt = a.microNow()
	return limit, nil
}

func (a *agent) unfreeze(migration, pod types.UID) {
	if i := a.m.instance(pod); i != nil && i.frozen {
		i.change(func() { i.frozen = false })
		a.w.frozen = max(a.w.frozen, a.w.now-i.frozenSince)
		a.w.say(a.name, "thaws %s", i.name)
	}
	a.removeRecord(migration)
}

func (a *agent) removeRecord(migration types.UID) {
	a.records = slices.DeleteFunc(a.records, func(r frozenRecord) bool { return r.migration == migration })
}

// kill ends a frozen pod, whose processes take no other step.
func (a *agent) kill(migration, pod types.UID) {
	if i := a.m.instance(pod); i != nil {
		i.killed = true
		if i.stage == running {
			i.stage = ending
			i.awaitEnd(0, 0)
		}
	}
	a.removeRecord(migration)
}

// killAndHold freezes a pod again that did not stay as it was, and takes it as it is now.
func (a *agent) killAndHold(migration types.UID) {
	r := a.record(migration)
	if r == nil {
		return
	}
	r.boots, r.disturbed = a.m.boots, false
	if i := a.m.instance(r.pod); i != nil {
		i.change(func() { i.frozen = true })
		r.restarts = i.restarts
	}
}

// watch looks at every frozen pod: one that an agent froze which died is thawed, one that
// was sealed is frozen again when it is not as it was. It needs no API server for that.
func (a *agent) watch() {
	if a.m.off || len(a.records) == 0 {
		a.watching = false
		return
	}
	a.w.after(lookAgain, a.watch)
	if a.down {
		return
	}
	for at := range a.records {
		r := &a.records[at]
		i := a.m.instance(r.pod)
		a.w.checks.staysFrozen(r, i)
		switch {
		case !r.sealed && (a.running[r.key] == nil || a.w.now > r.sealBy):
			a.unfreeze(r.migration, r.pod)
			return
		case !r.sealed || i == nil || r.boots == a.m.boots && i.frozen && i.restarts == r.restarts:
		default:
			r.disturbed = true
			if i.stage < ended {
				i.change(func() { i.frozen = true })
			}
		}
		a.enqueue(r.key, a.w.now)
	}
}

func (a *agent) beginWatch() {
	if !a.watching && len(a.records) > 0 {
		a.watching = true
		a.w.after(lookAgain, a.watch)
	}
}

// collect thaws pods whose migration is gone, and removes what the node keeps of one.
func (a *agent) collect() {
	a.w.after(gcInterval, a.collect)
	if a.down || a.m.isDown() {
		return
	}
	for _, migration := range slices.Sorted(maps.Keys(a.m.sent)) {
		a.collectReceived(migration)
	}
	for _, r := range slices.Clone(a.m.received) {
		a.collectReceived(r.migration)
	}
	for _, r := range slices.Clone(a.records) {
		if m := lookup[*v1alpha1.PodMigration](a.w.store, migrations, r.key.Namespace, r.key.Name); m == nil || m.UID != r.migration {
			if r.released {
				a.orphaned(r)
				continue
			}
			a.unfreeze(r.migration, r.pod)
		}
	}
}

// collectReceived removes what the node keeps of a migration that is gone, or over.
func (a *agent) collectReceived(migration types.UID) {
	m := a.w.checks.migrationOf(migration)
	switch {
	case !decide.MayRemove(m):
	case m == nil:
		a.close(migration)
		a.removeState(migration)
	default:
		a.discard(m)
	}
}

// isStranded reports whether a pod stays frozen until a user decides.
func (a *agent) isStranded(pod types.UID) bool {
	return slices.ContainsFunc(a.records, func(r frozenRecord) bool { return r.pod == pod && r.stranded })
}

// orphaned ends the freezing of a pod whose migration is gone and whose replacement was
// released: it must not run beside it.
func (a *agent) orphaned(r frozenRecord) {
	p, _ := a.w.byUID[r.pod].(*corev1.Pod)
	switch {
	case p == nil || p.DeletionTimestamp != nil:
		a.kill(r.migration, r.pod)
	case r.disturbed:
		a.killAndHold(r.migration)
	default:
		a.record(r.migration).stranded = true
	}
}
