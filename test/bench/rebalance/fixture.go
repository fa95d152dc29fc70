package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/ai-storage/orchestrator/test/devcluster/image"
	"github.com/ai-storage/orchestrator/test/devcluster/simnode"
)

const (
	namespace     = metav1.NamespaceDefault
	containerName = "app"
	workloadLabel = "app"
	// gpuResource counts thousandths of a GPU, as openb does.
	gpuResource corev1.ResourceName = "alibabacloud.com/gpu-milli"
	// hashOfStart is the pod-template-hash of the ReplicaSets that the benchmark makes.
	hashOfStart = "start"

	writers      = 8
	fixtureLimit = 5 * time.Minute
	// cachesLag is how long the controller manager may take to hear of the pods.
	cachesLag = 3 * time.Second
)

// fixture brings a scenario into a cluster, always the same placement: pods are
// made on their nodes, then a ReplicaSet for each workload adopts them, then a
// Deployment adopts that.
type fixture struct {
	client    kubernetes.Interface
	scenario  *scenario
	scheduler string
	// uids of the pods, by replica in the scenario's order.
	uids []string
}

func (f *fixture) create(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fixtureLimit)
	defer cancel()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"size the nodes", f.sizeNodes},
		{"create the pods", f.createPods},
		{"wait for the pods", f.awaitPods},
		{"create the ReplicaSets", f.createReplicaSets},
		{"wait for the ReplicaSets", f.awaitReplicaSets},
		{"create the Deployments", f.createDeployments},
		{"wait for the Deployments", f.awaitDeployments},
		{"check the pods", f.checkPods},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// each does something for many, some at a time.
func each[T any](ctx context.Context, items []T, do func(ctx context.Context, index int, item T) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for i, item := range items {
		group.Go(func() error { return do(ctx, i, item) })
	}
	return group.Wait()
}

// sizeNodes gives the simulated nodes the sizes of openb's.
func (f *fixture) sizeNodes(ctx context.Context) error {
	return each(ctx, f.scenario.nodes, func(ctx context.Context, _ int, n *node) error {
		size := resourcesOf(n.shape.size)
		// A merge: kwok and the node controllers write the same objects.
		patch, err := json.Marshal(map[string]any{"status": map[string]any{"capacity": size, "allocatable": size}})
		if err != nil {
			return err
		}
		_, err = f.client.CoreV1().Nodes().Patch(ctx, n.name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
		return err
	})
}

func resourcesOf(size amounts) corev1.ResourceList {
	list := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(size.milliCPU, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(size.memoryMiB<<20, resource.BinarySI),
	}
	if size.gpuMilli > 0 {
		list[gpuResource] = *resource.NewQuantity(size.gpuMilli, resource.DecimalSI)
	}
	return list
}

func (f *fixture) template(r *replica) corev1.PodTemplateSpec {
	requests := resourcesOf(r.request)
	limits := corev1.ResourceList{}
	if quantity, asks := requests[gpuResource]; asks {
		limits[gpuResource] = quantity // extended resources cannot be overcommitted
	}
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{workloadLabel: r.Workload}},
		Spec: corev1.PodSpec{
			SchedulerName:                 f.scheduler,
			TerminationGracePeriodSeconds: new(int64(5)),
			AutomountServiceAccountToken:  new(false),
			Containers: []corev1.Container{{
				Name: containerName, Image: image.WorkloadReference,
				Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits},
			}},
		},
	}
}

func (f *fixture) createPods(ctx context.Context) error {
	f.uids = make([]string, len(f.scenario.replicas))
	return each(ctx, f.scenario.replicas, func(ctx context.Context, i int, r *replica) error {
		template := f.template(r)
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name:        fmt.Sprintf("%s-%s-%d", r.Workload, hashOfStart, r.Index),
				Labels:      labelsOfStart(r),
				Annotations: useOf(r, 0),
			},
			Spec: template.Spec,
		}
		pod.Spec.NodeName = r.start
		created, err := f.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
		if err == nil {
			f.uids[i] = string(created.UID)
		}
		return err
	})
}

func labelsOfStart(r *replica) map[string]string {
	return map[string]string{workloadLabel: r.Workload, appsv1.DefaultDeploymentUniqueLabelKey: hashOfStart}
}

// useOf is what a pod in the slot of a replica uses, in the language of
// simulated nodes.
func useOf(r *replica, sample int) map[string]string {
	return map[string]string{
		simnode.CPUUsagePrefix + containerName:    strconv.FormatInt(max(1, int64(r.milliCPUAt(sample))), 10) + "m",
		simnode.MemoryUsagePrefix + containerName: strconv.FormatInt(max(1, r.memoryMiB()), 10) + "Mi",
	}
}

// workloads are the first replicas of each.
func (f *fixture) workloads() (firsts []*replica, sizes map[string]int32) {
	sizes = map[string]int32{}
	for _, r := range f.scenario.replicas {
		if sizes[r.Workload]++; r.Index == 0 {
			firsts = append(firsts, r)
		}
	}
	return firsts, sizes
}

func (f *fixture) createReplicaSets(ctx context.Context) error {
	// Else a ReplicaSet makes pods of its own instead of adopting those.
	time.Sleep(cachesLag)
	firsts, sizes := f.workloads()
	return each(ctx, firsts, func(ctx context.Context, _ int, r *replica) error {
		template := f.template(r)
		template.Labels = labelsOfStart(r)
		set := &appsv1.ReplicaSet{
			ObjectMeta: metav1.ObjectMeta{Name: r.Workload + "-" + hashOfStart, Labels: labelsOfStart(r)},
			Spec: appsv1.ReplicaSetSpec{
				Replicas: new(sizes[r.Workload]), Selector: &metav1.LabelSelector{MatchLabels: labelsOfStart(r)}, Template: template,
			},
		}
		_, err := f.client.AppsV1().ReplicaSets(namespace).Create(ctx, set, metav1.CreateOptions{})
		return err
	})
}

func (f *fixture) createDeployments(ctx context.Context) error {
	firsts, sizes := f.workloads()
	return each(ctx, firsts, func(ctx context.Context, _ int, r *replica) error {
		deployment := &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: r.Workload},
			Spec: appsv1.DeploymentSpec{
				Replicas: new(sizes[r.Workload]),
				Selector: &metav1.LabelSelector{MatchLabels: map[string]string{workloadLabel: r.Workload}},
				Template: f.template(r),
			},
		}
		_, err := f.client.AppsV1().Deployments(namespace).Create(ctx, deployment, metav1.CreateOptions{})
		return err
	})
}

func poll(ctx context.Context, condition wait.ConditionWithContextFunc) error {
	return wait.PollUntilContextCancel(ctx, time.Second, true, condition)
}

func (f *fixture) awaitPods(ctx context.Context) error {
	return poll(ctx, func(ctx context.Context) (bool, error) {
		pods, err := f.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"})
		return err == nil && len(pods.Items) == len(f.scenario.replicas), err
	})
}

func (f *fixture) awaitReplicaSets(ctx context.Context) error {
	return poll(ctx, func(ctx context.Context) (bool, error) {
		pods, err := f.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		for i := range pods.Items {
			if metav1.GetControllerOf(&pods.Items[i]) == nil {
				return false, nil
			}
		}
		return true, nil
	})
}

func (f *fixture) awaitDeployments(ctx context.Context) error {
	return poll(ctx, func(ctx context.Context) (bool, error) {
		deployments, err := f.client.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		for _, d := range deployments.Items {
			if d.Status.ObservedGeneration < d.Generation || d.Status.AvailableReplicas != *d.Spec.Replicas || d.Status.UpdatedReplicas != *d.Spec.Replicas {
				return false, nil
			}
		}
		return len(deployments.Items) > 0, nil
	})
}

// checkPods makes sure that the pods are still those of the scenario.
func (f *fixture) checkPods(ctx context.Context) error {
	pods, err := f.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	ours := map[string]bool{}
	for _, uid := range f.uids {
		ours[uid] = true
	}
	for _, pod := range pods.Items {
		if !ours[string(pod.UID)] || pod.DeletionTimestamp != nil {
			return fmt.Errorf("pod %s is not of the scenario, or is being deleted", pod.Name)
		}
	}
	if len(pods.Items) != len(f.uids) {
		return fmt.Errorf("%d pods, want the scenario's %d", len(pods.Items), len(f.uids))
	}
	return nil
}
