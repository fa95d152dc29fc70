package simulate

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
)

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
