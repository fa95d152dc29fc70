package planner

import (
	"cmp"
	"context"
	"slices"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

var (
	emptyPod  = &cluster.Pod{}
	emptyNode = &cluster.Node{}
)

// Widths of the search for chains.
const (
	// chainDepth is how many pods may be pushed on, one by the other.
	chainDepth = 2
	// blockedWidth is how many full nodes are tried for a pod, and blockedDeeper
	// the same further down the chain.
	blockedWidth, blockedDeeper = 12, 3
	// chainsKept are the best chains that the scheduler is asked about.
	chainsKept = 6
	// chainStarters is how many pods of an overutilized node look for a chain.
	chainStarters = 6
)

// chainSearch keeps the best chains found for one pod.
type chainSearch struct {
	prefix []relocation
	why    rule
	// before, packed and price are those of the plan without the chain.
	before, packed, price float64
	best                  []chain
}

type chain struct {
	moves []relocation
	gain  float64
}

// chainAll looks for swaps and ejection chains where single moves do not help.
func (s *search) chainAll(ctx context.Context) error {
	for !s.isFull() && s.effort > 0 {
		found := false
		for _, p := range s.chainStarters() {
			if s.isFull() || s.effort <= 0 {
				break
			}
			if why, _ := s.mayStart(p); why != notAllowed {
				ok, err := s.applyChain(p, why, func() (bool, error) { return s.confirm(ctx) })
				if err != nil {
					return err
				}
				found = found || ok
			}
		}
		if !found {
			return nil
		}
	}
	return nil
}

// chainStarters are the pods with most to gain, a few of each node.
func (s *search) chainStarters() []*pod {
	q := s.starters()
	slices.SortFunc(q, func(a, b waiting) int {
		return cmp.Or(cmp.Compare(b.bound, a.bound), cmp.Compare(a.pod.id, b.pod.id))
	})
	ofNode := map[int32]int{}
	var all []*pod
	for _, w := range q {
		if ofNode[w.pod.home]++; ofNode[w.pod.home] <= chainStarters {
			all = append(all, w.pod)
		}
	}
	return all
}

// applyChain puts the best chain that starts with the pod into the plan, if the
// plan is then accepted.
func (s *search) applyChain(p *pod, why rule, accept func() (bool, error)) (bool, error) {
	if s.budgetRefusal(p, &node{Node: emptyNode}) != "" {
		return false, nil
	}
	s.chains = chainSearch{why: why, before: s.value(), packed: s.packed, price: s.price, prefix: s.chains.prefix[:0], best: s.chains.best[:0]}
	s.extend(p, chainDepth)
	for _, c := range s.chains.best {
		kept := s.save()
		if s.tryChain(c) {
			if ok, err := accept(); err != nil || ok {
				return ok, err
			}
		}
		s.restore(kept)
	}
	return false, nil
}

// extend offers all chains in which the pod, which has to leave its home, goes
// to a node with room, or pushes another pod off a node without.
func (s *search) extend(p *pod, depth int) {
	for _, id := range s.targets {
		s.offer(p, id)
	}
	// Nodes that the chain came through have room now: that makes it a swap.
	for _, r := range s.chains.prefix {
		s.offer(p, r.pod.home)
	}
	s.effort -= len(s.targets) + len(s.chains.prefix)
	if depth == 0 || s.effort <= 0 || len(s.moved)+2 > s.options.MaxMoves {
		return
	}
	width := blockedWidth
	if len(s.chains.prefix) > 0 {
		width = blockedDeeper
	}
	for _, id := range s.blocked(p, width) {
		n := &s.nodes[id]
		if s.budgetRefusal(p, n) != "" {
			continue
		}
		s.move(p, n)
		s.chains.prefix = append(s.chains.prefix, relocation{p, id, s.ruleInChain()})
		for _, other := range n.residents {
			if q := &s.pods[other]; q.movable && q.at == q.home && s.lets(n, q) {
				s.extend(q, depth-1)
			}
		}
		s.chains.prefix = s.chains.prefix[:len(s.chains.prefix)-1]
		s.back(p)
	}
}

func (s *search) ruleInChain() rule {
	if len(s.chains.prefix) == 0 {
		return s.chains.why
	}
	return makesRoom
}

// lets reports whether the node has room for what came when the pod has left.
func (s *search) lets(n *node, leaving *pod) bool {
	for r, amount := range n.free {
		if amount < 0 && amount+leaving.requests[r] < 0 && n.held[r] < 0 {
			return false
		}
	}
	load := n.load
	load[0] -= leaving.usage[0]
	load[1] -= leaving.usage[1]
	return !s.wouldFill(n, load)
}

// offer keeps the chain that ends with the pod on the node, if it is one of the
// best.
func (s *search) offer(p *pod, id int32) {
	n := &s.nodes[id]
	if !s.takes(n, p) || s.budgetRefusal(p, n) != "" {
		return
	}
	if s.isRefused(p, n) {
		return
	}
	home := &s.nodes[p.home]
	arriving, _ := s.costWith(n, p, 1)
	leaving, _ := s.costWith(home, p, -1)
	change := arriving - n.cost + leaving - home.cost + s.moveCostFactor*s.priceOf(p)
	gain := s.chains.before - (s.value() + change)
	if gain <= gainEpsilon || len(s.chains.best) == chainsKept && gain <= s.chains.best[chainsKept-1].gain {
		return
	}
	moves := append(slices.Clone(s.chains.prefix), relocation{p, id, s.ruleInChain()})
	s.chains.best = append(s.chains.best, chain{moves, gain})
	slices.SortStableFunc(s.chains.best, func(a, b chain) int { return cmp.Compare(b.gain, a.gain) })
	s.chains.best = s.chains.best[:min(len(s.chains.best), chainsKept)]
}

// blocked lists the nodes where the pod would be well placed if there were room,
// best first.
func (s *search) blocked(p *pod, width int) []int32 {
	var found []option
	for _, id := range s.candidatesForBlocked() {
		n := &s.nodes[id]
		if !n.usable || !n.Schedulable || n.id == p.home || s.takes(n, p) {
			continue
		}
		if s.isRefused(p, n) {
			continue
		}
		cost, _ := s.costWith(n, p, 1)
		found = append(found, option{id, n.cost - cost})
	}
	slices.SortFunc(found, func(a, b option) int { return cmp.Or(cmp.Compare(b.gain, a.gain), cmp.Compare(a.to, b.to)) })
	ids := make([]int32, 0, width)
	for _, o := range found[:min(len(found), width)] {
		ids = append(ids, o.to)
	}
	return ids
}

// blockedSample bounds the nodes that are looked at for one pod.
const blockedSample = 512

func (s *search) candidatesForBlocked() []int32 {
	if len(s.nodes) <= blockedSample {
		s.effort -= len(s.nodes)
		ids := make([]int32, len(s.nodes))
		for i := range ids {
			ids[i] = int32(i)
		}
		return ids
	}
	s.effort -= blockedSample
	ids := make([]int32, blockedSample)
	for i := range ids {
		ids[i] = int32(s.random.below(len(s.nodes)))
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// tryChain puts a chain into the plan and reports whether order and budget allow
// it and it gains enough.
func (s *search) tryChain(c chain) bool {
	if len(s.moved)+len(c.moves) > s.options.MaxMoves {
		return false
	}
	for _, r := range c.moves {
		if s.budgetRefusal(r.pod, &s.nodes[r.to]) != "" {
			return false
		}
		s.apply(r.pod, r.to, r.why)
	}
	_, complete := s.arrange()
	return complete && s.isWorth(c)
}

// isWorth reports whether a chain gains by the rule that it starts with: off a
// node that is not overutilized, only better packing counts.
func (s *search) isWorth(c chain) bool {
	return c.moves[0].why == relief || s.chains.packed-s.packed-s.moveCostFactor*(s.price-s.chains.price) > gainEpsilon
}
