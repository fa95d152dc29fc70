package migration

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"

	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
)

// readSample reads the latest measurement of a pod; nil when the cluster has
// no metrics API, or the API has not seen the pod.
func readSample(ctx context.Context, from metricsclient.PodMetricsesGetter, namespace, name string) (*decide.Sample, error) {
	metrics, err := from.PodMetricses(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsServiceUnavailable(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the use of pod %s/%s: %w", namespace, name, err)
	}
	sample := &decide.Sample{Usage: corev1.ResourceList{}, End: metrics.Timestamp.Time, Window: metrics.Window.Duration}
	for _, c := range metrics.Containers {
		for resource, quantity := range c.Usage {
			sum := sample.Usage[resource]
			sum.Add(quantity)
			sample.Usage[resource] = sum
		}
	}
	return sample, nil
}
