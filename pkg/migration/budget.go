package migration

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/budget"
)

// Budget decides how much may be disrupted at once.
type Budget interface {
	// Admit reports whether a migration may start now, and if not, why. Calls
	// come one at a time, and an acceptance is in the API before the next call.
	Admit(ctx context.Context, m *v1alpha1.PodMigration) (admitted bool, reason string, err error)
}

// LiveBudget counts the migrations that the API server knows, without a cache,
// so that it is exact.
type LiveBudget struct {
	reader client.Reader
	limits budget.Limits
}

var _ Budget = (*LiveBudget)(nil)

// NewLiveBudget returns a budget with fixed limits. The reader must not have a cache.
func NewLiveBudget(reader client.Reader, limits budget.Limits) *LiveBudget {
	return &LiveBudget{reader: reader, limits: limits}
}

// Admit counts every migration that holds a place, of all namespaces.
func (b *LiveBudget) Admit(ctx context.Context, m *v1alpha1.PodMigration) (bool, string, error) {
	list := &v1alpha1.PodMigrationList{}
	if err := b.reader.List(ctx, list); err != nil {
		return false, "", fmt.Errorf("counting migrations in flight: %w", err)
	}
	ledger := budget.NewLedger(b.limits)
	for i := range list.Items {
		if other := &list.Items[i]; other.UID != m.UID && budget.HoldsPlace(other) {
			ledger.Add(budget.MoveOf(other))
		}
	}
	reason := ledger.Check(budget.MoveOf(m))
	return reason == "", reason, nil
}
