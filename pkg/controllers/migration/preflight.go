package migration

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// Preflight answers what the controller would do with a request, before there is a
// PodMigration. It decides by the controller's own rules on what it reads live;
// only the other migrations come from the cache, so that a thousand requests are
// not a thousand listings. The controller's own decision is the one that counts.
type Preflight struct{ r *reconciler }

// PreflightResult is the answer at one moment.
type PreflightResult struct {
	// Pod is the one that would move; nil when it does not exist.
	Pod *corev1.Pod
	// Refusal says why it would not be moved; nil when it would.
	Refusal *containers.Refusal
	// Stays says why its processes would not move along, where they were asked for; ""
	// when they would. Without a fallback that is the refusal.
	Stays string
	// Waits says for what it would have to wait; "" when it could begin now.
	Waits string
}

// NewPreflight needs a cached reader of a manager that SetupWithManager or Index was
// called with, and the options of the controller: of these the budget, the image and its
// Secrets count. It may be used by several goroutines.
func NewPreflight(live, cached client.Reader, o Options) *Preflight {
	r := &reconciler{live: migrationsFrom{Reader: live, cached: cached}, clock: clock.RealClock{}, agentImage: o.AgentImage, pullSecrets: o.PullSecrets}
	if o.Budget != nil {
		r.admission = &admission{cached: cached, limits: *o.Budget}
	}
	return &Preflight{r: r}
}

// Check judges a PodMigration that is not stored yet. Errors are those of reading.
func (p *Preflight) Check(ctx context.Context, request *v1alpha1.PodMigration) (PreflightResult, error) {
	// As if it were stored now: every other one is older.
	request = request.DeepCopy()
	request.CreationTimestamp = metav1.NewTime(p.r.clock.Now())
	state, err := p.r.gather(ctx, request)
	if err != nil {
		return PreflightResult{}, fmt.Errorf("reading what a migration of pod %s/%s depends on: %w", request.Namespace, request.Spec.PodName, err)
	}
	decision, stays := decide.Request(*state)
	result := PreflightResult{Pod: state.Pod}
	if stays != nil {
		result.Stays = stays.Message
	}
	accepted := meta.FindStatusCondition(decision.Status.Conditions, v1alpha1.ConditionAccepted)
	switch {
	case decision.Status.Phase == v1alpha1.PhaseFailed:
		result.Refusal = &containers.Refusal{Reason: accepted.Reason, Message: accepted.Message}
	case request.Spec.RecoverFrom != "":
		// It asks no budget.
	case decision.Step != decide.AskBudget:
		result.Waits = accepted.Message
	case p.r.admission != nil:
		result.Waits, err = p.r.admission.looksFull(ctx, request, state.Pod)
	}
	return result, err
}

// migrationsFrom lists migrations in the cache, and reads all else live.
type migrationsFrom struct {
	client.Reader
	cached client.Reader
}

func (r migrationsFrom) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	if _, migrations := list.(*v1alpha1.PodMigrationList); migrations {
		return r.cached.List(ctx, list, options...)
	}
	return r.Reader.List(ctx, list, options...)
}
