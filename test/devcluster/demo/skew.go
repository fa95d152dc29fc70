package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	pollInterval = time.Second
	// creators work on pods at the same time.
	creators = 8
	// workloadLimit bounds each step until the workload is measured.
	workloadLimit = 3 * time.Minute
)

// createWorkload skews the cluster as maintenance does: while the other nodes
// are cordoned, the scheduler can only use the few that become overutilized. No pod is
// pinned to a node.
func (s *show) createWorkload(ctx context.Context) error {
	var nodes corev1.NodeList
	if err := s.client.List(ctx, &nodes); err != nil {
		return err
	}
	allocatable := nodes.Items[0].Status.Allocatable
	size := amount{milliCPU: float64(allocatable.Cpu().MilliValue()), memory: float64(allocatable.Memory().Value())}
	crowd, err := newCrowd(s.Cluster.Nodes, s.Pods, size, s.threshold())
	if err != nil {
		return err
	}
	names := s.Cluster.Nodes.Names()
	overutilized, cool := names[:crowd.overutilizedNodes], names[crowd.overutilizedNodes:]
	pods := crowd.newPods()
	for _, wave := range []struct {
		open, closed []string
		pods         []*corev1.Pod
	}{{overutilized, cool, pods[:crowd.overutilizedPods]}, {cool, overutilized, pods[crowd.overutilizedPods:]}} {
		if err := s.cordon(ctx, wave.closed, true); err != nil {
			return err
		}
		if err := s.cordon(ctx, wave.open, false); err != nil {
			return err
		}
		if err := s.createPods(ctx, wave.pods); err != nil {
			return err
		}
		s.say("%d pods run on %d of %d nodes, while the others are cordoned", len(wave.pods), len(wave.open), len(names))
	}
	return s.cordon(ctx, names, false)
}

func (s *show) cordon(ctx context.Context, names []string, cordoned bool) error {
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, cordoned))
	for _, name := range names {
		node := &corev1.Node{}
		node.Name = name
		if err := s.client.Patch(ctx, node, patch); err != nil {
			return fmt.Errorf("cordon node %s: %w", name, err)
		}
	}
	return nil
}

// createPods returns when all pods run.
func (s *show) createPods(ctx context.Context, pods []*corev1.Pod) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(creators)
	for _, pod := range pods {
		group.Go(func() error { return s.client.Create(groupCtx, pod) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("create pods: %w", err)
	}
	ours := map[types.UID]bool{}
	for _, pod := range pods {
		ours[pod.UID] = true
	}
	var waiting string
	return because(&waiting, s.poll(ctx, func(ctx context.Context) (bool, error) {
		var all corev1.PodList
		if err := s.client.List(ctx, &all); err != nil {
			return false, err
		}
		started := 0
		for i := range all.Items {
			pod := &all.Items[i]
			if !ours[pod.UID] {
				continue
			}
			if pod.Status.Phase == corev1.PodRunning {
				started++
			} else {
				waiting = fmt.Sprintf("pod %s is %s: %s", pod.Name, pod.Status.Phase, scheduling(pod))
			}
		}
		return started == len(pods), nil
	}))
}

func scheduling(pod *corev1.Pod) string {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status != corev1.ConditionTrue {
			return condition.Message
		}
	}
	return "it is on node " + pod.Spec.NodeName
}

// awaitUse waits until the loaders are done, metrics.k8s.io has what nodes and
// pods use without them, and the skew shows. It returns the measurement.
func (s *show) awaitUse(ctx context.Context) (measurement, error) {
	var waiting string
	var loads measurement
	err := because(&waiting, s.poll(ctx, func(ctx context.Context) (bool, error) {
		var pods corev1.PodList
		if err := s.client.List(ctx, &pods); err != nil {
			return false, err
		}
		working, finished := loaders(pods.Items)
		if waiting = fmt.Sprintf("%d loaders work", working); working > 0 {
			return false, nil
		}
		var metrics metricsv1beta1.PodMetricsList
		if err := s.client.List(ctx, &metrics); err != nil {
			waiting = err.Error()
			return false, nil
		}
		if waiting = fmt.Sprintf("%d of %d pods are measured", len(metrics.Items), len(pods.Items)); len(metrics.Items) < len(pods.Items) {
			return false, nil
		}
		var err error
		if loads, err = measure(ctx, s.client); err != nil {
			waiting = err.Error()
			return false, nil
		}
		if waiting = "the measurements are from before the loaders finished"; loads.since.Before(finished) {
			return false, nil
		}
		// Containers on real nodes may have to fight for the machine's cores first.
		waiting = fmt.Sprintf("no node is above a threshold, the highest has %s CPU: is the machine busy?", percent(slices.Max(loads.cpus())))
		return loads.overutilized(s.args.Thresholds) > 0, nil
	}))
	if err == nil {
		s.say("the loaders have finished, and metrics.k8s.io has the use of all %d pods without them", s.Pods)
	}
	return loads, err
}

// loaders counts those that still work, and tells when the last one finished.
func loaders(pods []corev1.Pod) (working int, finished time.Time) {
	for _, pod := range pods {
		for _, status := range pod.Status.ContainerStatuses {
			switch end := status.State.Terminated; {
			case status.Name != loaderName:
			case end == nil:
				working++
			case end.FinishedAt.After(finished):
				finished = end.FinishedAt.Time
			}
		}
	}
	return working, finished
}

func (s *show) poll(ctx context.Context, condition wait.ConditionWithContextFunc) error {
	return wait.PollUntilContextTimeout(ctx, pollInterval, workloadLimit, true, condition)
}

// because adds what was last waited for when the time ran out.
func because(reason *string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %s", err, *reason)
	}
	return err
}
