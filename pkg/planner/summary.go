package planner

import (
	"fmt"
	"slices"
)

func (s *search) summary() Summary {
	summary := Summary{Nodes: []NodeLoad{}}
	var cpu, memory []float64
	for _, node := range s.nodes {
		if node.Measured == nil {
			continue
		}
		load := NodeLoad{
			Name:   node.Name,
			CPU:    fraction(node.load.MilliCPU, node.Allocatable.MilliCPU),
			Memory: fraction(node.load.Memory, node.Allocatable.Memory),
			Hot:    s.isHot(node),
		}
		cpu, memory = append(cpu, load.CPU), append(memory, load.Memory)
		summary.Nodes = append(summary.Nodes, load)
		summary.Objective += s.cost(node, node.load)
	}
	summary.CPUDeviation, summary.MemoryDeviation = deviation(cpu), deviation(memory)
	return summary
}

// stillHot explains the nodes that remain hot. When the plan is full, that is
// the reason, and what earlier steps refused says nothing.
func (s *search) stillHot(planIsFull bool) []HotNode {
	var hot []HotNode
	for _, node := range s.nodes {
		if !s.isHot(node) {
			continue
		}
		reasons := []string{"the plan holds as many moves as one cycle may make"}
		if !planIsFull {
			reasons = countedReasons(s.refusals[node.Name])
		}
		hot = append(hot, HotNode{Name: node.Name, Reasons: reasons})
	}
	return hot
}

func countedReasons(counts map[string]int) []string {
	reasons := make([]string, 0, len(counts))
	for reason, n := range counts {
		reasons = append(reasons, fmt.Sprintf("%s (%d times)", reason, n))
	}
	slices.Sort(reasons)
	if len(reasons) == 0 {
		return []string{"no pod is left on it to move"}
	}
	return reasons
}
