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

// lookAgain is how soon what no watch reports is looked at again.
const lookAgain = 300 * time.Millisecond

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
	for {
		if err := a.thawForgotten(ctx); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Cannot look after frozen pods")
		}
		if err := a.removeForgotten(ctx); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Cannot remove checkpoints of pods that are gone")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(5 * time.Second):
		}
	}
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
		// Somebody wrote in between: judge again.
		return ctrl.Result{RequeueAfter: time.Millisecond}, nil
	}
	if errors.Is(err, errNoProcess) || errors.Is(err, context.Canceled) && ctx.Err() == nil {
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

// while runs work that may take long, and ends it as soon as it is not wanted
// any more: nothing that is put back has to wait for a copy.
func (a *agent) while(ctx context.Context, m *v1alpha1.PodMigration, work func(ctx context.Context) error) error {
	working, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-working.Done():
				return
			case <-time.After(lookAgain):
			}
			now := &v1alpha1.PodMigration{}
			err := a.live.Get(working, client.ObjectKeyFromObject(m), now)
			if apierrors.IsNotFound(err) || err == nil && !isSame(m, now) {
				cancel()
			}
		}
	})
	err := work(working)
	cancel()
	watching.Wait()
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
// does not matter, as long as the work is still wanted. It goes on until there is
// an answer, since nothing that was done may be forgotten.
func (a *agent) reportLate(ctx context.Context, m *v1alpha1.PodMigration, change func(*v1alpha1.CheckpointStatus)) error {
	for {
		now := &v1alpha1.PodMigration{}
		err := a.live.Get(ctx, client.ObjectKeyFromObject(m), now)
		if err == nil && !isSame(m, now) {
			return context.Canceled
		}
		if err == nil {
			if err = a.report(ctx, now, change); err == nil {
				now.DeepCopyInto(m)
				return nil
			}
		}
		if apierrors.IsNotFound(err) || ctx.Err() != nil {
			return err
		}
		if !apierrors.IsConflict(err) {
			ctrl.LoggerFrom(ctx).Error(err, "Cannot report, trying again")
			time.Sleep(lookAgain)
		}
	}
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
