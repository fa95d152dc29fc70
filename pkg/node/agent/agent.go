package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/ociruntime"
	"github.com/ai-storage/orchestrator/pkg/node/transfer"
)

// Options of an agent.
type Options struct {
	// Node is the name of the node that the agent runs on.
	Node string
	// StateDir is a directory of the node that outlives the agent.
	StateDir string
	Machine  Machine
	// TransferHost is the address of the node at which its agent receives what the agents of
	// other nodes send, TransferPort the TCP port.
	TransferHost string
	TransferPort int
	// TransferLimit bounds what the agent sends while pods run, in bytes a second; 0 does not.
	TransferLimit int64
	// Registerer takes the metrics; nil registers none.
	Registerer prometheus.Registerer
	// Processes lets the agent report on its node object whether processes can move.
	Processes bool
	Install   InstallOptions
}

// nodeOps is what an agent needs of its node; Machine is the real one. The error is
// errNoProcess where a pod or a container must run and does not.
type nodeOps interface {
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
	// writes them, transfers what is known of the volumes that are sent and received.
	restores         ociruntime.Store
	dumps, transfers string
	// kubelet is the root directory of the kubelet.
	kubelet string
	// isMounted reports whether something is mounted at a directory.
	isMounted func(*os.File) (bool, error)
	clock     clock.PassiveClock
	metrics   *Metrics
	// identity and address are what other agents find this one by.
	identity *transfer.Identity
	address  string
	limit    *rate.Limiter
	// life ends with the agent, and end ends it.
	life context.Context //nolint:containedctx // connections outlive what they were made for
	end  context.CancelFunc

	mu         sync.Mutex
	sendings   map[types.NamespacedName]*sending
	receivings map[types.UID]*receiving
	// seals are being made by this process, by the UID of their migration; watched are the
	// frozen pods that are being looked at.
	seals   map[types.UID]*sealing
	watched map[types.UID]bool
	// freezing is held while a record and what it stands for are changed together.
	freezing sync.Mutex
	// failures of watching are logged now and then only.
	failures *throttle
}

// workers is how many migrations an agent serves at the same time.
const workers = 8

// SetupWithManager adds the agent to a manager whose scheme knows Kubernetes and
// v1alpha1. Pods that an earlier agent froze are looked at first.
func SetupWithManager(mgr ctrl.Manager, o Options) error {
	a, err := newAgent(o.Node, mgr.GetClient(), mgr.GetAPIReader(), o.Machine, o.StateDir, o.Machine.KubeletRoot)
	if err != nil {
		return err
	}
	a.address = net.JoinHostPort(o.TransferHost, strconv.Itoa(o.TransferPort))
	if o.TransferLimit > 0 {
		a.limit = rate.NewLimiter(rate.Limit(o.TransferLimit), limitBurst)
	}
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

// limitBurst is what may be sent at once where sending is limited, in bytes.
const limitBurst = 1 << 20

func newAgent(node string, c client.Client, live client.Reader, ops nodeOps, stateDir, kubelet string) (*agent, error) {
	identity, err := transfer.NewIdentity()
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	life, end := context.WithCancel(context.Background())
	return &agent{
		node: node, client: c, live: live, ops: ops, records: records{stateDir}, clock: clock.RealClock{}, metrics: NewMetrics(nil, nil, nil),
		restores: ociruntime.Store(filepath.Join(stateDir, "restore")), dumps: filepath.Join(stateDir, "dump"), transfers: filepath.Join(stateDir, "transfer"),
		kubelet: kubelet, isMounted: isMountRoot, identity: identity, life: life, end: end,
		sendings: map[types.NamespacedName]*sending{}, receivings: map[types.UID]*receiving{},
		seals: map[types.UID]*sealing{}, watched: map[types.UID]bool{}, failures: newThrottle(failuresInterval, time.Time{}),
	}, nil
}

// Reconcile implements reconcile.Reconciler.
func (a *agent) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	m := &v1alpha1.PodMigration{}
	if err := a.live.Get(ctx, request.NamespacedName, m); err != nil {
		if apierrors.IsNotFound(err) {
			// What is left of it is removed later, see removeStates.
			a.closeSending(request.NamespacedName)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, err
	}
	err := a.serve(ctx, m)
	if apierrors.IsConflict(err) {
		// Another client wrote in between: decide again.
		return ctrl.Result{RequeueAfter: atOnce}, nil
	}
	if errors.Is(err, errNoProcess) || errors.Is(err, errNotWanted) {
		return ctrl.Result{RequeueAfter: lookAgain}, nil
	}
	return ctrl.Result{}, err
}

func (a *agent) serve(ctx context.Context, m *v1alpha1.PodMigration) error {
	status, destination := m.Status, m.DestinationPod()
	isSource := status.Original != nil && status.Original.NodeName == a.node
	isDestination := status.Checkpoint != nil && (destination != nil && destination.NodeName == a.node || a.hasState(m.UID))
	if status.Checkpoint != nil && (isSource || isDestination) {
		if err := checkUIDs(m); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Refused a migration", "migration", klog.KObj(m))
			return nil
		}
	}
	var sourceErr, destinationErr error
	if isSource {
		sourceErr = a.serveSource(ctx, m.DeepCopy())
	}
	if isDestination {
		destinationErr = a.serveDestination(ctx, m)
	}
	return errors.Join(sourceErr, destinationErr)
}

func (a *agent) now() metav1.MicroTime { return metav1.NewMicroTime(a.clock.Now()) }
