package repack

// spot is a host and node as one number: the host for split items, else
// host × nodes + node. Which of the two follows from the item.
type spot = int32

// packingState is who is where, with free room and cost kept up to date.
type packingState struct {
	*Packing
	nodes, resources int
	at, start        []spot
	free             []int64 // node × resource, nodes of all hosts in a row
	nodeCost         []int64
	moved            int
	cost             int64
}

func newPackingState(p *Packing) *packingState {
	s := &packingState{Packing: p, nodes: len(p.Hosts[0].Free), resources: len(p.Hosts[0].Free[0])}
	for _, h := range p.Hosts {
		for _, free := range h.Free {
			s.free = append(s.free, free...)
		}
	}
	for _, item := range p.Items {
		s.start = append(s.start, s.spotOf(item.Host, item.Node))
	}
	s.at = append([]spot(nil), s.start...)
	s.nodeCost = make([]int64, len(p.Hosts)*s.nodes)
	for n := range s.nodeCost {
		s.nodeCost[n] = s.costAt(int32(n))
		s.cost += s.nodeCost[n]
	}
	return s
}

func (s *packingState) spotOf(host, node int) spot {
	if node == Split {
		return spot(host)
	}
	return spot(host*s.nodes + node)
}

func (s *packingState) placeOf(item int32, at spot) (host, node int) {
	if s.Items[item].Node == Split {
		return int(at), Split
	}
	return int(at) / s.nodes, int(at) % s.nodes
}

func (s *packingState) hostOf(item int32, at spot) int {
	host, _ := s.placeOf(item, at)
	return host
}

// nodeRange are the nodes that the item uses at the spot.
func (s *packingState) nodeRange(item int32, at spot) (first, end int32) {
	if s.Items[item].Node == Split {
		return at * int32(s.nodes), (at + 1) * int32(s.nodes)
	}
	return at, at + 1
}

func (s *packingState) costAt(node int32) int64 {
	var cost int64
	for _, shape := range s.Shapes {
		if free := s.free[int(node)*s.resources+shape.Resource]; free > 0 {
			cost += shape.Weight * (free % shape.Size)
		}
	}
	return cost
}

// occupy adds the item to its spot (sign 1) or takes it off (sign −1). Room
// may become negative: the caller looks.
func (s *packingState) occupy(item int32, at spot, sign int64) {
	first, end := s.nodeRange(item, at)
	for n := first; n < end; n++ {
		for r, need := range s.Items[item].Requirement {
			s.free[int(n)*s.resources+r] -= sign * need
		}
		s.cost -= s.nodeCost[n]
		s.nodeCost[n] = s.costAt(n)
		s.cost += s.nodeCost[n]
	}
}

func (s *packingState) fits(item int32, at spot) bool {
	first, end := s.nodeRange(item, at)
	for n := first; n < end; n++ {
		for r, need := range s.Items[item].Requirement {
			if need > s.free[int(n)*s.resources+r] {
				return false
			}
		}
	}
	return true
}

// move puts the item somewhere else, whether it fits or not.
func (s *packingState) move(item int32, to spot) {
	from := s.at[item]
	s.occupy(item, from, -1)
	s.occupy(item, to, 1)
	s.at[item] = to
	s.moved += int(movedChange(from, to, s.start[item]))
}

// accepts says whether the item may go to the host at all.
func (s *packingState) accepts(item int32, host int) bool {
	home := &s.Hosts[s.Items[item].Host]
	return !s.Hosts[host].Closed && s.Hosts[host].Zone == home.Zone
}

// movedChange is +1 for an item that leaves home, −1 for one that returns.
func movedChange(from, to, home int32) int32 {
	var change int32
	if to != home {
		change++
	}
	if from != home {
		change--
	}
	return change
}
