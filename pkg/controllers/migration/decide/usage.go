package decide

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/reclaimed"
)

// Sample is one measurement of a pod.
type Sample struct {
	// Usage is the sum over its containers.
	Usage corev1.ResourceList
	// End and Window say which time the sample is about.
	End    time.Time
	Window time.Duration
}

// startedAfter reports whether the whole window of a sample lies after a
// moment. Timestamps of the metrics API have whole seconds.
func (s *Sample) startedAfter(moment time.Time) bool {
	return s != nil && !s.End.Add(-s.Window).Before(moment.Truncate(time.Second))
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

// originalRequests counts what the author of a pod requested: requests of
// finished containers that were reclaimed in place are among what a move leaves
// behind for good.
func originalRequests(pod *corev1.Pod) corev1.ResourceList {
	original, err := reclaimed.Original(pod)
	if err != nil {
		return pods.Requests(pod) // The replacement cannot be built either, which is reported.
	}
	return pods.Requests(original)
}

// requestsWithoutOverhead leaves out what the runtime class of the pod adds.
func requestsWithoutOverhead(pod *corev1.Pod) corev1.ResourceList {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{ExcludeOverhead: true})
}

// freedRequests lists by how much the requests shrank, CPU and memory first.
func freedRequests(before, after *v1alpha1.ResourceRecord) string {
	if before == nil || after == nil {
		return ""
	}
	names := make([]string, 0, len(before.Requests))
	for name := range before.Requests {
		names = append(names, string(name))
	}
	slices.Sort(names)
	var parts []string
	for _, name := range names {
		freed := before.Requests[corev1.ResourceName(name)].DeepCopy()
		freed.Sub(after.Requests[corev1.ResourceName(name)])
		if freed.Sign() > 0 {
			parts = append(parts, name+" "+freed.String())
		}
	}
	return strings.Join(parts, ", ")
}
