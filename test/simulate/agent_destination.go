package simulate

import (
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
		i.gateOpen = true
		a.w.say(a.name, "opens the gate of %s", i.name)
		return a.reportLate(m, func(c *v1alpha1.CheckpointStatus) {
			if c.Destination != nil {
				c.Destination.Phase, c.Destination.ReleasedAt = v1alpha1.DestinationReleased, a.microNow()
			}
		})
	case decide.TaskWarmUp, decide.TaskRestore:
		return a.restore(m, i, task)
	}
	return nil
}

func (a *agent) restore(m *v1alpha1.PodMigration, i *instance, task decide.Task) error {
	if err := a.while(m, a.w.between(20*time.Millisecond, a.w.scenario.copying)); err != nil {
		return err
	}
	if i.stage != gated || i.gateOpen || len(i.mounted) == 0 {
		return errNoProcess
	}
	on := a.checkpointOf(m, i)
	report := &v1alpha1.DestinationReport{Node: a.m.node, Attempt: m.Status.Checkpoint.Attempt, PodUID: i.pod, Phase: v1alpha1.DestinationWarm, Bytes: 1 << 20, Files: 1}
	switch {
	case task == decide.TaskWarmUp && (on == nil || on.pass == 0):
		report.Phase, report.Reason = v1alpha1.DestinationRestoring, v1alpha1.ReportNoManifest
	case task == decide.TaskWarmUp:
		report.Pass = on.pass
		i.volume = on.work
	case on == nil || !on.sealed || on.digest != m.Status.Checkpoint.Source.ManifestDigest:
		report.Phase, report.Reason, report.Message = v1alpha1.DestinationFailed, "Corrupt", "the checkpoint is not what was sealed"
	default:
		report.Phase, report.Pass, report.RestoredAt = v1alpha1.DestinationRestored, on.pass, a.microNow()
		i.volume = on.work
		a.w.say(a.name, "restores work %d into %s", on.work, i.name)
	}
	if err := a.reportLate(m, func(c *v1alpha1.CheckpointStatus) { c.Destination = report }); err != nil {
		return err
	}
	if report.Phase == v1alpha1.DestinationRestoring {
		return errNoProcess
	}
	return nil
}

func (a *agent) checkpointOf(m *v1alpha1.PodMigration, i *instance) *copied {
	for _, claim := range i.mounted {
		if on := a.w.work.copyOf(claim, m.CheckpointUID()); on != nil {
			return on
		}
	}
	return nil
}
