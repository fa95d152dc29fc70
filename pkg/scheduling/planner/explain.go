package planner

import (
	"fmt"
	"slices"
)

// stillOverutilized explains the nodes that remain overutilized. When the plan is full, that is
// the reason, and what stood in the way of more moves says nothing.
func (s *search) stillOverutilized() []OverutilizedNode {
	var overutilized []OverutilizedNode
	s.effort = explainEffort
	for i := range s.nodes {
		n := &s.nodes[i]
		if !s.isOverutilized(n) {
			continue
		}
		reasons := []string{"the plan holds as many moves as one cycle may make"}
		switch {
		case n.usable && !n.source:
			reasons = []string{"the node has not been overutilized for long enough"}
		case !s.isFull() && s.effort <= 0:
			reasons = []string{"the reasons were not looked for, there are too many overutilized nodes"}
		case !s.isFull():
			reasons = countedReasons(s.obstacles(n))
		}
		overutilized = append(overutilized, OverutilizedNode{Name: n.Name, Reasons: reasons})
	}
	return overutilized
}

// obstacles counts what keeps the pods of a node from leaving it.
func (s *search) obstacles(n *node) map[string]int {
	counts := map[string]int{}
	if !n.usable {
		reason := n.Skipped
		if reason == "" {
			reason = "the node has no measurement"
		}
		counts[reason]++
		return counts
	}
	for _, id := range n.residents {
		p := &s.pods[id]
		switch {
		case p.at != p.home:
		case p.Immovable != "":
			counts[p.Immovable]++
		case !p.movable:
			counts["the pod has no measurement"]++
		default:
			s.countObstacles(p, counts)
		}
	}
	return counts
}

func (s *search) countObstacles(p *pod, counts map[string]int) {
	home := &s.nodes[p.home]
	leaving, _ := s.costWith(home, p, -1)
	s.effort -= len(s.nodes)
	for i := range s.nodes {
		if to := &s.nodes[i]; to != home {
			counts[s.obstacle(p, to, home.cost-leaving)]++
		}
	}
}

// obstacle is what keeps one pod from one node.
func (s *search) obstacle(p *pod, to *node, reliefGain float64) string {
	load := to.load
	load[0] += p.usage[0]
	load[1] += p.usage[1]
	switch {
	case !to.Schedulable:
		return "the other nodes take no new pods"
	case !to.usable:
		return "the other nodes are skipped"
	case !s.takes(to, p) && !s.wouldFill(to, load):
		return "no room for the requests on the other nodes"
	case s.wouldFill(to, load):
		return "the other nodes would become overutilized, or nearly so"
	}
	cost, _ := s.costWith(to, p, 1)
	if reliefGain-(cost-to.cost) <= s.moveCostFactor*s.priceOf(p)+gainEpsilon {
		return "a move would gain less than it costs"
	}
	if refusal := s.budgetRefusal(p, to); refusal != "" {
		return "budget: " + refusal
	}
	if refusal, known := s.refused[question{p.id, to.id}]; known {
		return "scheduler: " + refusal
	}
	if s.questions >= maxQuestions {
		return "scheduler: " + tooManyQuestions
	}
	return "the move does not go with the others of the plan"
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
