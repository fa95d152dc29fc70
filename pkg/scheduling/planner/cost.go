package planner

import "github.com/ai-storage/orchestrator/pkg/scheduling/budget"

// costWith is what the node would cost with a pod more (sign 1) or with one of
// its residents less (sign -1); with a nil pod, the cost as it is.
func (s *state) costWith(n *node, p *pod, sign int64) (cost, packing float64) {
	load, evictable := n.load, n.evictable
	free := n.free
	if p != nil {
		amounts := p.stripped
		if sign < 0 {
			amounts = p.requests
		}
		load[0] += sign * p.usage[0]
		load[1] += sign * p.usage[1]
		if p.occupies {
			evictable[0] += sign * amounts[0]
			evictable[1] += sign * amounts[1]
		}
		free = s.scratch
		for r, amount := range n.free {
			free[r] = amount - sign*amounts[r]
		}
	}
	w := &s.weights
	cost = loadCost(float64(load[0])*n.inverse[0], s.limits.overutilized.CPU, w.Balance) +
		loadCost(float64(load[1])*n.inverse[1], s.limits.overutilized.Memory, w.Balance) +
		w.sum()*strandedCost(float64(free[0])*n.inverse[0], float64(free[1])*n.inverse[1])
	if w.Consolidate > 0 {
		packing += w.Consolidate * occupiedCost(max(float64(evictable[0])*n.inverse[0], float64(evictable[1])*n.inverse[1]), n.pinned)
	}
	if w.Defragment > 0 && len(s.shapes) > 0 {
		packing += w.Defragment * s.wasteWith(n, free, p, sign)
	}
	return cost + packing, packing
}

// wasteWith is the fragmentation of the node with a pod more or less, by NUMA
// node where the node has them.
func (s *state) wasteWith(n *node, free []int64, p *pod, sign int64) float64 {
	if n.zones == nil {
		return s.shapes.waste(free, n.inverse)
	}
	if p != nil {
		zone := s.zoneOf(n, p, sign)
		s.takeZone(n, p, zone, sign)
		defer s.takeZone(n, p, zone, -sign)
	}
	var sum float64
	for _, z := range n.zones {
		sum += s.shapes.waste(z, n.inverse)
	}
	return sum
}

// zoneOf is the NUMA node that a resident is on (sign -1), or the one that a
// pod would get: the fullest that has room, which keeps large pieces whole.
func (s *state) zoneOf(n *node, p *pod, sign int64) int {
	if len(p.Zones) != 1 {
		return anyZone
	}
	if sign < 0 {
		if p.Zones[0] < 0 || p.Zones[0] >= len(n.zones) {
			return anyZone
		}
		return p.Zones[0]
	}
	best := noZone
	for i, z := range n.zones {
		if fitsZone(p.stripped, z) && (best == noZone || z[0] < n.zones[best][0]) {
			best = i
		}
	}
	return best
}

// fitsZone looks only at what NUMA nodes report: CPU, memory and resources that
// the zone has any of.
func fitsZone(need, zone []int64) bool {
	for r, amount := range need {
		if amount > zone[r] && (r < 2 || zone[r] > 0) {
			return false
		}
	}
	return true
}

func (s *state) takeZone(n *node, p *pod, zone int, sign int64) {
	if n.zones == nil || zone == noZone {
		return
	}
	amounts := p.stripped
	if p.home == n.id {
		amounts = p.requests
	}
	if zone >= 0 {
		addTo(n.zones[zone], amounts, -sign)
		return
	}
	// Shares that do not divide go to the first zones.
	for i, z := range n.zones {
		for r, amount := range amounts {
			share := amount / int64(len(n.zones))
			if int64(i) < amount%int64(len(n.zones)) {
				share++
			}
			z[r] -= sign * share
		}
	}
}

// reprice writes down what the node costs now.
func (s *state) reprice(n *node) {
	if !n.usable {
		return
	}
	s.total, s.packed = s.total-n.cost, s.packed-n.packing
	n.cost, n.packing = s.costWith(n, nil, 0)
	s.total, s.packed = s.total+n.cost, s.packed+n.packing
}

// value is what the search lowers: what the nodes cost and what the moves must
// gain at least.
func (s *state) value() float64 { return s.total + s.moveCostFactor*s.price }

// priceOf is what it would cost to move one pod more of the workload.
func (s *state) priceOf(p *pod) float64 {
	return MoveCost * (1 + siblingCost*float64(s.siblings[p.workload]))
}

// move takes a pod from its home to a node, whether it fits or not.
func (s *state) move(p *pod, to *node) {
	from := &s.nodes[p.home]
	s.price += s.priceOf(p)
	s.siblings[p.workload]++
	s.moved = append(s.moved, p)
	p.at, p.zone = to.id, s.zoneOf(to, p, 1)
	s.leave(from, p, 1)
	s.arrive(to, p, 1)
	s.reprice(from)
	s.reprice(to)
	if s.ledger != nil {
		s.ledger.Add(s.step(p, to))
	}
}

// back takes a moved pod home again.
func (s *state) back(p *pod) {
	from, to := &s.nodes[p.home], &s.nodes[p.at]
	if s.ledger != nil {
		s.ledger.Remove(s.step(p, to))
	}
	s.arrive(to, p, -1)
	s.leave(from, p, -1)
	p.at, p.zone = p.home, anyZone
	for i := len(s.moved) - 1; i >= 0; i-- {
		if s.moved[i] == p {
			s.moved = append(s.moved[:i], s.moved[i+1:]...)
			break
		}
	}
	s.siblings[p.workload]--
	s.price -= s.priceOf(p)
	s.reprice(from)
	s.reprice(to)
}

func (s *state) leave(n *node, p *pod, sign int64) {
	for d := range n.load {
		n.load[d] -= sign * p.usage[d]
		if p.occupies {
			n.evictable[d] -= sign * p.requests[d]
		}
	}
	addTo(n.free, p.requests, sign)
	s.takeZone(n, p, s.zoneOf(n, p, -1), -sign)
}

func (s *state) arrive(n *node, p *pod, sign int64) {
	for d := range n.load {
		n.load[d] += sign * p.usage[d]
		n.arrived[d] += sign * p.usage[d]
		if p.occupies {
			n.evictable[d] += sign * p.stripped[d]
		}
	}
	addTo(n.free, p.stripped, -sign)
	addTo(n.held, p.stripped, -sign)
	s.takeZone(n, p, p.zone, sign)
}

func (s *state) step(p *pod, to *node) budget.Move {
	return budget.Move{Namespace: p.Namespace, Workload: p.Workload, From: s.nodes[p.home].Name, To: to.Name}
}

// budgetRefusal says why the budget has no place for a move; "" when it has.
func (s *state) budgetRefusal(p *pod, to *node) string {
	if s.ledger == nil {
		return ""
	}
	return s.ledger.Check(s.step(p, to))
}

// isOverutilized and wouldFill divide, where costs multiply by the inverse: a load
// of exactly the limit must not be above it for want of a bit.
func (s *state) isOverutilized(n *node) bool {
	return n.Measured != nil && n.IsOverutilized(n.load[0], n.load[1], s.limits.overutilized)
}

// wouldFill reports whether the load would be too high to take pods in.
func (s *state) wouldFill(n *node, load [2]int64) bool {
	return n.IsOverutilized(load[0], load[1], s.limits.fill)
}
