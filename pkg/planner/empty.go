package planner

import (
	"cmp"
	"context"
	"slices"
)

// nodesToEmpty is how many nodes one search tries to empty.
const nodesToEmpty = 40

// emptyNodes tries to take all pods off lightly used nodes. The first moves off
// such a node often gain less than they cost; only all of them together do.
func (s *search) emptyNodes(ctx context.Context) error {
	if s.weights.Consolidate <= 0 {
		return nil
	}
	for _, id := range s.lightest() {
		if s.isFull() || s.effort <= 0 {
			return nil
		}
		if err := s.emptyNode(ctx, &s.nodes[id]); err != nil {
			return err
		}
	}
	return nil
}

// lightest are the nodes that could be emptied, the least used first.
func (s *search) lightest() []int32 {
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

// emptyNode moves all pods off a node, or none.
func (s *search) emptyNode(ctx context.Context, n *node) error {
	leaving := s.leaversOf(n)
	if len(leaving) == 0 || len(s.moved)+len(leaving) > s.options.MaxMoves || s.takesIn(n) {
		return nil
	}
	kept, before, packed, price := s.save(), s.value(), s.packed, s.price
	for _, p := range leaving {
		to, ok, err := s.bestRefuge(ctx, p)
		if err != nil {
			return err
		}
		if !ok {
			s.restore(kept)
			return nil
		}
		s.apply(p, to, consolidation)
	}
	if s.value() >= before-gainEpsilon || packed-s.packed-s.markup*(s.price-price) <= gainEpsilon {
		s.restore(kept)
	}
	return nil
}

// leaversOf are the pods that would have to leave, the largest first: they are
// hardest to place.
func (s *search) leaversOf(n *node) []*pod {
	var all []*pod
	for _, id := range n.residents {
		if p := &s.pods[id]; p.settles && p.at == p.home {
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

// bestRefuge finds the node where a pod that has to leave costs least. Nodes
// that are empty stay so.
func (s *search) bestRefuge(ctx context.Context, p *pod) (int32, bool, error) {
	var found []option
	s.effort -= len(s.nodes)
	for i := range s.nodes {
		n := &s.nodes[i]
		if s.takes(n, p) && (n.pinned || n.evictable[0] > 0 || n.evictable[1] > 0) {
			cost, _ := s.costWith(n, p, 1)
			found = append(found, option{n.id, n.cost - cost})
		}
	}
	slices.SortFunc(found, func(a, b option) int { return cmp.Or(cmp.Compare(b.gain, a.gain), cmp.Compare(a.to, b.to)) })
	for _, o := range found {
		ok, err := s.allows(ctx, p, &s.nodes[o.to])
		if err != nil || ok {
			return o.to, ok, err
		}
	}
	return 0, false, nil
}
