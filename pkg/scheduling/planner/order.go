package planner

// relocation is one pod's move in a plan, with the rule that allowed it.
type relocation struct {
	pod *pod
	to  int32
	why rule
}

// orderedMove is a relocation in its turn, with the earlier turns it waits for.
type orderedMove struct {
	relocation
	after []int
}

// arrange puts the moves into an order in which each finds room on its
// destination after the moves before it, while all originals still hold their
// places, except for those it waits for. Moves that need not wait come first. A
// cycle of full nodes has no such order: complete is then false. It could only
// be broken by moving a pod twice, which is not worth the second interruption.
//
// Since a move counts all arrivals before it, a later move cannot take the room
// of an earlier one, in whatever order they are really carried out.
func (s *state) arrange() (ordered []orderedMove, complete bool) {
	for _, p := range s.moved {
		p.isOrdered = false
	}
	remaining := append([]*pod(nil), s.moved...)
	take := func(p *pod, after []int) {
		ordered = append(ordered, orderedMove{relocation{p, p.at, p.why}, after})
		p.isOrdered = true
	}
	for len(remaining) > 0 {
		var later []*pod
		for _, p := range remaining {
			if after, ready := s.waitsFor(p, ordered, remaining, false); ready {
				take(p, after)
			} else {
				later = append(later, p)
			}
		}
		if len(later) == len(remaining) {
			taken := false
			for i, p := range later {
				if after, ready := s.waitsFor(p, ordered, later, true); ready {
					take(p, after)
					later = append(later[:i:i], later[i+1:]...)
					taken = true
					break
				}
			}
			if !taken {
				return ordered, false
			}
		}
		remaining = later
	}
	return ordered, true
}

// waitsFor finds the earlier moves that must have finished before the pod finds
// room on its destination. It is ready without any, or, with mayWait, with some
// of them.
func (s *state) waitsFor(p *pod, ordered []orderedMove, remaining []*pod, mayWait bool) (after []int, ready bool) {
	n := &s.nodes[p.at]
	if s.hasRoomForAll(n) {
		return nil, true
	}
	room, load := append(s.roomRow[:0], n.held...), n.atStart
	s.roomRow = room
	addTo(room, p.stripped, 1)
	load[0], load[1] = load[0]+p.usage[0], load[1]+p.usage[1]
	// held counts every arrival of the plan; those that are not ordered yet will
	// look for themselves.
	for _, other := range remaining {
		if other != p && other.at == n.id && !other.isOrdered {
			addTo(room, other.stripped, 1)
		}
	}
	for _, turn := range ordered {
		if turn.pod.at == n.id {
			load[0], load[1] = load[0]+turn.pod.usage[0], load[1]+turn.pod.usage[1]
		}
	}
	needsZone := n.zones != nil && len(p.Zones) == 1
	enough := func() bool { return fits(p.stripped, room) && !s.wouldFill(n, load) }
	if enough() && (!needsZone || !s.leaves(n)) {
		return nil, true
	}
	if !mayWait {
		return nil, false
	}
	for i, turn := range ordered {
		if turn.pod.home != n.id {
			continue
		}
		after = append(after, i)
		addTo(room, turn.pod.requests, 1)
		load[0], load[1] = load[0]-turn.pod.usage[0], load[1]-turn.pod.usage[1]
		if enough() && !needsZone {
			return after, true
		}
	}
	if needsZone {
		for _, other := range remaining {
			if other != p && other.home == n.id && !other.isOrdered {
				return nil, false
			}
		}
	}
	return after, enough()
}

// hasRoomForAll reports whether there is room for all arrivals even if nothing
// ever leaves the node.
func (s *state) hasRoomForAll(n *node) bool {
	if n.zones != nil || s.wouldFill(n, [2]int64{n.atStart[0] + n.arrived[0], n.atStart[1] + n.arrived[1]}) {
		return false
	}
	for _, amount := range n.held {
		if amount < 0 {
			return false
		}
	}
	return true
}

// leaves reports whether a pod of the plan leaves the node.
func (s *state) leaves(n *node) bool {
	for _, p := range s.moved {
		if p.home == n.id {
			return true
		}
	}
	return false
}

// closure is all that a turn waits for, directly or through others.
func closure(ordered []orderedMove, turn int) map[int]bool {
	all := map[int]bool{}
	var visit func(int)
	visit = func(i int) {
		for _, before := range ordered[i].after {
			if !all[before] {
				all[before] = true
				visit(before)
			}
		}
	}
	visit(turn)
	return all
}
