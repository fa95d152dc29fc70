package main

import "math"

// placed says where pods are: each element is a pod that runs.
type placed struct {
	node     string
	milliCPU float64
}

// loads are the CPU loads of the nodes, in their order, as shares of what they
// can allocate.
func loads(nodes []*node, pods []placed) []float64 {
	positions := make(map[string]int, len(nodes))
	for i, n := range nodes {
		positions[n.name] = i
	}
	shares := make([]float64, len(nodes))
	for _, pod := range pods {
		if i, known := positions[pod.node]; known {
			shares[i] += pod.milliCPU / float64(nodes[i].shape.size.milliCPU)
		}
	}
	return shares
}

func mean(figures []float64) float64 {
	if len(figures) == 0 {
		return 0
	}
	sum := 0.0
	for _, figure := range figures {
		sum += figure
	}
	return sum / float64(len(figures))
}

// deviation is the standard deviation of all nodes there are, not of a sample.
func deviation(figures []float64) float64 {
	if len(figures) == 0 {
		return 0
	}
	sum, middle := 0.0, mean(figures)
	for _, figure := range figures {
		sum += (figure - middle) * (figure - middle)
	}
	return math.Sqrt(sum / float64(len(figures)))
}
