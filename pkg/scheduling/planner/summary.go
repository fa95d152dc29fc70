package planner

import (
	"fmt"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

func (s *state) summary() Summary {
	summary := Summary{Nodes: []NodeLoad{}}
	var cpu, memory []float64
	var waste, free float64
	for i := range s.nodes {
		n := &s.nodes[i]
		if n.Measured == nil {
			continue
		}
		load := s.loadOf(n, n.load)
		load.Overutilized = s.isOverutilized(n)
		cpu, memory = append(cpu, load.CPU), append(memory, load.Memory)
		summary.Nodes = append(summary.Nodes, load)
		cost, _ := s.costWith(n, nil, 0)
		summary.Objective += cost
		waste += s.wasteWith(n, n.free, nil, 0)
		free += s.freeIn(n)
	}
	summary.CPUDeviation, summary.MemoryDeviation = cluster.Deviation(cpu), cluster.Deviation(memory)
	if free > 0 {
		summary.Fragmentation = waste / free
	}
	return summary
}

func (s *state) loadOf(n *node, load [2]int64) NodeLoad {
	u := n.Utilization(load[0], load[1])
	return NodeLoad{Name: n.Name, CPU: u.CPU, Memory: u.Memory}
}

func (s *state) freeIn(n *node) float64 {
	if n.zones == nil {
		return s.shapes.total(n.free, n.inverse)
	}
	var sum float64
	for _, z := range n.zones {
		sum += s.shapes.total(z, n.inverse)
	}
	return sum
}

// moves writes the plan down, with what each move gains after those before it.
func (s *search) moves(ordered []orderedMove) []Move {
	for len(s.moved) > 0 {
		s.back(s.moved[len(s.moved)-1])
	}
	moves := make([]Move, 0, len(ordered))
	for _, turn := range ordered {
		p, from, to := turn.pod, &s.nodes[turn.pod.home], &s.nodes[turn.to]
		total, price := s.total, s.price
		fromLoad, toLoad := s.loadOf(from, from.load), s.loadOf(to, to.load)
		s.move(p, to)
		move := Move{
			Pod: p.Key(), UID: p.UID, Workload: p.Workload,
			From: from.Name, To: to.Name, After: turn.after,
			Gain: total - s.total, Cost: s.price - price,
			Usage:         cluster.Resources{MilliCPU: p.usage[0], Memory: p.usage[1]},
			FreedRequests: p.Requests.Sub(p.StrippedRequests),
		}
		move.Reason = reason(&move, turn.why, fromLoad, toLoad)
		moves = append(moves, move)
	}
	return moves
}

func reason(move *Move, why rule, from, to NodeLoad) string {
	text := ""
	switch why {
	case relief:
		text = fmt.Sprintf("node %s is overutilized (CPU %.0f%%, memory %.0f%%)", from.Name, 100*from.CPU, 100*from.Memory)
	case makesRoom:
		text = fmt.Sprintf("another move of the plan needs the room on node %s", from.Name)
	case consolidation:
		text = fmt.Sprintf("node %s can become empty", from.Name)
	default:
		text = "free room can hold larger pieces"
	}
	text += fmt.Sprintf("; moving %dm CPU and %dMi to node %s (CPU %.0f%%, memory %.0f%%) gains %.2f and costs %.2f",
		move.Usage.MilliCPU, move.Usage.Memory>>20, to.Name, 100*to.CPU, 100*to.Memory, move.Gain, move.Cost)
	if len(move.After) > 0 {
		text += "; it waits for the room that earlier moves leave"
	}
	return text
}
