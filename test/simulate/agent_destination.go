package simulate

import (
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
)

// serveDestination does what the agent of a node does to which a pod moves, or was to move.
func (a *agent) serveDestination(m *v1alpha1.PodMigration) error {
	task := decide.DestinationTask(m, a.destinationFacts(m))
	if a.w.plant != nil && a.w.plant.DestinationTask != nil {
		task = a.w.plant.DestinationTask(m, task)
	}
	switch task {
	case decide.TaskNone:
		return nil
	case decide.TaskClose:
		a.close(m.UID)
		return nil
	case decide.TaskDiscard:
		a.discard(m)
		return nil
	case decide.TaskCancel:
		a.cancel(m)
		return nil
	}
	p, err := a.pod(m.Namespace, m.DestinationPod())
	if err != nil || p == nil {
		return err
	}
	i := a.m.instance(p.UID)
	if i == nil {
		return errNoProcess
	}
	switch task {
	case decide.TaskReceive:
		return a.receive(m, p, i)
	case decide.TaskWarm:
		return a.reportDestination(m, i, v1alpha1.DestinationWarm)
	case decide.TaskConfirm:
		return a.confirm(m, i)
	case decide.TaskAdopt:
		return a.adopt(m, i)
	case decide.TaskMiss:
		return a.failDestination(m, i, "what was sealed waits on node "+m.HeldNode())
	case decide.TaskRestore:
		return a.restore(m, i)
	case decide.TaskRestoreProcesses:
		return a.confirmProcesses(m, i)
	case decide.TaskPrepare:
		i.gateOpen = true
	case decide.TaskRelease:
		return a.release(m, i)
	}
	return nil
}

// destinationFacts are what the agent knows beside the status.
func (a *agent) destinationFacts(m *v1alpha1.PodMigration) decide.Destination {
	facts := decide.Destination{Node: a.m.node, Keeps: a.keeps(m.UID)}
	c, pod := m.Status.Checkpoint, m.DestinationPod()
	if c == nil || pod == nil {
		return facts
	}
	if i := a.m.instance(pod.UID); i != nil {
		facts.IsTaken = i.images != nil && i.images.taken
	}
	if r := a.receivers[m.UID]; r != nil && r.holder == pod.UID && r.at.attempt == c.Attempt {
		report := decide.CurrentDestination(m)
		facts.IsOpen = report != nil && report.Address == a.m.addressOf() && report.Fingerprint == a.fingerprint
		facts.Pass = r.passes
		if r.at.isSealed() {
			facts.Sealed = r.at.digest
		}
	}
	if at := a.m.receivedOf(m.UID); at != nil && at.isSealed() && at.attempt == c.Attempt && c.Source != nil {
		facts.Waits = at.digest == c.Source.ManifestDigest && (at.isWaiting() || at.waited && at.pod == pod.UID)
	}
	return facts
}

// keeps reports whether the node keeps something of a migration, as its destination or as its
// source.
func (a *agent) keeps(migration types.UID) bool {
	return a.m.receivedOf(migration) != nil || a.m.sent[migration]
}

// close ends the reception: nothing is written any more.
func (a *agent) close(migration types.UID) { delete(a.receivers, migration) }

// discard removes what the node keeps of a migration. What says that there is something goes
// last.
func (a *agent) discard(m *v1alpha1.PodMigration) {
	a.close(m.UID)
	if m.Status.Phase == v1alpha1.PhaseSucceeded && decide.MayRemove(m) && (a.w.plant == nil || !a.w.plant.KeepCopies) {
		a.removeCopy(m)
	}
	a.removeState(m.UID)
}

// removeState removes what says what the node has of a migration, and what waits.
func (a *agent) removeState(migration types.UID) {
	delete(a.m.sent, migration)
	if a.w.plant == nil || !a.w.plant.KeepWaiting {
		a.m.forget(migration)
	}
}

// removeCopy removes the sealed copy of a migration by the pod that mounts its claim here.
func (a *agent) removeCopy(m *v1alpha1.PodMigration) {
	i := a.m.instance(m.DestinationPod().UID)
	if i == nil {
		return
	}
	for _, claim := range i.mounted {
		if i.hasClaim(claim) && a.w.work.copyOf(claim, m.CheckpointUID()) != nil {
			a.w.say(a.name, "removes the sealed copy of %s from its claim", m.Name)
			a.w.checks.copyGoes(claim, m)
			a.w.work.removeCopy(claim, m.CheckpointUID())
		}
	}
}

// cancel makes containers fail for which no processes will come, and removes the rest.
func (a *agent) cancel(m *v1alpha1.PodMigration) {
	if pod := m.DestinationPod(); pod != nil {
		if i := a.m.instance(pod.UID); i != nil && i.images != nil && !i.images.taken {
			i.images.failed = true
		}
	}
	a.discard(m)
}

// heldBack wants that the gate of a replacement holds its containers back: they would write
// to its volumes.
func heldBack(i *instance) error {
	switch {
	case i.gateOpen:
		return &notPossible{"Failed"}
	case i.stage != gated:
		return errNoProcess
	}
	return nil
}

// receive opens the volumes of the replacement, or a place where they wait, and says where
// the agent of the source is to connect.
func (a *agent) receive(m *v1alpha1.PodMigration, p *corev1.Pod, i *instance) error {
	if r := a.receivers[m.UID]; r == nil || r.holder != p.UID || r.at.attempt != m.Status.Checkpoint.Attempt {
		pod := types.UID("")
		if p.Labels[v1alpha1.RoleLabel] == "" {
			if err := heldBack(i); err != nil {
				return a.destinationFailed(m, i, err)
			}
			pod = p.UID
		}
		claim, err := a.claimToWrite(m, i)
		if err != nil {
			return err
		}
		// What there is is read.
		if err := a.while(m, a.w.between(10*time.Millisecond, time.Second)); err != nil {
			return err
		}
		a.receivers[m.UID] = &receiver{at: a.m.receive(m.UID, pod, m.Status.Checkpoint.Attempt), claim: claim, holder: p.UID}
	}
	if movesProcesses(m) && i.images == nil {
		// From here on its containers are restored, or not started at all.
		i.images = &images{}
	}
	phase := v1alpha1.DestinationReceiving
	if earlier := decide.CurrentDestination(m); earlier != nil && earlier.Phase == v1alpha1.DestinationWarm {
		// By an agent that was started again: what it had is there.
		phase = earlier.Phase
	}
	return a.reportDestination(m, i, phase)
}

// claimToWrite is the claim that a sealed copy is made on, once it is mounted here.
func (a *agent) claimToWrite(m *v1alpha1.PodMigration, i *instance) (types.UID, error) {
	if m.Status.CheckpointClaim == "" {
		return "", nil
	}
	claim := lookup[*corev1.PersistentVolumeClaim](a.w.store, claims, m.Namespace, m.Status.CheckpointClaim)
	if claim == nil || !i.hasClaim(claim.UID) {
		return "", errNoProcess
	}
	return claim.UID, nil
}

// destination is a report about the pod that the agent works for.
func (a *agent) destination(m *v1alpha1.PodMigration, i *instance, phase v1alpha1.DestinationPhase) *v1alpha1.DestinationReport {
	report := &v1alpha1.DestinationReport{
		Node: a.m.node, Attempt: m.Status.Checkpoint.Attempt, PodUID: i.pod, Phase: phase, Bytes: 1 << 20, Files: 1,
		Address: a.m.addressOf(), Fingerprint: a.fingerprint,
	}
	if r := a.receivers[m.UID]; r != nil {
		report.Pass = r.passes
	}
	return report
}

func (a *agent) reportDestination(m *v1alpha1.PodMigration, i *instance, phase v1alpha1.DestinationPhase) error {
	return a.reportLate(m, func(c *v1alpha1.CheckpointStatus) { c.Destination = a.destination(m, i, phase) })
}

// reportSealed says that what was sealed is there.
func (a *agent) reportSealed(m *v1alpha1.PodMigration, i *instance, phase v1alpha1.DestinationPhase, digest string, onClaim bool) error {
	return a.reportLate(m, func(c *v1alpha1.CheckpointStatus) {
		report := a.destination(m, i, phase)
		report.ManifestDigest, report.ClaimSealed = digest, onClaim
		if phase == v1alpha1.DestinationRestored {
			report.RestoredAt = a.microNow()
		}
		c.Destination = report
	})
}

// confirm reports that what was sealed is in the volumes, or waits.
func (a *agent) confirm(m *v1alpha1.PodMigration, i *instance) error {
	r, p := a.receivers[m.UID], a.w.plant
	if p != nil && p.SealEarly {
		return a.reportSealed(m, i, v1alpha1.DestinationRestored, m.Status.Checkpoint.Source.ManifestDigest, true)
	}
	if r == nil || !r.at.isSealed() {
		return errNoProcess
	}
	phase := v1alpha1.DestinationRestored
	if r.at.isWaiting() {
		phase = v1alpha1.DestinationStored
	}
	return a.reportSealed(m, i, phase, r.at.digest, r.claim != "")
}

// confirmProcesses restores the processes of a replacement whose volumes are sealed.
func (a *agent) confirmProcesses(m *v1alpha1.PodMigration, i *instance) error {
	at := a.m.receivedOf(m.UID)
	if i.images == nil || at == nil || !at.isSealed() {
		return errNoProcess
	}
	if !i.images.taken {
		i.images.work = at.process
	}
	if err := a.restoreProcesses(m, i); err != nil {
		return a.destinationFailed(m, i, err)
	}
	r := a.receivers[m.UID]
	return a.reportSealed(m, i, v1alpha1.DestinationRestored, at.digest, r != nil && r.claim != "")
}

// destinationFailed reports a failure that will not pass by itself, and returns any other.
func (a *agent) destinationFailed(m *v1alpha1.PodMigration, i *instance, failure error) error {
	if f, is := errors.AsType[*notPossible](failure); is {
		return a.failDestination(m, i, f.reason)
	}
	return failure
}

func (a *agent) failDestination(m *v1alpha1.PodMigration, i *instance, reason string) error {
	return a.reportLate(m, func(c *v1alpha1.CheckpointStatus) {
		c.Destination = a.destination(m, i, v1alpha1.DestinationFailed)
		c.Destination.Reason, c.Destination.Message = reason, reason
	})
}

// adopt gives what waits on the node to the replacement.
func (a *agent) adopt(m *v1alpha1.PodMigration, i *instance) error {
	a.close(m.UID)
	if err := a.while(m, a.w.between(10*time.Millisecond, a.w.scenario.copying/2)); err != nil {
		return err
	}
	if err := heldBack(i); err != nil {
		return a.destinationFailed(m, i, err)
	}
	at := a.m.receivedOf(m.UID)
	if at == nil {
		return errNoProcess
	}
	at.pod, at.waited = i.pod, true
	at.write(at.content, nil)
	a.w.say(a.name, "moves what waits into %s, at work %d", i.name, at.work)
	return a.reportSealed(m, i, v1alpha1.DestinationRestored, at.digest, false)
}

// restore reads what was sealed from the claim.
func (a *agent) restore(m *v1alpha1.PodMigration, i *instance) error {
	digest := m.Status.Checkpoint.Source.ManifestDigest
	if err := heldBack(i); err != nil {
		return a.destinationFailed(m, i, err)
	}
	claim, err := a.claimToWrite(m, i)
	if err != nil {
		return err
	}
	if err := a.reportDestination(m, i, v1alpha1.DestinationRestoring); err != nil {
		return err
	}
	for took := a.w.between(20*time.Millisecond, a.w.scenario.copying); took > 0; {
		if err := a.while(m, min(took, lookAgain)); err != nil {
			return err
		}
		if a.w.now >= a.w.hanging {
			took -= lookAgain
		}
	}
	on := a.w.work.copyOf(claim, m.CheckpointUID())
	switch {
	case i.stage != gated || !i.hasClaim(claim):
		return errNoProcess
	case (on == nil || on.digest != digest || on.torn) && (on == nil || a.w.plant == nil || !a.w.plant.SkipCopy):
		return a.failDestination(m, i, "Corrupt")
	}
	at := a.m.receive(m.UID, i.pod, m.Status.Checkpoint.Attempt)
	restored := on.content
	restored.digest, restored.torn = digest, false
	at.write(restored, nil)
	a.w.say(a.name, "restores work %d from the claim into %s", on.work, i.name)
	return a.reportSealed(m, i, v1alpha1.DestinationRestored, digest, true)
}

// restoreProcesses offers the verified images to the wrapper of runc, and waits until the
// processes are there, stopped.
func (a *agent) restoreProcesses(m *v1alpha1.PodMigration, i *instance) error {
	i.images.offered, i.gateOpen = true, true
	for {
		switch {
		case a.m.instance(i.pod) != i:
			return errNoProcess
		case i.held:
			return nil
		case i.images == nil, i.images.failed, i.stage >= ending:
			return &notPossible{v1alpha1.ReportProcessNotMovable}
		}
		if err := a.while(m, gatePoll); err != nil {
			return err
		}
	}
}

// release lets the replacement run: its containers start, or its restored processes
// continue. Nothing writes its volumes any more by then.
func (a *agent) release(m *v1alpha1.PodMigration, i *instance) error {
	if a.w.plant == nil || !a.w.plant.KeepReceiving {
		a.close(m.UID)
	}
	a.w.checks.releases(a, m, i)
	if i.images != nil {
		if i.images.failed || !i.held {
			return a.failDestination(m, i, v1alpha1.ReportProcessNotMovable)
		}
		i.continueProcesses()
	}
	i.gateOpen = true
	a.w.say(a.name, "opens the gate of %s", i.name)
	return a.reportLate(m, func(c *v1alpha1.CheckpointStatus) {
		if c.Destination != nil {
			c.Destination.Phase, c.Destination.ReleasedAt = v1alpha1.DestinationReleased, a.microNow()
		}
	})
}
