package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/checkpoint"
	"github.com/ai-storage/orchestrator/pkg/node/ociruntime"
)

// Options of an agent.
type Options struct {
	// Node is the name of the node that the agent runs on.
	Node string
	// StateDir is a directory of the node that outlives the agent.
	StateDir string
	Machine  Machine
	// Registerer takes the metrics; nil registers none.
	Registerer prometheus.Registerer
	// Processes lets the agent tell on its node whether processes can move.
	Processes bool
	Install   InstallOptions
}

// machine is what an agent needs of its node; Machine is the real one.
type machine interface {
	EmptyDir(pod types.UID, volume string) string
	ClaimDirectory(pod types.UID, container string) (string, error)
	Freeze(ctx context.Context, pod types.UID) error
	Thaw(pod types.UID) error
	Kill(pod types.UID) error
	processMachine
}

const (
	// lookAgain is how soon what no watch reports is looked at again.
	lookAgain = 300 * time.Millisecond
	// atOnce is how soon a migration is looked at again that changed meanwhile.
	atOnce = time.Millisecond
	// gcInterval is how often the node is searched for what no migration needs.
	gcInterval = 5 * time.Second
)

// reportBackoff is the pause between two attempts to report. Most fail because
// another client wrote in between: a pod may be frozen meanwhile, so the first pauses
// are short.
var reportBackoff = wait.Backoff{Duration: 10 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 10, Cap: lookAgain}

// agent reconciles the migrations that concern its node.
type agent struct {
	node    string
	client  client.Client
	live    client.Reader
	machine machine
	records records
	// restores is where the wrapper of runc finds checkpoints, dumps where CRIU
	// writes them.
	restores ociruntime.Store
	dumps    string
	clock    clock.PassiveClock
	metrics  *Metrics

	mu sync.Mutex
	// writers and readers are open between two steps of a migration, so that what
	// is known of the files needs not be learnt again.
	writers map[types.NamespacedName]*openWriter
	readers map[types.NamespacedName]*openReader
}

type openWriter struct {
	*checkpoint.Writer
	migration types.UID
	attempt   int32
	// containers are those whose processes move, as they were when it was opened.
	containers []movingContainer
}

type openReader struct {
	*checkpoint.Reader
	pod     types.UID
	attempt int32
}

// workers is how many migrations an agent serves at the same time.
const workers = 8

// SetupWithManager adds the agent to a manager whose scheme knows Kubernetes and
// v1alpha1. Pods that it froze in an earlier life are looked at first.
func SetupWithManager(mgr ctrl.Manager, o Options) error {
	a := newAgent(o.Node, mgr.GetClient(), mgr.GetAPIReader(), o.Machine, o.StateDir)
	a.metrics = NewMetrics(o.Registerer, a.records.count)
	if err := mgr.Add(a); err != nil {
		return err
	}
	if err := mgr.Add(&announcer{
		node: o.Node, client: mgr.GetClient(), live: mgr.GetAPIReader(), versions: o.Machine.Versions,
		tells: o.Processes, installs: o.Processes && o.Install.Enabled, where: o.Install.Nodes, handler: a.handlerInstaller(o),
	}); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).Named("node-agent").For(&v1alpha1.PodMigration{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).Complete(a)
}

func newAgent(node string, c client.Client, live client.Reader, m machine, stateDir string) *agent {
	return &agent{
		node: node, client: c, live: live, machine: m, records: records{stateDir}, clock: clock.RealClock{}, metrics: NewMetrics(nil, nil),
		restores: ociruntime.Store(filepath.Join(stateDir, "restore")), dumps: filepath.Join(stateDir, "dump"),
		writers: map[types.NamespacedName]*openWriter{}, readers: map[types.NamespacedName]*openReader{},
	}
}

// Start implements manager.Runnable. It lets pods go on whose migration is gone:
// nothing else would ever look at them.
func (a *agent) Start(ctx context.Context) error {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := a.thawForgotten(ctx); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Failed to thaw abandoned pods")
		}
		if err := a.removeForgotten(ctx); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Failed to remove the checkpoints of pods that are gone")
		}
	}, gcInterval)
	return nil
}

func (a *agent) thawForgotten(ctx context.Context) error {
	all, err := a.records.list()
	if err != nil {
		return err
	}
	var failures []error
	for _, r := range all {
		m := &v1alpha1.PodMigration{}
		err := a.live.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.Name}, m)
		if err == nil && m.UID == r.Migration {
			continue
		}
		if err == nil || apierrors.IsNotFound(err) {
			err = a.unfreeze(r.Migration, r.Pod)
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// Reconcile implements reconcile.Reconciler.
func (a *agent) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	m := &v1alpha1.PodMigration{}
	if err := a.live.Get(ctx, request.NamespacedName, m); err != nil {
		if apierrors.IsNotFound(err) {
			a.closeAll(request.NamespacedName)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, err
	}
	result, err := a.serve(ctx, m)
	if apierrors.IsConflict(err) {
		// Another client wrote in between: decide again.
		return ctrl.Result{RequeueAfter: atOnce}, nil
	}
	if errors.Is(err, errNoProcess) || errors.Is(err, errNotWanted) {
		return ctrl.Result{RequeueAfter: lookAgain}, nil
	}
	return result, err
}

func (a *agent) serve(ctx context.Context, m *v1alpha1.PodMigration) (ctrl.Result, error) {
	status := m.Status
	switch {
	case status.Original != nil && status.Original.NodeName == a.node:
		return a.serveSource(ctx, m)
	case status.Replacement != nil && status.Replacement.NodeName == a.node:
		return a.serveDestination(ctx, m)
	}
	return ctrl.Result{}, nil
}

// errNotWanted says that the migration no longer asks for what was being done: it is
// gone, in another step, or being rolled back.
var errNotWanted = errors.New("the migration no longer asks for it")

// isTransient reports whether an error says nothing of the work: it is not wanted any
// more, not possible yet, or the agent itself ends.
func isTransient(err error) bool {
	return errors.Is(err, errNotWanted) || errors.Is(err, errNoProcess) || errors.Is(err, context.Canceled)
}

// while runs work that may take long, and ends it as soon as it is not wanted
// any more: no rollback has to wait for a copy. The error is errNotWanted then,
// whatever the work says of its end.
func (a *agent) while(ctx context.Context, m *v1alpha1.PodMigration, work func(ctx context.Context) error) error {
	working, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		// It ends with the context, which the work does.
		_ = wait.PollUntilContextCancel(working, lookAgain, false, func(ctx context.Context) (bool, error) {
			now := &v1alpha1.PodMigration{}
			err := a.live.Get(ctx, client.ObjectKeyFromObject(m), now)
			isWanted := err == nil && isSame(m, now) || err != nil && !apierrors.IsNotFound(err)
			if !isWanted {
				cancel(errNotWanted)
			}
			return !isWanted, nil
		})
	})
	err := work(working)
	cancel(nil)
	watching.Wait()
	if err != nil && errors.Is(context.Cause(working), errNotWanted) {
		return errNotWanted
	}
	return err
}

// report changes the status, unless the migration has changed since it was read.
func (a *agent) report(ctx context.Context, m *v1alpha1.PodMigration, change func(*v1alpha1.CheckpointStatus)) error {
	base := m.DeepCopy()
	change(m.Status.Checkpoint)
	err := a.client.Status().Patch(ctx, m, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
	if err != nil {
		base.DeepCopyInto(m)
		return fmt.Errorf("reporting on PodMigration %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}

// reportLate reports on work that took its time: what others wrote meanwhile
// does not matter, as long as the work is still wanted. It tries until there is an
// answer, since nothing that was done may be forgotten. The error is errNotWanted
// when the migration no longer asks for the work, or that of the context.
func (a *agent) reportLate(ctx context.Context, m *v1alpha1.PodMigration, change func(*v1alpha1.CheckpointStatus)) error {
	return reportBackoff.DelayFunc().Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		now := &v1alpha1.PodMigration{}
		err := a.live.Get(ctx, client.ObjectKeyFromObject(m), now)
		if apierrors.IsNotFound(err) || err == nil && !isSame(m, now) {
			return false, errNotWanted
		}
		if err == nil {
			err = a.report(ctx, now, change)
		}
		switch {
		case err == nil:
			now.DeepCopyInto(m)
			return true, nil
		case apierrors.IsNotFound(err):
			return false, errNotWanted
		case !apierrors.IsConflict(err):
			ctrl.LoggerFrom(ctx).Error(err, "Failed to report, trying again")
		}
		return false, nil
	})
}

func (a *agent) volumes(pod types.UID, names []string) []checkpoint.Volume {
	volumes := make([]checkpoint.Volume, len(names))
	for i, name := range names {
		volumes[i] = checkpoint.Volume{Name: name, Dir: a.machine.EmptyDir(pod, name)}
	}
	return volumes
}

func (a *agent) now() metav1.MicroTime { return metav1.NewMicroTime(a.clock.Now()) }

func (a *agent) closeAll(key types.NamespacedName) {
	a.closeWriter(key)
	a.closeReader(key)
}

func (a *agent) closeWriter(key types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.writers[key]; w != nil {
		// It only read, or has synced what it wrote.
		_ = w.Close()
		delete(a.writers, key)
	}
}

func (a *agent) closeReader(key types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.readers[key]; r != nil {
		_ = r.Close()
		delete(a.readers, key)
	}
}

// pod reads a pod of the migration; nil when it is gone.
func (a *agent) pod(ctx context.Context, namespace string, reference *v1alpha1.PodReference) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	err := a.live.Get(ctx, types.NamespacedName{Namespace: namespace, Name: reference.Name}, pod)
	if apierrors.IsNotFound(err) || err == nil && pod.UID != reference.UID {
		return nil, nil
	}
	return pod, err
}
