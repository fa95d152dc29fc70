package simulate

import (
	"errors"
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
)

func (a *agent) serveDestination(m *v1alpha1.PodMigration) error {
	task := decide.DestinationTask(m)
	if a.w.plant != nil && a.w.plant.DestinationTask != nil {
		task = a.w.plant.DestinationTask(m, task)
	}
	if task == decide.TaskNone {
		return nil
	}
	p, err := a.pod(m.Namespace, m.Status.Replacement)
	if err != nil || p == nil {
		return err
	}
	i := a.m.instance(p.UID)
	if i == nil {
		return errNoProcess
	}
	switch task {
	case decide.TaskRelease:
		return a.release(m, i)
	case decide.TaskPrepare:
		i.gateOpen = true
	case decide.TaskCancel:
		if i.images != nil && !i.images.taken {
			i.images.failed = true
		}
	case decide.TaskWarmUp, decide.TaskRestore:
		return a.restore(m, i, task)
	}
	return nil
}

// release lets the replacement run: its containers start, or its restored processes
// continue.
func (a *agent) release(m *v1alpha1.PodMigration, i *instance) error {
	if i.images != nil {
		if i.images.failed || !i.held {
			return a.reportLate(m, func(c *v1alpha1.CheckpointStatus) {
				c.Destination = a.destination(m, i, v1alpha1.DestinationFailed)
				c.Destination.Reason, c.Destination.Message = v1alpha1.ReportProcessNotMovable, "the restored processes have ended"
			})
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

func (a *agent) destination(m *v1alpha1.PodMigration, i *instance, phase v1alpha1.DestinationPhase) *v1alpha1.DestinationReport {
	return &v1alpha1.DestinationReport{Node: a.m.node, Attempt: m.Status.Checkpoint.Attempt, PodUID: i.pod, Phase: phase, Bytes: 1 << 20, Files: 1}
}

func (a *agent) restore(m *v1alpha1.PodMigration, i *instance, task decide.Task) error {
	report := a.destination(m, i, v1alpha1.DestinationWarm)
	var err error
	if task == decide.TaskRestore && i.images != nil && i.images.taken {
		// By an agent that got so far.
		report.Pass = m.Status.Checkpoint.Source.Pass
		err = a.restoreProcesses(m, i)
	} else {
		err = a.restoreVolumes(m, i, task, report)
	}
	if f, is := errors.AsType[*notPossible](err); is {
		report.Phase, report.Reason, report.Message = v1alpha1.DestinationFailed, f.reason, f.reason
	} else if err != nil {
		return err
	}
	if report.Phase == v1alpha1.DestinationWarm && task == decide.TaskRestore {
		report.Phase, report.RestoredAt = v1alpha1.DestinationRestored, a.microNow()
	}
	if err := a.reportLate(m, func(c *v1alpha1.CheckpointStatus) { c.Destination = report }); err != nil {
		return err
	}
	if report.Phase == v1alpha1.DestinationRestoring {
		return errNoProcess
	}
	return nil
}

func (a *agent) restoreVolumes(m *v1alpha1.PodMigration, i *instance, task decide.Task, report *v1alpha1.DestinationReport) error {
	if err := a.while(m, a.w.between(20*time.Millisecond, a.w.scenario.copying)); err != nil {
		return err
	}
	switch {
	case i.stage != gated || len(i.mounted) == 0:
		return errNoProcess
	case i.gateOpen && !a.readers[m.UID]:
		// The gate that held the claim has ended, and with it the way to the claim.
		if !movesProcesses(m) {
			return errNoProcess
		}
		return &notPossible{"Corrupt"}
	}
	a.readers[m.UID] = true
	if movesProcesses(m) && i.images == nil {
		// From here on its containers are restored, or not started at all.
		i.images = &images{}
	}
	on := a.checkpointOf(m, i)
	switch {
	case task == decide.TaskWarmUp && (on == nil || on.pass == 0):
		report.Phase, report.Reason = v1alpha1.DestinationRestoring, v1alpha1.ReportNoManifest
		return nil
	case task == decide.TaskWarmUp:
		report.Pass = on.pass
		i.volume = on.work
		return nil
	case on == nil || !on.sealed || on.digest != m.Status.Checkpoint.Source.ManifestDigest:
		return &notPossible{"Corrupt"}
	}
	report.Pass = on.pass
	i.volume = on.work
	a.w.say(a.name, "restores work %d into %s", on.work, i.name)
	if !movesProcesses(m) {
		return nil
	}
	i.images.work = on.process
	return a.restoreProcesses(m, i)
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

func (a *agent) checkpointOf(m *v1alpha1.PodMigration, i *instance) *copied {
	for _, claim := range i.mounted {
		if on := a.w.work.copyOf(claim, m.CheckpointUID()); on != nil {
			return on
		}
	}
	return nil
}
