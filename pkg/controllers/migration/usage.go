package migration

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Sample is one measurement of a pod.
type Sample struct {
	// Usage is the sum over its containers.
	Usage corev1.ResourceList
	// End and Window say which time the sample is about.
	End    time.Time
	Window time.Duration
}

// readSample reads the latest measurement of a pod; nil when the cluster has
// no metrics API, or the API has not seen the pod.
func readSample(ctx context.Context, from metricsclient.PodMetricsesGetter, namespace, name string) (*Sample, error) {
	metrics, err := from.PodMetricses(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsServiceUnavailable(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the use of pod %s/%s: %w", namespace, name, err)
	}
	sample := &Sample{Usage: corev1.ResourceList{}, End: metrics.Timestamp.Time, Window: metrics.Window.Duration}
	for _, c := range metrics.Containers {
		for resource, quantity := range c.Usage {
			sum := sample.Usage[resource]
			sum.Add(quantity)
			sample.Usage[resource] = sum
		}
	}
	return sample, nil
}

// record joins requests with a measurement; without one it says so.
func record(requests corev1.ResourceList, sample *Sample) *v1alpha1.ResourceRecord {
	r := &v1alpha1.ResourceRecord{Requests: requests, Source: v1alpha1.UsageUnavailable}
	if sample != nil {
		end := metav1.NewTime(sample.End)
		r.Usage, r.MeasuredAt = sample.Usage, &end
		r.Source, r.WindowSeconds = v1alpha1.UsageFromMetricsAPI, int32(sample.Window.Round(time.Second)/time.Second)
	}
	return r
}

// startedAfter reports whether the whole window of a sample lies after a
// moment. Timestamps of the metrics API have whole seconds.
func (s *Sample) startedAfter(moment time.Time) bool {
	return s != nil && !s.End.Add(-s.Window).Before(moment.Truncate(time.Second))
}
