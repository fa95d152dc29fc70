package demo

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
)

// nodeLoad is the measured use of a node, as a share of its allocatable.
type nodeLoad struct {
	name        string
	cpu, memory float64
}

// measurement holds the loads of all nodes, by name.
type measurement struct {
	nodes []nodeLoad
	// since is the start of the oldest window: what happened before it is in
	// every figure.
	since time.Time
}

// measure reads metrics.k8s.io. It fails when a node is not measured.
func measure(ctx context.Context, reader client.Reader) (measurement, error) {
	var nodes corev1.NodeList
	if err := reader.List(ctx, &nodes); err != nil {
		return measurement{}, fmt.Errorf("measure: %w", err)
	}
	var metrics metricsv1beta1.NodeMetricsList
	if err := reader.List(ctx, &metrics); err != nil {
		return measurement{}, fmt.Errorf("measure: %w", err)
	}
	measured := map[string]metricsv1beta1.NodeMetrics{}
	for _, item := range metrics.Items {
		measured[item.Name] = item
	}
	var m measurement
	for _, node := range nodes.Items {
		item, found := measured[node.Name]
		if !found {
			return measurement{}, fmt.Errorf("measure: metrics.k8s.io has nothing about node %s", node.Name)
		}
		m.nodes = append(m.nodes, nodeLoad{
			name:   node.Name,
			cpu:    share(item.Usage.Cpu().AsApproximateFloat64(), node.Status.Allocatable.Cpu().AsApproximateFloat64()),
			memory: share(item.Usage.Memory().AsApproximateFloat64(), node.Status.Allocatable.Memory().AsApproximateFloat64()),
		})
		if begin := item.Timestamp.Add(-item.Window.Duration); m.since.IsZero() || begin.Before(m.since) {
			m.since = begin
		}
	}
	slices.SortFunc(m.nodes, func(a, b nodeLoad) int { return strings.Compare(a.name, b.name) })
	return m, nil
}

func share(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return part / whole
}

func (m measurement) cpus() []float64 {
	return m.each(func(n nodeLoad) float64 { return n.cpu })
}

func (m measurement) memories() []float64 {
	return m.each(func(n nodeLoad) float64 { return n.memory })
}

func (m measurement) each(figure func(nodeLoad) float64) []float64 {
	figures := make([]float64, len(m.nodes))
	for i, node := range m.nodes {
		figures[i] = figure(node)
	}
	return figures
}

// overutilized counts the nodes above a threshold.
func (m measurement) overutilized(thresholds config.UtilizationThresholds) int {
	count := 0
	for _, node := range m.nodes {
		if isOverutilized(node, thresholds) {
			count++
		}
	}
	return count
}

func isOverutilized(node nodeLoad, thresholds config.UtilizationThresholds) bool {
	return 100*node.cpu > float64(thresholds.CPU) || 100*node.memory > float64(thresholds.Memory)
}

func mean(figures []float64) float64 {
	sum := 0.0
	for _, figure := range figures {
		sum += figure
	}
	return sum / float64(len(figures))
}

// deviation is the standard deviation of all nodes there are, not of a sample.
func deviation(figures []float64) float64 {
	sum, middle := 0.0, mean(figures)
	for _, figure := range figures {
		sum += (figure - middle) * (figure - middle)
	}
	return math.Sqrt(sum / float64(len(figures)))
}
