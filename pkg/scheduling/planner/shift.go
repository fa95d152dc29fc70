package planner

import (
	"cmp"
	"container/heap"
	"context"
	"slices"
)

// option is a destination and what the value falls by.
type option struct {
	to   int32
	gain float64
}

// mayStart says by which rule a pod may be the first of a chain of moves, and
// the most that its leaving can gain.
func (s *search) mayStart(p *pod) (why rule, bound float64) {
	n := &s.nodes[p.home]
	if !p.movable || p.at != p.home {
		return notAllowed, 0
	}
	cost, packing := s.costWith(n, p, -1)
	price := s.moveCostFactor * s.priceOf(p)
	if n.source && s.isOverutilized(n) {
		if bound = n.cost - cost - price; bound > gainEpsilon {
			return relief, bound
		}
		return notAllowed, 0
	}
	if s.weights.Consolidate <= 0 && s.weights.Defragment <= 0 {
		return notAllowed, 0
	}
	// A destination can become less fragmented, too, by as much as it is now.
	bound = n.packing - packing - price + s.mostWaste
	if bound <= gainEpsilon {
		return notAllowed, 0
	}
	return s.packingRule(), bound
}

func (s *search) packingRule() rule {
	if s.weights.Consolidate >= s.weights.Defragment {
		return consolidation
	}
	return defragmentation
}

// takes reports whether a node may take the pod in when the plan is done.
func (s *search) takes(n *node, p *pod) bool {
	if !n.usable || !n.Schedulable || n.id == p.home || !fits(p.stripped, n.free) {
		return false
	}
	load := n.load
	load[0] += p.usage[0]
	load[1] += p.usage[1]
	return !s.wouldFill(n, load) && (n.zones == nil || s.zoneOf(n, p, 1) != noZone)
}

// destinations lists the nodes, of all or of some, on which the pod would be better
// than at home.
func (s *search) destinations(p *pod, why rule, among []int32) []option {
	home := &s.nodes[p.home]
	leaving, leavingPacking := s.costWith(home, p, -1)
	reliefGain, packingGain := home.cost-leaving, home.packing-leavingPacking
	price := s.moveCostFactor * s.priceOf(p)
	var found []option
	consider := func(n *node) {
		if !s.takes(n, p) {
			return
		}
		cost, packing := s.costWith(n, p, 1)
		gain := reliefGain - (cost - n.cost) - price
		if gain <= gainEpsilon || p.hasRefusals && s.isRefused(p, n) {
			return
		}
		if why != relief && packingGain-(packing-n.packing)-price <= gainEpsilon {
			return
		}
		found = append(found, option{n.id, gain})
	}
	if among == nil {
		s.effort -= len(s.nodes)
		for i := range s.nodes {
			consider(&s.nodes[i])
		}
		return found
	}
	s.effort -= len(among)
	for _, id := range among {
		consider(&s.nodes[id])
	}
	return found
}

// optimistic accepts what the scheduler has not refused yet, without asking.
func optimistic(*node) (bool, error) { return true, nil }

// bestShift finds the best destination that budget and order allow, that the
// scheduler has not refused yet, and that is accepted.
func (s *search) bestShift(p *pod, why rule, among []int32, accept func(*node) (bool, error)) (option, bool, error) {
	if s.budgetRefusal(p, &node{Node: emptyNode}) != "" {
		return option{}, false, nil
	}
	found := s.destinations(p, why, among)
	better := func(a, b option) int { return cmp.Or(cmp.Compare(b.gain, a.gain), cmp.Compare(a.to, b.to)) }
	for i := range found {
		// Mostly the first will do; to sort them all is for when it does not.
		switch i {
		case 0:
			first := 0
			for j := range found {
				if better(found[j], found[first]) < 0 {
					first = j
				}
			}
			found[0], found[first] = found[first], found[0]
		case 1:
			slices.SortFunc(found[1:], better)
		}
		to := &s.nodes[found[i].to]
		allowed, err := s.isOrderly(p, to), error(nil)
		if allowed {
			allowed, err = accept(to)
		}
		if err != nil || allowed {
			return found[i], allowed, err
		}
	}
	return option{}, false, nil
}

// isOrderly reports whether the pod may go to the node after what is planned
// already, as far as is known without the scheduler.
func (s *search) isOrderly(p *pod, to *node) bool {
	if s.isRefused(p, to) || s.budgetRefusal(p, to) != "" {
		return false
	}
	if s.needsNoTurn(p, to) {
		return true
	}
	s.move(p, to)
	_, complete := s.arrange()
	s.back(p)
	return complete
}

// needsNoTurn reports whether there is room for the pod and all other arrivals
// even if nothing ever leaves the node.
func (s *search) needsNoTurn(p *pod, to *node) bool {
	load := [2]int64{to.atStart[0] + to.arrived[0] + p.usage[0], to.atStart[1] + to.arrived[1] + p.usage[1]}
	return to.zones == nil && fits(p.stripped, to.held) && !s.wouldFill(to, load)
}

// askEffort is what a question to the scheduler counts in evaluations.
const askEffort = 300

// allows asks the scheduler about an orderly move.
func (s *search) allows(ctx context.Context, p *pod, to *node) (bool, error) {
	s.effort -= askEffort
	var gone []*pod
	if !s.needsNoTurn(p, to) {
		s.move(p, to)
		ordered, _ := s.arrange()
		s.back(p)
		gone = s.waitedFor(p, ordered)
	}
	refusal, err := s.refusal(ctx, p, to, gone)
	return refusal == "", err
}

// confirm asks the scheduler about every move of the plan that it was not asked
// about yet.
func (s *search) confirm(ctx context.Context) (bool, error) {
	ordered, complete := s.arrange()
	if !complete {
		return false, nil
	}
	for _, turn := range ordered {
		var gone []*pod
		if len(turn.after) > 0 {
			gone = s.waitedFor(turn.pod, ordered)
		}
		refusal, err := s.refusal(ctx, turn.pod, &s.nodes[turn.to], gone)
		if err != nil || refusal != "" {
			return false, err
		}
	}
	return true, nil
}

// waitedFor are the originals that must be gone before the pod may come.
func (s *search) waitedFor(p *pod, ordered []orderedMove) []*pod {
	for i := range ordered {
		if ordered[i].pod != p {
			continue
		}
		var gone []*pod
		must := closure(ordered, i)
		for j := range ordered {
			if must[j] {
				gone = append(gone, ordered[j].pod)
			}
		}
		return gone
	}
	return nil
}

// apply puts a move into the plan.
func (s *search) apply(p *pod, to int32, why rule) {
	s.move(p, &s.nodes[to])
	p.why = why
}

func (s *search) isFull() bool { return len(s.moved) >= s.options.MaxMoves }

// waiting is a pod in the queue of shiftAll.
type waiting struct {
	pod *pod
	why rule
	// bound is the most the pod can gain; when version is current, it is exact and
	// to is the destination, confirmed when the scheduler agrees.
	bound     float64
	to        int32
	version   int
	confirmed bool
}

type queue []waiting

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].bound > q[j].bound || q[i].bound == q[j].bound && q[i].pod.id < q[j].pod.id
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(waiting)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// starters are the pods that may be the first of a chain.
func (s *search) starters() queue {
	var q queue
	for i := range s.pods {
		if why, bound := s.mayStart(&s.pods[i]); why != notAllowed {
			q = append(q, waiting{pod: &s.pods[i], why: why, bound: bound, version: -1})
		}
	}
	return q
}

// shiftAll takes the best single move again and again. What a pod can gain only
// falls as the plan grows, so pods are looked at anew only when they come first,
// and the scheduler is asked only about the move that comes out best.
func (s *search) shiftAll(ctx context.Context) error {
	q := s.starters()
	heap.Init(&q)
	version := 0
	for len(q) > 0 && !s.isFull() && s.effort > 0 {
		top := &q[0]
		if top.version == version && top.confirmed {
			s.apply(top.pod, top.to, top.why)
			version++
			heap.Pop(&q)
			continue
		}
		why, _ := s.mayStart(top.pod)
		if why == notAllowed {
			heap.Pop(&q)
			continue
		}
		accept, asks := optimistic, top.version == version
		if asks {
			accept = func(to *node) (bool, error) { return s.allows(ctx, top.pod, to) }
		}
		best, ok, err := s.bestShift(top.pod, why, nil, accept)
		if err != nil {
			return err
		}
		if !ok {
			heap.Pop(&q)
			continue
		}
		top.bound, top.to, top.why, top.version, top.confirmed = best.gain, best.to, why, version, asks
		heap.Fix(&q, 0)
	}
	return nil
}

// targetSample is how many destinations the later phases look at.
const targetSample = 96

// findTargets lists open nodes, cheapest first for a pod of the usual size.
func (s *search) findTargets() {
	s.mostWaste = 0
	typical := s.typicalPod()
	var found []option
	for i := range s.nodes {
		n := &s.nodes[i]
		if n.usable && s.weights.Defragment > 0 {
			s.mostWaste = max(s.mostWaste, s.weights.Defragment*s.wasteWith(n, n.free, nil, 0))
		}
		if n.usable && n.Schedulable && !s.wouldFill(n, n.load) {
			cost, _ := s.costWith(n, typical, 1)
			found = append(found, option{n.id, n.cost - cost})
		}
	}
	slices.SortFunc(found, func(a, b option) int { return cmp.Or(cmp.Compare(b.gain, a.gain), cmp.Compare(a.to, b.to)) })
	s.targets = s.targets[:0]
	for _, o := range found[:min(len(found), targetSample)] {
		s.targets = append(s.targets, o.to)
	}
}

// typicalPod is the mean of the pods that may move.
func (s *search) typicalPod() *pod {
	size := int64(0)
	p := &pod{requests: make([]int64, s.index.size()), stripped: make([]int64, s.index.size())}
	for i := range s.pods {
		if other := &s.pods[i]; other.movable {
			size++
			p.usage[0], p.usage[1] = p.usage[0]+other.usage[0], p.usage[1]+other.usage[1]
			addTo(p.stripped, other.stripped, 1)
		}
	}
	for r := range p.stripped {
		p.stripped[r] /= max(1, size)
	}
	p.usage[0], p.usage[1] = p.usage[0]/max(1, size), p.usage[1]/max(1, size)
	p.Pod, p.occupies, p.home = emptyPod, true, -1
	return p
}
