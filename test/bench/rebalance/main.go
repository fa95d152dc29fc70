package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
	"github.com/ai-storage/orchestrator/test/devcluster"
)

// options of the benchmark.
type options struct {
	data, out, binDir, manifestsDir, configDir, version string

	seeds    []uint64
	arms     []arm
	nodes    int
	parallel int
	duration time.Duration
	// step is how long one sample of a trace counts.
	step time.Duration
	// interval between two cycles of a tool, that of our configuration.
	interval time.Duration
	// overutilized is the share of CPU above which the report counts a node as overutilized.
	overutilized float64
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:])
	if err == nil {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rebalance benchmark:", err)
		os.Exit(1)
	}
}

func parse(arguments []string) (options, error) {
	var o options
	var seeds, names string
	flags := flag.NewFlagSet("rebalance", flag.ContinueOnError)
	flags.StringVar(&o.data, "data", "", "directory with openb/ and usage/; absent: generated data")
	flags.StringVar(&o.out, "out", "dist/bench-rebalance", "directory for results and for the logs of the clusters")
	flags.StringVar(&o.binDir, "bin", "bin", "directory with the programs")
	flags.StringVar(&o.manifestsDir, "manifests", "manifests", "what a user applies")
	flags.StringVar(&o.configDir, "config", "test/bench/rebalance/testdata", "directory with the configuration of each arm")
	flags.StringVar(&o.version, "version", "unknown", "version of the code, for the report")
	flags.StringVar(&seeds, "seeds", "1,2,3", "seeds of the scenarios")
	flags.StringVar(&names, "arms", "ours,descheduler,descheduler-deviation", "arms to run; the descheduler's can have the suffix -default-scheduler")
	flags.IntVar(&o.nodes, "nodes", 80, "number of nodes")
	flags.IntVar(&o.parallel, "parallel", 3, "arms that run at the same time, each in a cluster of its own")
	flags.DurationVar(&o.duration, "duration", 10*time.Minute, "time that each tool has")
	flags.DurationVar(&o.step, "step", time.Minute, "time that one sample of a trace counts")
	overutilized := flags.Int("overutilized", 70, "percent of CPU above which the report counts a node as overutilized; no tool knows it")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	o.overutilized = float64(*overutilized) / 100
	return o.complete(seeds, names)
}

func (o options) complete(seeds, names string) (options, error) {
	for _, text := range strings.Split(seeds, ",") {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return o, fmt.Errorf("seeds: %q is no number", text)
		}
		o.seeds = append(o.seeds, seed)
	}
	for _, name := range strings.Split(names, ",") {
		a, err := armNamed(name)
		if err != nil {
			return o, fmt.Errorf("arms: %w", err)
		}
		o.arms = append(o.arms, a)
	}
	switch {
	case o.nodes < 4:
		return o, fmt.Errorf("nodes: %d, want at least 4", o.nodes)
	case o.parallel < 1:
		return o, fmt.Errorf("parallel: %d, want at least 1", o.parallel)
	case o.duration < finalWindow:
		return o, fmt.Errorf("duration: %s, want at least %s", o.duration, finalWindow)
	case o.step < 10*time.Second:
		return o, fmt.Errorf("step: %s, want at least 10s, the resolution of metrics-server", o.step)
	}
	for _, path := range []*string{&o.out, &o.binDir, &o.manifestsDir, &o.configDir} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return o, err
		}
		*path = absolute
	}
	read, err := load.File(filepath.Join(o.configDir, configuration))
	if err != nil {
		return o, err
	}
	o.interval = read.Rebalance.Interval.Duration
	return o, nil
}

// run runs every arm on every seed, prints a table and writes JSON. What has
// been measured is written even when a later arm fails.
func run(ctx context.Context, o options) error {
	data, err := loadDataset(o.data)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	report := newReport(o, data)
	var mu sync.Mutex
	var failures []error
	var group errgroup.Group // a trial that fails does not take the others along
	group.SetLimit(o.parallel)
	for _, t := range trials(o) {
		group.Go(func() error {
			r, err := t.start(ctx, data)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				report.add(r)
				err = report.save(filepath.Join(o.out, "rebalance.json"))
			}
			if err != nil {
				failures = append(failures, fmt.Errorf("%s, seed %d: %w", t.arm.name, t.seed, err))
			}
			return nil
		})
	}
	_ = group.Wait() // failures are collected
	if len(report.Results) > 0 {
		fmt.Println()
		failures = append(failures, report.write(os.Stdout))
	}
	return errors.Join(failures...)
}

// trials in an order in which the arms of one seed run side by side.
func trials(o options) []*trial {
	var all []*trial
	for _, seed := range o.seeds {
		for _, a := range o.arms {
			all = append(all, &trial{options: o, arm: a, seed: seed})
		}
	}
	return all
}

func (t *trial) start(ctx context.Context, data *dataset) (*result, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	names := devcluster.NodeSpec{Kind: devcluster.Simulated, Count: t.nodes}.Names()
	samples := int(t.duration/t.step) + 2
	var err error
	if t.scenario, err = newScenario(data, names, samples, t.seed); err != nil {
		return nil, err
	}
	begin := time.Now()
	t.say = func(format string, arguments ...any) {
		fmt.Printf("seed %d, %s, %4.0f s: %s\n", t.seed, t.arm.name, time.Since(begin).Seconds(), fmt.Sprintf(format, arguments...))
	}
	r, err := t.run(ctx)
	if err == nil {
		t.say("deviation %.2f%% to %.2f%%, %d moves, %d undone, %d back at their source", r.Before, r.After, r.Moves, r.Undone, r.Back)
	}
	return r, err
}
