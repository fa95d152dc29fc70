package migration

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
)

// atOnce is the RequeueAfter of a migration that has something to do now: zero
// would wait for the next change of an object.
const atOnce = time.Millisecond

// reconciler takes one step of one migration at a time.
type reconciler struct {
	// client writes, and finds objects for watches in its cache.
	client client.Client
	// live reads from the API server. A decision on a stale read could make a
	// second replacement, or evict for one that is no longer ready.
	live     client.Reader
	recorder events.EventRecorder
	metrics  metricsclient.PodMetricsesGetter
	counted  *Metrics
	// admission is nil when there is no budget to keep.
	admission *admission
	clock     clock.PassiveClock
	limits    decide.Limits
	onStep    func(types.NamespacedName, string) error
	// agentImage is the image of the node agent.
	agentImage string
	// pullSecrets are the Secrets by which that image is pulled in users' namespaces.
	pullSecrets []string
	// dropAnnotations are prefixes of annotations that a replacement does not inherit.
	dropAnnotations []string

	// acceptance makes the acceptance of migrations serial, so that neither two
	// migrations of one pod nor more than the budget pass.
	acceptance sync.Mutex
}

// Reconcile implements reconcile.Reconciler.
func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	m := &v1alpha1.PodMigration{}
	m.Namespace, m.Name = request.Namespace, request.Name
	if err := r.reached(m, "Reconcile"); err != nil {
		return ctrl.Result{}, err
	}
	if err := r.live.Get(ctx, request.NamespacedName, m); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	advance := r.advance
	if m.Status.Phase == "" || m.Status.Phase == v1alpha1.PhasePending {
		if waits, err := r.waitsForBudget(ctx, m); err != nil || waits {
			return ctrl.Result{RequeueAfter: decide.PollInterval}, err
		}
		advance = r.advanceAlone
	}
	result, boundary, err := advance(ctx, m)
	if apierrors.IsConflict(err) {
		// Another client wrote in between: look again.
		return ctrl.Result{RequeueAfter: atOnce}, nil
	}
	if err == nil && boundary != "" {
		// After the step: what it locks is free by then.
		err = r.reached(m, boundary)
	}
	return result, err
}

// advanceAlone takes a step in which the migration may be accepted.
func (r *reconciler) advanceAlone(ctx context.Context, m *v1alpha1.PodMigration) (ctrl.Result, string, error) {
	r.acceptance.Lock()
	defer r.acceptance.Unlock()
	// It may have been accepted while this waited.
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(m), m); err != nil {
		return ctrl.Result{}, "", client.IgnoreNotFound(err)
	}
	return r.advance(ctx, m)
}

// waitsForBudget reports whether a migration that had to wait still has
// to, as far as the cache knows. It keeps the many that wait from taking the
// API server and the workers away from those in flight.
func (r *reconciler) waitsForBudget(ctx context.Context, m *v1alpha1.PodMigration) (bool, error) {
	s := decide.State{Migration: m}
	if r.admission == nil || s.WantsStop() || !waitedForBudget(m) {
		return false, nil
	}
	pod, err := read(ctx, r.live, m.Namespace, m.Spec.PodName, &corev1.Pod{})
	if err != nil || pod == nil {
		return false, err
	}
	reason, err := r.admission.looksFull(ctx, m, pod)
	return reason != "", err
}

// advance gathers, decides, acts and writes the status, in this order and once. It
// returns the name of what the written status has begun; "" when it was not.
func (r *reconciler) advance(ctx context.Context, m *v1alpha1.PodMigration) (_ ctrl.Result, boundary string, err error) {
	state, err := r.gather(ctx, m)
	if err != nil {
		return ctrl.Result{}, "", fmt.Errorf("reading the state of PodMigration %s/%s: %w", m.Namespace, m.Name, err)
	}
	decision := decide.Next(*state)
	action, step := decision.Action, string(decision.Step)
	if action != nil {
		if err := r.reached(m, "before "+step); err != nil {
			return ctrl.Result{}, "", err
		}
		result := action.Do(ctx, executor{reconciler: r, migration: m})
		if err := r.reached(m, "after "+step); err != nil {
			return ctrl.Result{}, "", err
		}
		var retry error
		if decision, retry = decide.Settle(*state, decision, result); retry != nil {
			return ctrl.Result{}, "", fmt.Errorf("%s of PodMigration %s/%s: %w", step, m.Namespace, m.Name, retry)
		}
	}
	if boundary, err = r.writeStatus(ctx, m, &decision); err != nil {
		return ctrl.Result{}, "", err
	}
	r.report(m, &decision)
	switch {
	case decision.Wait > 0:
		return ctrl.Result{RequeueAfter: decision.Wait}, boundary, nil
	case boundary != "" || action != nil:
		return ctrl.Result{RequeueAfter: atOnce}, boundary, nil
	default:
		return ctrl.Result{}, "", nil
	}
}

// writeStatus writes the status if it changed, and names what that begins. The
// resourceVersion guards against a controller that was believed dead.
func (r *reconciler) writeStatus(ctx context.Context, m *v1alpha1.PodMigration, d *decide.Decision) (boundary string, err error) {
	if apiequality.Semantic.DeepEqual(m.Status, d.Status) {
		return "", nil
	}
	base := m.DeepCopy()
	m.Status = d.Status
	if err := r.client.Status().Patch(ctx, m, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{})); err != nil {
		if apierrors.IsNotFound(err) {
			return "", nil
		}
		return "", fmt.Errorf("writing the status of PodMigration %s/%s: %w", m.Namespace, m.Name, err)
	}
	r.counted.observe(base, m)
	traceChange(ctx, base, m)
	if base.CurrentPhase() != m.CurrentPhase() {
		ctrl.LoggerFrom(ctx).Info("Phase changed", "phase", m.Status.Phase, "message", m.Status.Message)
	}
	if base.Status.Phase != m.Status.Phase {
		return "phase " + string(m.Status.Phase), nil
	}
	if step := checkpointStep(m); step != checkpointStep(base) {
		return "checkpoint " + string(step), nil
	}
	return "step " + cmp.Or(string(d.Step), string(m.Status.Phase)), nil
}

func (r *reconciler) reached(m *v1alpha1.PodMigration, step string) error {
	if r.onStep == nil {
		return nil
	}
	return r.onStep(client.ObjectKeyFromObject(m), step)
}

func checkpointStep(m *v1alpha1.PodMigration) v1alpha1.CheckpointStep {
	if m.Status.Checkpoint == nil {
		return ""
	}
	return m.Status.Checkpoint.Step
}
