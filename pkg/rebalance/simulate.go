package rebalance

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/cluster"
	"github.com/ai-storage/orchestrator/pkg/planner"
	"github.com/ai-storage/orchestrator/pkg/simulation"
)

// SchedulerFilters lets the planner ask the real scheduler's filters.
func SchedulerFilters(simulator *simulation.Simulator) Simulator { return filters{simulator} }

type filters struct{ simulator *simulation.Simulator }

func (f filters) Session(snapshot *cluster.Snapshot) planner.Feasibility {
	return session{f.simulator.Session(snapshot)}
}

type session struct{ *simulation.Session }

func (s session) Fits(ctx context.Context, pod *corev1.Pod, node string) (refusal string, err error) {
	verdict, err := s.Session.Fits(ctx, pod, node)
	if err != nil || verdict.Fits {
		return "", err
	}
	return verdict.Plugin + ": " + verdict.Reason, nil
}
