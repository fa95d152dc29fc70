package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster"
)

// timeLimit for rebalancing, after which the demo has failed.
const timeLimit = 6 * time.Minute

// Options of a demo.
type Options struct {
	// Cluster says what to bring up. Its Components and Progress are the demo's own.
	Cluster devcluster.Options
	// Pods to create; 0 chooses a number that fits the nodes.
	Pods int
	Out  io.Writer
	// Live redraws the bars of the nodes in place, for a terminal.
	Live bool
}

// show is a demo that runs.
type show struct {
	Options
	begin   time.Time
	cluster *devcluster.Cluster
	client  client.Client
	args    *config.RebalanceArgs
}

// Run brings a cluster up, skews its load, lets the rebalancer work and prints
// a table. It returns nil only when the cluster is balanced better than before.
// Nothing keeps running, whatever happens.
func Run(ctx context.Context, o Options) (err error) {
	if _, err := devcluster.Open(o.Cluster.StateDir); err == nil {
		// Not ours: it must survive.
		return fmt.Errorf("%w in %s: the demo needs a cluster of its own", devcluster.ErrRunning, o.Cluster.StateDir)
	}
	directory, err := os.MkdirTemp("", "devcluster-demo-")
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer os.RemoveAll(directory)
	if o.Pods == 0 {
		o.Pods = defaultPods(o.Cluster.Nodes)
	}
	s := &show{Options: o, begin: time.Now()}
	changed := overrides(o.Cluster.Nodes.Kind)
	original := o.Cluster.ConfigFile
	s.Cluster.ConfigFile = filepath.Join(directory, "scheduler-configuration.yaml")
	if s.args, err = writeConfig(original, s.Cluster.ConfigFile, changed); err != nil {
		return err
	}
	// A wrong number of pods is said at once; the size of the nodes is not known yet.
	if _, err := newCrowd(o.Cluster.Nodes, o.Pods, amount{milliCPU: 1000, memory: 1 << 30}, s.threshold()); err != nil {
		return err
	}
	s.heading("Cluster (%s; %s with %s)", o.Cluster.Nodes, original, describe(changed))
	s.Cluster.Components = []string{devcluster.Scheduler}
	s.Cluster.Progress = o.Out
	if s.cluster, err = devcluster.Up(ctx, s.Cluster); err != nil {
		return err
	}
	defer func() {
		s.heading("Cleaning up")
		err = errors.Join(err, devcluster.Down(context.WithoutCancel(ctx), o.Cluster.StateDir, o.Out))
	}()
	if err := s.connect(); err != nil {
		return err
	}
	return s.rebalance(ctx)
}

// threshold of CPU, as a share of a node.
func (s *show) threshold() float64 { return float64(s.args.Thresholds.CPU) / 100 }

func (s *show) connect() error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, metricsv1beta1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	config, err := s.cluster.AdminConfig()
	if err != nil {
		return err
	}
	s.client, err = client.New(config, client.Options{Scheme: scheme})
	return err
}

// rebalance is the demo on a cluster that is up.
func (s *show) rebalance(ctx context.Context) error {
	s.heading("Workload")
	if err := s.createWorkload(ctx); err != nil {
		return fmt.Errorf("create the workload: %w", err)
	}
	before, err := s.awaitUse(ctx)
	if err != nil {
		return fmt.Errorf("wait for the workload's use: %w", err)
	}
	s.heading("Rebalancing (a node is overutilized above %d%% CPU or %d%% memory)", s.args.Thresholds.CPU, s.args.Thresholds.Memory)
	began := time.Now()
	if err := s.cluster.StartComponent(devcluster.Rebalancer); err != nil {
		return err
	}
	if err := s.cluster.AwaitComponent(ctx, devcluster.Rebalancer); err != nil {
		return err
	}
	after, moves, end, err := s.watch(ctx, began)
	if err != nil {
		return err
	}
	r := report{
		before: before, after: after, moves: moves, end: end, thresholds: s.args.Thresholds,
		rebalancing: time.Since(began), total: time.Since(s.begin),
	}
	s.heading("Result")
	r.write(s.Out)
	return r.judge()
}

// watch shows progress until rebalancing has settled.
func (s *show) watch(ctx context.Context, began time.Time) (measurement, tally, ending, error) {
	limit := time.NewTimer(timeLimit)
	defer limit.Stop()
	view := newView(s.Out, s.Live, s.args.Thresholds)
	ticker := time.NewTicker(view.interval())
	defer ticker.Stop()
	for {
		moves, err := readTally(ctx, s.client)
		if err != nil {
			return measurement{}, tally{}, notEnded, errors.Join(err, s.processEnded())
		}
		// A measurement can be missing for a moment.
		if loads, err := measure(ctx, s.client); err == nil {
			view.draw(time.Since(s.begin), loads, moves)
			if end := settled(time.Now(), began, loads, moves, s.args.Thresholds); end != notEnded {
				return loads, moves, end, nil
			}
		}
		if err := s.processEnded(); err != nil {
			return measurement{}, tally{}, notEnded, err
		}
		select {
		case <-ctx.Done():
			return measurement{}, tally{}, notEnded, ctx.Err()
		case <-limit.C:
			return measurement{}, tally{}, notEnded, fmt.Errorf("rebalancing has not settled within %s; the rebalancer's last words:\n%s",
				timeLimit, s.cluster.LogTail(devcluster.Rebalancer, 10))
		case <-ticker.C:
		}
	}
}

// processEnded returns an error when a part of the cluster is dead: to wait on
// would be in vain.
func (s *show) processEnded() error {
	processes, err := s.cluster.Processes()
	if err != nil {
		return err
	}
	for _, process := range processes {
		if !process.Alive {
			return fmt.Errorf("%s has ended; its log:\n%s", process.Name, s.cluster.LogTail(process.Name, 15))
		}
	}
	return nil
}

func (s *show) heading(format string, args ...any) {
	fmt.Fprintf(s.Out, "\n%s\n", strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (s *show) say(format string, args ...any) {
	fmt.Fprintf(s.Out, "%6.1fs  %s\n", time.Since(s.begin).Seconds(), fmt.Sprintf(format, args...))
}
