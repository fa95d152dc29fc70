package world

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/scheduling/observe"
)

// systemUse is what a node uses beside its pods, in millicores and bytes.
var systemUse = [2]int64{200, 512 << 20}

// Observation is the world as the informers and the metrics API show it.
func (w *World) Observation() *observe.Observation {
	observation := &observe.Observation{At: w.At, Nodes: w.Nodes, Pods: w.Pods, Claims: noClaims, Owner: fixture.OwnerOf}
	stamp, window := metav1.NewTime(w.At), metav1.Duration{Duration: 20 * time.Second}
	used := make(map[string][2]int64, len(w.Nodes))
	observation.PodMetrics = make([]metricsv1beta1.PodMetrics, 0, len(w.Pods))
	for _, pod := range w.Pods {
		use := w.Usage[pod.UID]
		sum := used[pod.Spec.NodeName]
		used[pod.Spec.NodeName] = [2]int64{sum[0] + use[0], sum[1] + use[1]}
		observation.PodMetrics = append(observation.PodMetrics, metricsv1beta1.PodMetrics{
			ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}, Timestamp: stamp, Window: window,
			Containers: []metricsv1beta1.ContainerMetrics{{Name: "main", Usage: amounts(use)}},
		})
	}
	for _, node := range w.Nodes {
		sum := used[node.Name]
		observation.NodeMetrics = append(observation.NodeMetrics, metricsv1beta1.NodeMetrics{
			ObjectMeta: metav1.ObjectMeta{Name: node.Name}, Timestamp: stamp, Window: window,
			Usage: amounts([2]int64{sum[0] + systemUse[0], sum[1] + systemUse[1]}),
		})
	}
	return observation
}
