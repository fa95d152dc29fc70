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
	reading, options := testReading(), signalOptions()
	node, pod, nodeMetrics, podMetrics := reading.Nodes[0], reading.Pods[0], reading.NodeMetrics[0], reading.PodMetrics[0]
	reading.Nodes, reading.Pods, reading.NodeMetrics, reading.PodMetrics = nil, nil, nil, nil
	for i := range 1000 {
		n, m := node.DeepCopy(), nodeMetrics
		n.Name = fmt.Sprint("node-", i)
		m.Name = n.Name
		reading.Nodes, reading.NodeMetrics = append(reading.Nodes, n), append(reading.NodeMetrics, m)
		for j := range 30 {
			p, m := pod.DeepCopy(), podMetrics
			p.Name = fmt.Sprint("pod-", i, "-", j)
			p.UID, p.Spec.NodeName, m.Name = types.UID(p.Name), n.Name, p.Name
			reading.Pods, reading.PodMetrics = append(reading.Pods, p), append(reading.PodMetrics, m)
		}
	}
	for i := range 10 {
		for j := range reading.NodeMetrics {
			reading.NodeMetrics[j].Timestamp = metav1.NewTime(now.Add(time.Duration(i-10) * 30 * time.Second))
		}
		for j := range reading.PodMetrics {
			reading.PodMetrics[j].Timestamp = metav1.NewTime(now.Add(time.Duration(i-10) * 30 * time.Second))
		}
		options.Signals.Record(reading)
	}
	b.ReportAllocs()
	for b.Loop() {
		options.Signals.Record(reading)
		if snapshot := Build(reading, options); snapshot.Pods[0].Immovable != "" {
			b.Fatal(snapshot.Pods[0].Immovable)
		}
		Cooldowns(reading, options)
	}
}
