package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
	"github.com/ai-storage/orchestrator/pkg/node/transfer"
	"github.com/ai-storage/orchestrator/pkg/pods"
)

// failuresInterval is how often failures to look at frozen pods are logged.
const failuresInterval = 10 * time.Second

// ReasonDisturbed: the original did not stand as it was sealed.
const ReasonDisturbed = "OriginalDisturbed"

// thaw lets a pod run, unless it was frozen anew, or sealed, since it was decided on.
func (a *agent) thaw(r record) error {
	a.freezing.Lock()
	defer a.freezing.Unlock()
	now, err := a.records.get(r.Migration)
	if err != nil {
		return err
	}
	if now != nil && !now.isSame(r) {
		return nil
	}
	if err := a.ops.Thaw(r.Pod); err != nil {
		return err
	}
	return a.records.remove(r.Migration)
}

// whileFrozen does something to a pod, unless it was thawed or frozen anew since it was
// decided on.
func (a *agent) whileFrozen(r record, do func() error) error {
	a.freezing.Lock()
	defer a.freezing.Unlock()
	now, err := a.records.get(r.Migration)
	if err != nil || now == nil || !now.isSame(r) {
		return err
	}
	return do()
}

// freezeAgain freezes a pod that must be frozen. It does not wait for long: others may have
// to be thawed meanwhile. What starts later in the pod is frozen too.
func (a *agent) freezeAgain(ctx context.Context, r record) error {
	ctx, cancel := context.WithTimeout(ctx, lookAgain)
	defer cancel()
	if err := a.ops.Freeze(ctx, r.Pod); !errors.Is(err, errNoProcess) {
		return err
	}
	return nil
}

// update changes a record, unless the pod was thawed or frozen anew meanwhile.
func (a *agent) update(r *record, change func(*record)) error {
	a.freezing.Lock()
	defer a.freezing.Unlock()
	now, err := a.records.get(r.Migration)
	if err != nil || now == nil || !now.isSame(*r) {
		return err
	}
	change(now)
	*r = *now
	return a.records.put(*now)
}

// watchFrozen looks at every frozen pod. None waits for another, nor for the work on its
// seal: that may hang in the storage of a volume.
func (a *agent) watchFrozen(ctx context.Context) {
	all, err := a.records.list()
	a.logFailure(ctx, err)
	for _, r := range all {
		if !a.beginWatch(r.Migration) {
			continue
		}
		go func() {
			defer a.endWatch(r.Migration)
			a.logFailure(ctx, a.watch(ctx, r))
		}()
	}
}

func (a *agent) logFailure(ctx context.Context, failure error) {
	if failure != nil && !apierrors.IsConflict(failure) && a.failures.isDue(a.clock.Now()) {
		ctrl.LoggerFrom(ctx).Error(failure, "Failed to watch a frozen pod")
	}
}

func (a *agent) beginWatch(migration types.UID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.watched[migration] {
		return false
	}
	a.watched[migration] = true
	return true
}

func (a *agent) endWatch(migration types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.watched, migration)
}

// watch does for a frozen pod what does not wait: thawing, ending, keeping it frozen.
func (a *agent) watch(ctx context.Context, r record) error {
	if !r.Sealed {
		return a.watchSeal(ctx, r)
	}
	// Before the API server is asked: after a restart of the node every moment counts.
	r, err := a.hold(ctx, r)
	if err != nil {
		return err
	}
	m := &v1alpha1.PodMigration{}
	err = a.live.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.Name}, m)
	if apierrors.IsNotFound(err) || err == nil && m.UID != r.Migration {
		return a.orphaned(ctx, r)
	}
	if err != nil || m.Status.Checkpoint == nil {
		return err
	}
	original, err := a.look(ctx, m, &r)
	if err != nil {
		return err
	}
	return a.attend(ctx, m, r, decide.SourceTask(m, original))
}

// watchSeal thaws a pod of which nobody can have heard that it is sealed, once the work
// on its seal is dead, or hangs.
func (a *agent) watchSeal(ctx context.Context, r record) error {
	s := a.sealOf(r.Migration)
	if s == nil {
		return a.thaw(r) // frozen by an agent that died
	}
	if !s.hangs(a.clock.Now()) || !s.abandon() {
		return nil
	}
	if err := a.thaw(r); err != nil {
		return err
	}
	ctrl.LoggerFrom(ctx).Info("Thawed a pod whose last copy hangs", "pod", klog.KRef(r.Namespace, r.PodName))
	m := &v1alpha1.PodMigration{}
	if err := a.live.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.Name}, m); err != nil {
		return fmt.Errorf("reporting that a pod was thawed: %w", err)
	}
	// Where it is being rolled back, the work is left to itself and the rollback reported
	// as any other.
	if c := m.Status.Checkpoint; m.UID != r.Migration || c == nil || c.Step != v1alpha1.StepSeal || c.Attempt != r.Attempt {
		return nil
	}
	return a.sourceFailed(ctx, m, &transfer.Error{Reason: v1alpha1.ReportFreezeTooLong, Err: fmt.Errorf(
		"the pod was frozen for %s without a seal: the storage of a volume does not answer", a.clock.Now().Sub(r.FrozenAt).Round(time.Second))})
}

// hold looks whether a sealed pod still stands as it was sealed, and freezes it again when
// it runs. What it finds is recorded before anything is done about it.
func (a *agent) hold(ctx context.Context, r record) (record, error) {
	state, err := a.ops.State(r.Pod)
	if err != nil {
		return r, err
	}
	boot, err := a.ops.Boot()
	if err != nil {
		return r, err
	}
	found, isKnown := "", r.Boot != "" // an earlier version did not record it
	switch {
	case isKnown && boot != r.Boot:
		found = "its node was started again"
	case !state.Frozen:
		found = "it was thawed by another client"
	case isKnown && !slices.Equal(state.Containers, r.Containers):
		found = "a container of it has ended or was started, as after a failed liveness probe"
	}
	if found == "" {
		return r, nil
	}
	if !state.Frozen {
		err = a.whileFrozen(r, func() error { return a.freezeAgain(ctx, r) })
	}
	if r.Disturbance == "" {
		ctrl.LoggerFrom(ctx).Info("A sealed pod does not stand as it was sealed", "pod", klog.KRef(r.Namespace, r.PodName), "found", found)
		err = errors.Join(err, a.update(&r, func(r *record) { r.Disturbance = found }))
	}
	return r, err
}

// look says what is known of the original of a frozen pod's migration.
func (a *agent) look(ctx context.Context, m *v1alpha1.PodMigration, r *record) (decide.Original, error) {
	isIntroduced := false
	if c := m.Status.Checkpoint; c != nil {
		report := decide.CurrentSource(c)
		isIntroduced = report != nil && report.Fingerprint == a.identity.Fingerprint()
	}
	if r == nil {
		return decide.Original{IsIntroduced: isIntroduced}, nil
	}
	pod, err := a.pod(ctx, r.Namespace, &v1alpha1.PodReference{Name: r.PodName, UID: r.Pod})
	if err != nil {
		return decide.Original{}, err
	}
	return decide.Original{
		FrozenIn: r.Attempt, IsIntroduced: isIntroduced, IsLeaving: pod == nil || pod.DeletionTimestamp != nil,
		IsDisturbed: r.Disturbance != "", IsOverdue: r.Sealed && r.isOverdue(a.clock.Now()),
	}, nil
}

// attend does a task about a frozen pod. Other tasks are not its own.
func (a *agent) attend(ctx context.Context, m *v1alpha1.PodMigration, r record, t decide.Task) error {
	if decide.IsReleased(m) && !r.Released {
		if err := a.update(&r, func(r *record) { r.Released = true }); err != nil {
			return err
		}
	}
	logger := ctrl.LoggerFrom(ctx).WithValues("pod", klog.KRef(r.Namespace, r.PodName))
	switch t {
	case decide.TaskReportAndThaw:
		if s := a.sealOf(r.Migration); s != nil {
			s.void()
		}
		if err := a.report(ctx, m, func(c *v1alpha1.CheckpointStatus) { a.thawed(c, r) }); err != nil {
			return err
		}
		return a.thaw(r)
	case decide.TaskThaw:
		return a.thaw(r)
	case decide.TaskKill:
		logger.Info("Killing a frozen pod whose replacement has its state")
		return a.kill(r)
	case decide.TaskKillAndHold:
		logger.Info("Ending what runs of a pod whose replacement was released", "found", r.Disturbance)
		return a.killAndHold(ctx, r)
	case decide.TaskStrand:
		if r.Stranded {
			return nil
		}
		logger.Info("A pod stays frozen: its migration has failed, and its replacement may run. Delete the pod that must not continue")
		return a.update(&r, func(r *record) { r.Stranded = true })
	}
	return nil
}

// thawed changes the report to one that the pod runs again, and why.
func (a *agent) thawed(c *v1alpha1.CheckpointStatus, r record) {
	s := a.source(c)
	s.Phase = v1alpha1.SourceThawed
	switch {
	case r.Disturbance != "":
		s.Reason, s.Message = ReasonDisturbed, pods.Truncate("the original did not stay as it was sealed: "+r.Disturbance, maxMessage)
	case c.Step == v1alpha1.StepSeal:
		s.Reason, s.Message = v1alpha1.ReportFreezeTooLong, fmt.Sprintf("the original was frozen for %s, and its replacement was not released", r.Until.Sub(r.FrozenAt))
	}
}

func (a *agent) kill(r record) error {
	if err := a.whileFrozen(r, func() error { return a.ops.Kill(r.Pod) }); err != nil {
		return err
	}
	return a.thaw(r)
}

// killAndHold ends all that runs of a pod, and leaves it frozen: what its kubelet starts next
// does not run either.
func (a *agent) killAndHold(ctx context.Context, r record) error {
	err := a.whileFrozen(r, func() error { return errors.Join(a.freezeAgain(ctx, r), a.ops.Kill(r.Pod)) })
	if err != nil {
		return err
	}
	state, err := a.ops.State(r.Pod)
	if err != nil {
		return err
	}
	boot, err := a.ops.Boot()
	if err != nil {
		return err
	}
	return a.update(&r, func(r *record) { r.Boot, r.Containers, r.Disturbance = boot, state.Containers, "" })
}

// orphaned ends the freezing of a pod whose migration is gone. Where its replacement was
// released, it must not run beside it.
func (a *agent) orphaned(ctx context.Context, r record) error {
	if !r.Released {
		return a.thaw(r)
	}
	pod, err := a.pod(ctx, r.Namespace, &v1alpha1.PodReference{Name: r.PodName, UID: r.Pod})
	if err != nil {
		return err
	}
	if pod == nil || pod.DeletionTimestamp != nil {
		return a.kill(r)
	}
	if r.Disturbance != "" {
		return a.killAndHold(ctx, r)
	}
	if r.Stranded {
		return nil
	}
	return a.update(&r, func(r *record) { r.Stranded = true })
}

// overdue counts the pods that are frozen for longer than they may be.
func (a *agent) overdue() float64 {
	all, err := a.records.list()
	if err != nil {
		return float64(len(all)) + 1
	}
	count := 0
	for _, r := range all {
		if r.Stranded || !r.Released && r.isOverdue(a.clock.Now()) {
			count++
		}
	}
	return float64(count)
}
