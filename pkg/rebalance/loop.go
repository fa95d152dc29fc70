package rebalance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/budget"
	"github.com/ai-storage/orchestrator/pkg/cluster"
	"github.com/ai-storage/orchestrator/pkg/observe"
	"github.com/ai-storage/orchestrator/pkg/planner"
)

// Observer reads the cluster.
type Observer interface {
	Observe(ctx context.Context) (*observe.Reading, error)
}

// Simulator starts a what-if on a snapshot.
type Simulator interface {
	Session(snapshot *cluster.Snapshot) planner.Feasibility
}

// Loop rebalances in turns. Only the leader may run it.
type Loop struct {
	Observer  Observer
	Simulator Simulator
	// Live reads from the API server, past every cache.
	Live client.Reader
	// Writer creates PodMigrations.
	Writer  client.Writer
	Args    *config.RebalanceArgs
	Options observe.Options
	Clock   clock.WithTicker
	Metrics *Metrics
}

// Start runs a cycle now and then one every interval, until ctx ends. A cycle
// that fails is logged, and the next one starts from what it then observes.
func (l *Loop) Start(ctx context.Context) error {
	logger := klog.FromContext(ctx).WithName("rebalance")
	ctx = klog.NewContext(ctx, logger)
	ticker := l.Clock.NewTicker(l.Args.Interval.Duration)
	defer ticker.Stop()
	for {
		if err := l.cycle(ctx); err != nil && ctx.Err() == nil {
			logger.Error(err, "Rebalancing cycle failed")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
	}
}

// NeedLeaderElection keeps a second rebalancer from acting at the same time.
func (l *Loop) NeedLeaderElection() bool { return true }

// cycle is one turn of the loop.
func (l *Loop) cycle(ctx context.Context) error {
	started := l.Clock.Now()

	// 1. Observe and plan.
	plan, err := l.Plan(ctx)
	if err != nil {
		return err
	}
	l.Metrics.observePlan(plan, l.Clock.Since(started))
	logPlan(ctx, plan)

	// 2. Act on every move that still holds. One that fails, such as in a
	// namespace whose quota is used up, does not stand in the way of the others.
	// Moves that wait for others are for a later cycle, which plans anew.
	var failures []error
	for i := range plan.Moves {
		if len(plan.Moves[i].After) > 0 {
			continue
		}
		failures = append(failures, l.act(ctx, &plan.Moves[i]))
	}
	return errors.Join(failures...)
}

// Plan observes the cluster and plans, and changes nothing.
func (l *Loop) Plan(ctx context.Context) (*planner.Plan, error) {
	reading, err := l.Observer.Observe(ctx)
	if err != nil {
		return nil, fmt.Errorf("observing the cluster: %w", err)
	}
	snapshot := observe.Build(reading, l.Options)
	plan, err := planner.Make(ctx, snapshot, l.Simulator.Session(snapshot), planner.Options{
		Thresholds: Thresholds(l.Args),
		MaxMoves:   int(l.Args.Budget.MaxMovesPerCycle),
		Budget:     ledger(l.Args, reading.Migrations),
	})
	if err != nil {
		return nil, fmt.Errorf("planning: %w", err)
	}
	return plan, nil
}

// ledger counts every migration that may still disrupt, also those that wait
// for their place: a plan must leave it to them.
func ledger(args *config.RebalanceArgs, migrations []v1alpha1.PodMigration) *budget.Ledger {
	l := budget.NewLedger(Limits(args))
	for i := range migrations {
		if budget.IsDisruptive(&migrations[i]) {
			l.Add(budget.MoveOf(&migrations[i]))
		}
	}
	return l
}

// act validates one move against the API server and creates its migration.
func (l *Loop) act(ctx context.Context, move *planner.Move) error {
	logger := klog.FromContext(ctx)
	stale, err := l.validate(ctx, move)
	if err != nil {
		return fmt.Errorf("validating the move of pod %s: %w", move.Pod, err)
	}
	if stale != "" {
		l.Metrics.moves.WithLabelValues(outcomeStale).Inc()
		logger.Info("Move dropped, the cluster has changed", "pod", move.Pod, "why", stale)
		return nil
	}
	migration := newMigration(move, l.Args)
	if err := l.Writer.Create(ctx, migration); err != nil {
		return fmt.Errorf("creating the migration of pod %s: %w", move.Pod, err)
	}
	l.Metrics.moves.WithLabelValues(outcomeCreated).Inc()
	logger.Info("Migration created", "migration", klog.KObj(migration), "pod", move.Pod,
		"from", move.From, "to", move.To, "reason", move.Reason)
	return nil
}

func logPlan(ctx context.Context, plan *planner.Plan) {
	logger := klog.FromContext(ctx)
	level := 2
	if len(plan.Moves) > 0 {
		level = 0
	}
	logger.V(level).Info("Planned", "moves", len(plan.Moves),
		"cpuDeviationBefore", plan.Before.CPUDeviation, "cpuDeviationAfter", plan.After.CPUDeviation,
		"objectiveBefore", plan.Before.Objective, "objectiveAfter", plan.After.Objective)
	for _, hot := range plan.StillHot {
		logger.V(2).Info("Node stays hot", "node", hot.Name, "reasons", hot.Reasons)
	}
}

// minimumHistory is how long a finished migration made by the loop is kept, at
// least. The cooldown is read from it.
const minimumHistory = 24 * time.Hour

func historySeconds(args *config.RebalanceArgs) *int32 {
	seconds := int32(max(minimumHistory, 2*args.Cooldown.Duration).Seconds())
	return &seconds
}
