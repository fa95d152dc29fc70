package planner

import (
	"cmp"
	"context"
	"slices"
)

// nodesToEmpty is how many nodes one search tries to empty.
const nodesToEmpty = 40

// emptyTries is how often a node is tried when the scheduler refuses.
const emptyTries = 8

// emptyNodes tries to take all pods off lightly used nodes. The first moves off
// such a node often gain less than they cost; only all of them together do.
func (s *search) emptyNodes(ctx context.Context) error {
	if s.weights.Consolidate <= 0 {
		return nil
	}
	for _, id := range s.leastLoaded() {
		if s.isFull() || s.effort <= 0 {
			return nil
		}
		// A refusal is remembered, so another try takes other destinations.
		for again, try := true, 0; again && try < emptyTries; try++ {
			var err error
			if again, err = s.emptyNode(ctx, &s.nodes[id]); err != nil {
				return err
			}
		}
	}
	return nil
}

// leastLoaded are the nodes that could be emptied, the least used first.
func (s *search) leastLoaded() []int32 {
	var found []option
	for i := range s.nodes {
		n := &s.nodes[i]
		if n.usable && !n.pinned && (n.evictable[0] > 0 || n.evictable[1] > 0) {
			found = append(found, option{n.id, max(float64(n.evictable[0])*n.inverse[0], float64(n.evictable[1])*n.inverse[1])})
		}
	}
	slices.SortFunc(found, func(a, b option) int { return cmp.Or(cmp.Compare(a.gain, b.gain), cmp.Compare(a.to, b.to)) })
	ids := make([]int32, 0, nodesToEmpty)
	for _, o := range found[:min(len(found), nodesToEmpty)] {
		ids = append(ids, o.to)
	}
	return ids
}

// emptyNode moves all pods off a node, or none. It asks to be called again when
// only the scheduler stood in the way.
func (s *search) emptyNode(ctx context.Context, n *node) (again bool, err error) {
	leaving := s.leaversOf(n)
	if len(leaving) == 0 || len(s.moved)+len(leaving) > s.options.MaxMoves || s.takesIn(n) {
		return false, nil
	}
	kept, before, packed, price := s.save(), s.value(), s.packed, s.price
	for _, p := range leaving {
		to, ok := s.bestTarget(p)
		if !ok {
			s.restore(kept)
			return false, nil
		}
		s.apply(p, to, consolidation)
	}
	if s.value() >= before-gainEpsilon || packed-s.packed-s.moveCostFactor*(s.price-price) <= gainEpsilon {
		s.restore(kept)
		return false, nil
	}
	ok, err := s.confirm(ctx)
	if err == nil && !ok {
		s.restore(kept)
	}
	return !ok, err
}

// leaversOf are the pods that would have to leave, the largest first: they are
// hardest to place.
func (s *search) leaversOf(n *node) []*pod {
	var all []*pod
	for _, id := range n.residents {
		if p := &s.pods[id]; p.occupies && p.at == p.home {
			all = append(all, p)
		}
	}
	slices.SortStableFunc(all, func(a, b *pod) int { return cmp.Compare(b.stripped[0], a.stripped[0]) })
	return all
}

// takesIn reports whether the plan brings a pod to the node.
func (s *search) takesIn(n *node) bool {
	return slices.ContainsFunc(s.moved, func(p *pod) bool { return p.at == n.id })
}

// bestTarget finds the node where a pod that has to leave costs least. Nodes
// that are empty stay so.
func (s *search) bestTarget(p *pod) (to int32, found bool) {
	s.effort -= len(s.nodes)
	best := 0.0
	for i := range s.nodes {
		n := &s.nodes[i]
		if !s.takes(n, p) || !n.pinned && n.evictable[0] <= 0 && n.evictable[1] <= 0 {
			continue
		}
		if cost, _ := s.costWith(n, p, 1); (!found || cost-n.cost < best) && s.isOrderly(p, n) {
			to, best, found = n.id, cost-n.cost, true
		}
	}
	return to, found
}
