package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster"
	"github.com/ai-storage/orchestrator/test/devcluster/process"
)

const (
	// stabilizing is how long the pods run before a tool starts: both leave pods
	// alone that are younger than a minute.
	stabilizing = 65 * time.Second
	tick        = time.Second
	// deschedulerQPS keeps the descheduler's client from holding itself back: by
	// default it could not even read the metrics of all nodes in time.
	deschedulerQPS = "200"
)

// arm is one tool with one configuration.
type arm struct {
	name string
	// configuration is that of our scheduler and rebalancer.
	configuration string
	// policy is the descheduler's; "" is our rebalancer.
	policy string
	// component is the scheduler that places the pods.
	component string
}

// arms that there are, by the files in testdata.
var arms = []arm{
	{ours, configuration, "", devcluster.Scheduler},
	{"descheduler", configuration, "descheduler.yaml", devcluster.Scheduler},
	{"descheduler-deviation", configuration, "descheduler-deviation.yaml", devcluster.Scheduler},
	// As most users have it: evicted pods are placed by requests alone.
	{"descheduler-default-scheduler", configuration, "descheduler.yaml", devcluster.DefaultScheduler},
	{"descheduler-deviation-default-scheduler", configuration, "descheduler-deviation.yaml", devcluster.DefaultScheduler},
}

const (
	ours          = "ours"
	configuration = "scheduler-configuration.yaml"
)

func armNamed(name string) (arm, error) {
	for _, a := range arms {
		if a.name == name {
			return a, nil
		}
	}
	return arm{}, fmt.Errorf("arm %q is unknown", name)
}

func (a arm) schedulerName() string {
	if a.component == devcluster.DefaultScheduler {
		return corev1.DefaultSchedulerName
	}
	return v1alpha1.SchedulerName
}

// trial is one arm on one scenario.
type trial struct {
	options
	arm      arm
	seed     uint64
	scenario *scenario
	say      func(format string, arguments ...any)

	cluster  *devcluster.Cluster
	client   kubernetes.Interface
	metrics  metricsclient.Interface
	observer *observer
	loader   *loader
}

// bringUps are one at a time: two clusters could choose the same ports.
var bringUps sync.Mutex

// run brings a cluster of its own up and takes it down, whatever happens.
func (t *trial) run(ctx context.Context) (_ *result, err error) {
	stateDir := filepath.Join(t.out, "clusters", fmt.Sprintf("%s-seed%d", t.arm.name, t.seed))
	if err := t.bringUp(ctx, stateDir); err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, devcluster.Down(context.WithoutCancel(ctx), stateDir, io.Discard))
	}()
	f := &fixture{client: t.client, scenario: t.scenario, scheduler: t.arm.schedulerName()}
	if err := f.create(ctx); err != nil {
		return nil, err
	}
	t.say("%d pods of %d nodes run", len(t.scenario.replicas), len(t.scenario.nodes))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.loader = &loader{client: t.client, step: t.step}
	t.observer = newObserver(f, func(pod string, r *replica) {
		go func() {
			if err := t.loader.use(ctx, pod, r); err != nil && ctx.Err() == nil {
				t.say("%v", err)
			}
		}()
	})
	if err := t.observer.start(ctx, t.client); err != nil {
		return nil, err
	}
	if err := t.settle(ctx); err != nil {
		return nil, fmt.Errorf("wait for metrics of the pods: %w", err)
	}
	return t.compete(ctx)
}

func (t *trial) bringUp(ctx context.Context, stateDir string) (err error) {
	bringUps.Lock()
	defer bringUps.Unlock()
	t.cluster, err = devcluster.Up(ctx, devcluster.Options{
		StateDir: stateDir, BinDir: t.binDir, ManifestsDir: t.manifestsDir,
		ConfigFile: filepath.Join(t.configDir, t.arm.configuration),
		Nodes:      devcluster.NodeSpec{Kind: devcluster.Simulated, Count: t.nodes},
		Components: []string{t.arm.component},
	})
	if err != nil {
		return err
	}
	config, err := t.cluster.AdminConfig()
	if err != nil {
		return err
	}
	if t.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	t.metrics, err = metricsclient.NewForConfig(config)
	return err
}

// settle waits until all pods are measured and old enough to be moved.
func (t *trial) settle(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(stabilizing):
	}
	ctx, cancel := context.WithTimeout(ctx, fixtureLimit)
	defer cancel()
	return poll(ctx, func(ctx context.Context) (bool, error) {
		measured, err := t.metrics.MetricsV1beta1().PodMetricses(namespace).List(ctx, metav1.ListOptions{})
		return err == nil && len(measured.Items) >= len(t.scenario.replicas), nil
	})
}

// compete lets the tool work for the duration, and watches.
func (t *trial) compete(ctx context.Context) (*result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &result{Arm: t.arm.name, Seed: t.seed, Pods: len(t.scenario.replicas), Factor: t.scenario.factor}
	begin := time.Now()
	t.loader.begin.Store(begin.UnixNano())
	r.observe(t.observer.measure(0, 0, t.overutilized))
	if err := t.startTool(ctx); err != nil {
		return nil, err
	}
	t.say("%s works from now on", t.arm.name)
	go func() {
		if err := t.loader.run(ctx, t.observer); err != nil {
			cancel(err)
		}
	}()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for time.Since(begin) < t.duration {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case now := <-ticker.C:
			r.observe(t.observer.measure(now.Sub(begin), t.loader.sample(now), t.overutilized))
			r.loadAverage = max(r.loadAverage, loadAverage())
		}
		if err := t.processEnded(); err != nil {
			return nil, err
		}
	}
	r.finish(t.observer.moves())
	if t.arm.policy == "" {
		if err := r.addMigrations(ctx, t.cluster); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (t *trial) startTool(ctx context.Context) error {
	if t.arm.policy == "" {
		if err := t.cluster.StartComponent(devcluster.Rebalancer); err != nil {
			return err
		}
		return t.cluster.AwaitComponent(ctx, devcluster.Rebalancer)
	}
	_, err := process.Start(t.cluster.StateDir(), process.Spec{
		Name: "descheduler", Path: filepath.Join(t.binDir, "descheduler"),
		Args: []string{
			"--kubeconfig=" + t.cluster.AdminKubeconfig(),
			"--policy-config-file=" + filepath.Join(t.configDir, t.arm.policy),
			"--descheduling-interval=" + t.interval.String(),
			"--client-connection-qps=" + deschedulerQPS, "--client-connection-burst=" + deschedulerQPS,
			"--secure-port=0", "--v=3",
		},
	})
	return err
}

// processEnded returns an error when a part of the cluster is dead.
func (t *trial) processEnded() error {
	processes, err := t.cluster.Processes()
	if err != nil {
		return err
	}
	for _, p := range processes {
		if !p.Alive {
			return fmt.Errorf("%s has ended; its log:\n%s", p.Name, t.cluster.LogTail(p.Name, 15))
		}
	}
	return nil
}
