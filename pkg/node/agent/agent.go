package agent

import (
	"context"
	"errors"
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
	// Processes lets the agent report on its node object whether processes can move.
	Processes bool
	Install   InstallOptions
}

// nodeOps is what an agent needs of its node; Machine is the real one. The error is
// errNoProcess where a pod or a container must run and does not.
type nodeOps interface {
	// EmptyDir is the directory of an emptyDir of a pod; it need not exist.
	EmptyDir(pod types.UID, volume string) string
	// ClaimDirectory is where a container of the pod sees the checkpoint claim; any
	// container where it is empty. The error is errNoProcess while none does.
	ClaimDirectory(pod types.UID, container string) (string, error)
	// Freeze returns when the whole pod is frozen. The error is errNoProcess, or
	// context.DeadlineExceeded after freezeTimeout; then parts of it may be frozen.
	Freeze(ctx context.Context, pod types.UID) error
	// Thaw undoes Freeze and FreezeContainers. A pod that is gone is no error.
	Thaw(pod types.UID) error
	// State tells how a pod stands. One that is gone counts as frozen.
	State(pod types.UID) (podState, error)
	// Boot identifies the run of the node's kernel.
	Boot() (string, error)
	// Kill ends a frozen pod: its processes die when it is thawed, before they take
	// another step. A pod that is gone is no error.
	Kill(pod types.UID) error
	processOps
}

const (
	// lookAgain is how soon what no watch reports is looked at again.
	lookAgain = 300 * time.Millisecond
	// atOnce is how soon a migration is looked at again that changed meanwhile.
	atOnce = time.Millisecond
)

// agent reconciles the migrations that concern its node.
type agent struct {
	node    string
	client  client.Client
	live    client.Reader
	ops     nodeOps
	records records
	// restores is where the wrapper of runc finds checkpoints, dumps where CRIU
	// writes them.
	restores ociruntime.Store
	dumps    string
	clock    clock.PassiveClock
	metrics  *Metrics

	mu sync.Mutex
	// writers and readers are open between two steps of a migration, so that what
	// is known of the files need not be read again.
	writers map[types.NamespacedName]*openWriter
	readers map[types.NamespacedName]*openReader
	// seals are being made by this process, by the UID of their migration; watched are the
	// frozen pods that are being looked at.
	seals   map[types.UID]*sealing
	watched map[types.UID]bool
	// freezing is held while a record and what it stands for are changed together.
	freezing sync.Mutex
	// failures of watching are logged now and then only.
	failures *throttle
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
// v1alpha1. Pods that an earlier agent froze are looked at first.
func SetupWithManager(mgr ctrl.Manager, o Options) error {
	a := newAgent(o.Node, mgr.GetClient(), mgr.GetAPIReader(), o.Machine, o.StateDir)
	a.metrics = NewMetrics(o.Registerer, a.records.count, a.overdue)
	if err := mgr.Add(a); err != nil {
		return err
	}
	if err := mgr.Add(&capabilityReporter{
		node: o.Node, client: mgr.GetClient(), live: mgr.GetAPIReader(), versions: o.Machine.Versions,
		reports: o.Processes, installs: o.Processes && o.Install.Enabled, where: o.Install.Nodes, handler: a.newInstaller(o),
	}); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).Named("node-agent").For(&v1alpha1.PodMigration{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).Complete(a)
}

func newAgent(node string, c client.Client, live client.Reader, ops nodeOps, stateDir string) *agent {
	return &agent{
		node: node, client: c, live: live, ops: ops, records: records{stateDir}, clock: clock.RealClock{}, metrics: NewMetrics(nil, nil, nil),
		restores: ociruntime.Store(filepath.Join(stateDir, "restore")), dumps: filepath.Join(stateDir, "dump"),
		writers: map[types.NamespacedName]*openWriter{}, readers: map[types.NamespacedName]*openReader{},
		seals: map[types.UID]*sealing{}, watched: map[types.UID]bool{}, failures: newThrottle(failuresInterval, time.Time{}),
	}
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

func (a *agent) volumes(pod types.UID, names []string) []checkpoint.Volume {
	volumes := make([]checkpoint.Volume, len(names))
	for i, name := range names {
		volumes[i] = checkpoint.Volume{Name: name, Dir: a.ops.EmptyDir(pod, name)}
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
