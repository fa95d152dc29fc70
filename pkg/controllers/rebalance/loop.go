package rebalance

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/observe"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

// Observer reads the cluster.
type Observer interface {
	Observe(ctx context.Context) (*observe.Observation, error)
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
	Writer client.Writer
	Args   *config.RebalanceArgs
	// Options must hold a MetricsHistory, in which the loop records every observation.
	Options observe.Options
	Clock   clock.WithTicker
	Metrics *Metrics
	// StatusStore is where the loop reads whether it is paused, and shows its status.
	StatusStore *StatusStore

	overutilized overutilizationTracker
	status       atomic.Pointer[Status]
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
			l.Metrics.cycles.WithLabelValues(resultFailed).Inc()
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
func (l *Loop) cycle(ctx context.Context) (err error) {
	started := l.Clock.Now()
	ctx, span := startSpan(ctx, "Rebalance")
	defer func() { endSpan(span, err) }()

	// 1. Observe, and record what was measured.
	in, err := l.observe(ctx)
	if err != nil {
		return err
	}
	l.Options.MetricsHistory.Record(in.observation)
	in.build(l.Options)
	l.overutilized.record(in.snapshot, l.Args)

	// 2. Plan.
	status, err := l.plan(ctx, in, l.overutilized.sources(int(l.Args.AbnormalCycles)))
	if err != nil {
		return err
	}
	status.Abnormal = l.overutilized.list()
	l.status.Store(status)
	l.Metrics.observe(status, l.Clock.Since(started))
	span.SetAttributes(attributesOf(status)...)
	logStatus(ctx, status)
	// Nobody sees what is decided, but it is decided all the same.
	if err := l.StatusStore.Publish(ctx, status); err != nil {
		klog.FromContext(ctx).Error(err, "The status of the loop is not shown to others")
	}

	// 3. Act on every move that still holds. One that fails, such as in a
	// namespace whose quota is used up, does not stand in the way of the others.
	// Moves that wait for others are for a later cycle, which plans anew.
	var failures []error
	for _, move := range status.startable() {
		failures = append(failures, l.act(ctx, move))
	}
	return errors.Join(failures...)
}

// Status of the last cycle; nil before the first. It must not be changed. Safe
// for use by several goroutines.
func (l *Loop) Status() *Status { return l.status.Load() }

// DryRun observes the cluster and plans, and records and changes nothing: what the
// loop has measured and counted so far stays as it is. It judges every node by what
// is measured now, as if it had been so for long enough. Not to be called while a
// cycle runs.
func (l *Loop) DryRun(ctx context.Context) (*Status, error) {
	in, err := l.observe(ctx)
	if err != nil {
		return nil, err
	}
	options := l.Options
	options.MinimumSamples, options.Assessments = 1, nil
	options.MetricsHistory = l.Options.MetricsHistory.Clone()
	options.MetricsHistory.Record(in.observation)
	in.build(options)
	status, err := l.plan(ctx, in, nil)
	if err != nil {
		return nil, err
	}
	status.DryRun = true
	return status, nil
}

// inputs are what one plan is made from.
type inputs struct {
	observation *observe.Observation
	pause       Pause
	// snapshot was built of the observation with the options.
	snapshot *cluster.Snapshot
	options  observe.Options
}

func (in *inputs) build(options observe.Options) {
	in.options, in.snapshot = options, observe.Build(in.observation, options)
}

// observe reads the cluster and whether the loop is paused. It decides nothing.
func (l *Loop) observe(ctx context.Context) (_ *inputs, err error) {
	observing, span := startSpan(ctx, "Observe")
	observation, err := l.Observer.Observe(observing)
	endSpan(span, err)
	if err != nil {
		return nil, fmt.Errorf("observing the cluster: %w", err)
	}
	pause, err := l.StatusStore.Pause(ctx)
	if err != nil {
		return nil, err
	}
	return &inputs{observation: observation, pause: pause}, nil
}

// plan decides what to move, and records nothing. Sources are the overutilized nodes
// that may give pods away; nil means all of them.
func (l *Loop) plan(ctx context.Context, in *inputs, sources map[string]bool) (*Status, error) {
	observation, snapshot := in.observation, in.snapshot
	status := &Status{
		Time: observation.At, Source: snapshot.Source, Skipped: skipped(snapshot),
		Breaker:    breakerOf(observation.Migrations, l.Args.CircuitBreaker, observation.At),
		Cooldowns:  observe.Cooldowns(observation, in.options),
		metricsAge: in.options.MetricsHistory.Age(observation.At),
	}
	planning := planningOptions(l.Args, observation)
	planning.Sources = sources
	status.allowed, status.Held = status.Breaker.mayMove(planning.MaxMoves)
	status.hold(in.pause)
	// Where nothing may be carried out, there is a plan nevertheless, for those who read it.
	if status.allowed > 0 {
		planning.MaxMoves = status.allowed
	}
	searching, span := startSpan(ctx, "Plan")
	var err error
	status.Plan, err = makePlan(searching, snapshot, l.Simulator.Session(snapshot), len(l.Args.NodePools), planning)
	endSpan(span, err)
	if err != nil {
		return nil, fmt.Errorf("planning: %w", err)
	}
	status.finish(observation.Migrations)
	return status, nil
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
func (l *Loop) act(ctx context.Context, move *planner.Move) (err error) {
	ctx, span := startSpan(ctx, "Act")
	defer func() { endSpan(span, err) }()
	logger := klog.FromContext(ctx)
	pod := &corev1.Pod{}
	stale, err := l.validate(ctx, move, pod)
	if err != nil {
		return fmt.Errorf("validating the move of pod %s: %w", move.Pod, err)
	}
	if stale != "" {
		l.Metrics.moves.WithLabelValues(outcomeStale).Inc()
		logger.Info("Move dropped, the cluster has changed", "pod", move.Pod, "reason", stale)
		return nil
	}
	migration := newMigration(move, pod, l.Args)
	if err := l.Writer.Create(ctx, migration); err != nil {
		return fmt.Errorf("creating the migration of pod %s: %w", move.Pod, err)
	}
	l.Metrics.moves.WithLabelValues(outcomeCreated).Inc()
	logger.Info("Migration created", "migration", klog.KObj(migration), "pod", move.Pod,
		"from", move.From, "to", move.To, "reason", move.Reason)
	return nil
}

func logStatus(ctx context.Context, status *Status) {
	logger, plan := klog.FromContext(ctx), status.Plan
	level := 2
	if status.allowed > 0 {
		level = 0
	}
	logger.V(level).Info("Planned", "moves", len(plan.Moves), "source", status.Source, "held", status.Held,
		"cpuDeviationBefore", plan.Before.CPUDeviation, "cpuDeviationAfter", plan.After.CPUDeviation,
		"objectiveBefore", plan.Before.Objective, "objectiveAfter", plan.After.Objective)
	for _, overutilized := range plan.StillOverutilized {
		logger.V(2).Info("Node stays overutilized", "node", overutilized.Name, "reasons", overutilized.Reasons)
	}
}

// minimumHistory is how long a finished migration made by the loop is kept, at
// least.
const minimumHistory = 24 * time.Hour

// historySeconds is how long cooldowns and the circuit breaker are read from a
// migration: until the longest cooldown that it is a part of has been reached
// and has passed.
func historySeconds(args *config.RebalanceArgs) *int32 {
	reset := observe.ResetWindow(args.MaxCooldown.Duration)
	cooldowns := 2 * reset
	for length := max(args.Cooldown.Duration, time.Second); length < args.MaxCooldown.Duration; length *= 2 {
		cooldowns += reset
	}
	breaker := args.CircuitBreaker.Window.Duration + args.CircuitBreaker.OpenFor.Duration
	seconds := int32(max(minimumHistory, cooldowns, breaker).Seconds())
	return &seconds
}
