package observe

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// BenchmarkBuild makes the snapshot of 1,000 nodes with 30 pods each, and a
// window of ten measurements.
func BenchmarkBuild(b *testing.B) {
	observation, options := testObservation(), metricsHistoryOptions()
	node, pod, nodeMetrics, podMetrics := observation.Nodes[0], observation.Pods[0], observation.NodeMetrics[0], observation.PodMetrics[0]
	observation.Nodes, observation.Pods, observation.NodeMetrics, observation.PodMetrics = nil, nil, nil, nil
	for i := range 1000 {
		n, m := node.DeepCopy(), nodeMetrics
		n.Name = fmt.Sprint("node-", i)
		m.Name = n.Name
		observation.Nodes, observation.NodeMetrics = append(observation.Nodes, n), append(observation.NodeMetrics, m)
		for j := range 30 {
			p, m := pod.DeepCopy(), podMetrics
			p.Name = fmt.Sprint("pod-", i, "-", j)
			p.UID, p.Spec.NodeName, m.Name = types.UID(p.Name), n.Name, p.Name
			observation.Pods, observation.PodMetrics = append(observation.Pods, p), append(observation.PodMetrics, m)
		}
	}
	for i := range 10 {
		for j := range observation.NodeMetrics {
			observation.NodeMetrics[j].Timestamp = metav1.NewTime(now.Add(time.Duration(i-10) * 30 * time.Second))
		}
		for j := range observation.PodMetrics {
			observation.PodMetrics[j].Timestamp = metav1.NewTime(now.Add(time.Duration(i-10) * 30 * time.Second))
		}
		options.MetricsHistory.Record(observation)
	}
	b.ReportAllocs()
	for b.Loop() {
		options.MetricsHistory.Record(observation)
		if snapshot := Build(observation, options); snapshot.Pods[0].Immovable != "" {
			b.Fatal(snapshot.Pods[0].Immovable)
		}
		Cooldowns(observation, options)
	}
}
