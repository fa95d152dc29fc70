package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// loader makes the pods use what their slots use, as time passes.
type loader struct {
	client kubernetes.Interface
	step   time.Duration
	// begin is when the tool was started, in nanoseconds since the epoch; 0 until
	// then, when the pods use what sample 0 says.
	begin atomic.Int64
}

// sample is the one that counts at a moment.
func (l *loader) sample(now time.Time) int {
	begin := l.begin.Load()
	if begin == 0 {
		return 0
	}
	return int(now.Sub(time.Unix(0, begin)) / l.step)
}

// use tells simulated nodes what a pod uses from now on. A pod that is gone is no error.
func (l *loader) use(ctx context.Context, pod string, r *replica) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": useOf(r, l.sample(time.Now()))}})
	if err != nil {
		return err
	}
	_, err = l.client.CoreV1().Pods(namespace).Patch(ctx, pod, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("set the use of pod %s: %w", pod, err)
	}
	return nil
}

// run goes from sample to sample until ctx ends.
func (l *loader) run(ctx context.Context, o *observer) error {
	for {
		begin := time.Unix(0, l.begin.Load())
		next := begin.Add(time.Duration(l.sample(time.Now())+1) * l.step)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(next)):
		}
		pods := o.present()
		err := each(ctx, slices.Sorted(maps.Keys(pods)), func(ctx context.Context, _ int, name string) error {
			return l.use(ctx, name, pods[name])
		})
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}
