package migration

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
)

// Defaults of Options.
const (
	DefaultUnschedulableGrace = 30 * time.Second
	DefaultMeasureTimeout     = 90 * time.Second
	DefaultAgentGrace         = 30 * time.Second
	DefaultStartGrace         = time.Minute
	DefaultSettling           = 5 * time.Second
	DefaultWorkers            = 16
)

// BreakpointURL is the environment variable of a rebalancer built with
// -tags breakpoints, which asks at this address before and after each step. No
// shipped binary reads it.
const BreakpointURL = "AI_STORAGE_BREAKPOINT_URL"

// Options of the controller. The zero value works.
type Options struct {
	// Budget limits how much is disrupted at once; nil admits all.
	Budget *budget.Limits
	// Metrics reads measurements; nil asks metrics.k8s.io of the manager's cluster.
	Metrics metricsclient.PodMetricsesGetter
	// UnschedulableGrace is how long the scheduler may find no place, unless an autoscaler
	// says that it makes a node.
	UnschedulableGrace time.Duration
	// MeasureTimeout is how long the use of the replacement is waited for.
	MeasureTimeout time.Duration
	// AgentGrace is how long a node agent may be silent after it was asked, and a
	// node not Ready.
	AgentGrace time.Duration
	// StartGrace is how long the kubelet may fail to start a container of the
	// replacement before the migration is rolled back.
	StartGrace time.Duration
	// Settling is how long a replacement that nothing probes, and of which its owner says
	// nothing (minReadySeconds), has to be Ready before its original may end. Docker Swarm
	// watches a new task as long before it updates the next (--update-monitor).
	Settling time.Duration
	// DropAnnotationPrefixes are those of annotations that say something of the original
	// alone, beside the known ones: a replacement does not inherit them.
	DropAnnotationPrefixes []string
	// AgentImage is the image of the node agent, which carries the content of
	// emptyDirs; empty where there is none, and such pods are refused.
	AgentImage string
	// PullSecrets are the names of Secrets that pods with that image name beside those of
	// the original. A pod whose namespace lacks one is refused where it needs such a pod.
	PullSecrets []string
	// Workers is how many migrations take a step at the same time.
	Workers int
	// Registerer takes the metrics; nil registers none.
	Registerer prometheus.Registerer
	// OnStep is called around everything that the controller does for a migration,
	// with the name of the step. An error ends the reconciliation there, as a crash
	// would. For tests.
	OnStep func(migration types.NamespacedName, step string) error
}

// podIndex finds the migrations that a pod belongs to.
const podIndex = "pod"

// Environment is what a reconciler reads, writes and is timed by. All of it is needed.
type Environment struct {
	// Client writes; it finds migrations by the indexes of Index, in a cache that may
	// be a moment behind.
	Client client.Client
	// Live reads from the API server.
	Live     client.Reader
	Recorder events.EventRecorder
	Metrics  metricsclient.PodMetricsesGetter
	Clock    clock.PassiveClock
}

// NewReconciler returns what takes the steps of migrations, without a manager and its
// watches. Of the options Metrics and Workers are the manager's.
func NewReconciler(e Environment, o Options) reconcile.Reconciler { return newReconciler(e, o) }

func newReconciler(e Environment, o Options) *reconciler {
	r := &reconciler{
		client: e.Client, live: e.Live, recorder: e.Recorder, metrics: e.Metrics, clock: e.Clock, onStep: o.OnStep,
		agentImage: o.AgentImage, counted: NewMetrics(o.Registerer, e.Client),
		limits: decide.Limits{
			UnschedulableGrace: cmp.Or(o.UnschedulableGrace, DefaultUnschedulableGrace),
			MeasureTimeout:     cmp.Or(o.MeasureTimeout, DefaultMeasureTimeout),
			AgentGrace:         cmp.Or(o.AgentGrace, DefaultAgentGrace),
			StartGrace:         cmp.Or(o.StartGrace, DefaultStartGrace),
			Settling:           cmp.Or(o.Settling, DefaultSettling),
		},
		pullSecrets: o.PullSecrets, dropAnnotations: o.DropAnnotationPrefixes,
	}
	if o.Budget != nil {
		r.admission = &admission{live: r.live, cached: r.client, limits: *o.Budget}
	}
	return r
}

// SetupWithManager adds the controller to a manager whose scheme knows
// Kubernetes and v1alpha1.
func SetupWithManager(mgr ctrl.Manager, o Options) error {
	if o.Workers == 0 {
		o.Workers = DefaultWorkers
	}
	if o.Metrics == nil {
		metrics, err := metricsclient.NewForConfig(mgr.GetConfig())
		if err != nil {
			return fmt.Errorf("creating a client of metrics.k8s.io: %w", err)
		}
		o.Metrics = metrics
	}
	r := newReconciler(Environment{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Recorder: mgr.GetEventRecorder("ai-storage-rebalancer"),
		Metrics: o.Metrics, Clock: clock.RealClock{},
	}, o)
	if err := Index(mgr); err != nil {
		return err
	}
	// Only that a pod or a claim changed matters: its content is read live.
	return ctrl.NewControllerManagedBy(mgr).
		Named("podmigration").
		For(&v1alpha1.PodMigration{}).
		WatchesMetadata(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.migrationsOf)).
		WatchesMetadata(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(r.migrationsOf)).
		WithOptions(controller.Options{MaxConcurrentReconciles: o.Workers, RateLimiter: retries()}).
		Complete(r)
}

// Index prepares the cache of a manager for the controller, which calls it, and for
// a Preflight where the controller does not run.
func Index(mgr ctrl.Manager) error {
	for index, keys := range map[string]client.IndexerFunc{podIndex: podKeys, placeIndex: placeKeys} {
		if err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.PodMigration{}, index, keys); err != nil {
			return fmt.Errorf("indexing migrations by %s: %w", index, err)
		}
	}
	return nil
}

// Bounds of the wait before another attempt.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// retries backs off after errors, but never so long that a migration in flight
// is left waiting when the API server comes back.
func retries() workqueue.TypedRateLimiter[ctrl.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[ctrl.Request](firstRetry, lastRetry)
}

// podKeys are the name of the original, and the mark that a replacement carries. A
// migration that has finished is concerned by that mark alone.
func podKeys(object client.Object) []string {
	m := object.(*v1alpha1.PodMigration)
	if m.Status.Phase.IsFinished() {
		return []string{"uid/" + string(m.UID)}
	}
	return []string{"name/" + m.Spec.PodName, "uid/" + string(m.UID)}
}

// migrationsOf are the migrations that a pod or a claim belongs to: by the mark that they
// make, and by the name of the original.
func (r *reconciler) migrationsOf(ctx context.Context, pod client.Object) []ctrl.Request {
	keys := []string{"name/" + pod.GetName()}
	if uid := pod.GetLabels()[v1alpha1.MigrationUIDLabel]; uid != "" {
		keys = append(keys, "uid/"+uid)
	}
	var requests []ctrl.Request
	for _, key := range keys {
		list := &v1alpha1.PodMigrationList{}
		if err := r.client.List(ctx, list, client.InNamespace(pod.GetNamespace()), client.MatchingFields{podIndex: key}); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Cannot find the migrations of an object", "object", klog.KObj(pod))
			continue
		}
		for i := range list.Items {
			if m := &list.Items[i]; m.Status.Phase.IsFinished() && !isStray(m, pod) && !isUnused(m, pod) && (!isKeeping(m) || pod.GetName() != m.Status.CheckpointClaim) {
				continue
			}
			requests = append(requests, ctrl.Request{NamespacedName: types.NamespacedName{Namespace: list.Items[i].Namespace, Name: list.Items[i].Name}})
		}
	}
	return requests
}
