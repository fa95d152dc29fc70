package simulation

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

// Filters lets the planner ask the real scheduler's filters.
type Filters struct{ Simulator *Simulator }

// Session starts a what-if on a snapshot.
func (f Filters) Session(snapshot *cluster.Snapshot) planner.Feasibility {
	return refusals{f.Simulator.Session(snapshot)}
}

type refusals struct{ *Session }

func (r refusals) Fits(ctx context.Context, pod *corev1.Pod, node string) (refusal string, err error) {
	verdict, err := r.Session.Fits(ctx, pod, node)
	if err != nil || verdict.Fits {
		return "", err
	}
	return verdict.Plugin + ": " + verdict.Reason, nil
}
