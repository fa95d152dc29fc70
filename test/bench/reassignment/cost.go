package reassignment

// costOf is the load and balance cost of a machine as it is.
func (s *state) costOf(machine int32) int64 {
	at := int(machine) * s.resources
	usage, safety := s.usage[at:at+s.resources], s.safety[at:at+s.resources]
	var cost int64
	for r, u := range usage {
		if over := u - safety[r]; over > 0 {
			cost += s.loadWeight[r] * over
		}
	}
	capacity := s.capacity[at : at+s.resources]
	for i := range s.balances {
		b := &s.balances[i]
		if short := b.Target*(capacity[b.A]-usage[b.A]) - (capacity[b.B] - usage[b.B]); short > 0 {
			cost += b.Weight * short
		}
	}
	return cost
}

// costWith is the cost of a machine after a vector was added and another
// taken away. Either may be s.nothing.
func (s *state) costWith(machine int32, add, take []int64) int64 {
	at := int(machine) * s.resources
	usage := s.usage[at : at+s.resources : at+s.resources]
	safety := s.safety[at : at+s.resources : at+s.resources]
	weights := s.loadWeight[:len(usage)]
	add, take = add[:len(usage)], take[:len(usage)]
	var cost int64
	for r, u := range usage {
		if over := u + add[r] - take[r] - safety[r]; over > 0 {
			cost += weights[r] * over
		}
	}
	capacity := s.capacity[at : at+s.resources : at+s.resources]
	for i := range s.balances {
		b := &s.balances[i]
		freeA := capacity[b.A] - usage[b.A] - add[b.A] + take[b.A]
		freeB := capacity[b.B] - usage[b.B] - add[b.B] + take[b.B]
		if short := b.Target*freeA - freeB; short > 0 {
			cost += b.Weight * short
		}
	}
	return cost
}

// shiftDelta is what moving the process changes in cost.
func (s *state) shiftDelta(process, to int32) int64 {
	from := s.at[process]
	need := s.requirementOf(process)
	delta := s.costWith(from, s.nothing, need) - s.machineCost[from] + s.costWith(to, need, s.nothing) - s.machineCost[to]
	delta += s.moveCostAt(process, to) - s.moveCostAt(process, from)
	if s.problem.ServiceMoveWeight != 0 {
		change := movedChange(from, to, s.start[process])
		delta += s.problem.ServiceMoveWeight * int64(s.mostMovedAfter(s.service[process], change, -1, 0)-s.mostMoved)
	}
	return delta
}

// swapDelta is what exchanging the places of two processes changes in cost.
func (s *state) swapDelta(p, q int32) int64 {
	a, b := s.at[p], s.at[q]
	needP, needQ := s.requirementOf(p), s.requirementOf(q)
	delta := s.costWith(a, needQ, needP) - s.machineCost[a] + s.costWith(b, needP, needQ) - s.machineCost[b]
	delta += s.moveCostAt(p, b) - s.moveCostAt(p, a) + s.moveCostAt(q, a) - s.moveCostAt(q, b)
	if s.problem.ServiceMoveWeight != 0 {
		changeP, changeQ := movedChange(a, b, s.start[p]), movedChange(b, a, s.start[q])
		delta += s.problem.ServiceMoveWeight * int64(s.mostMovedAfter(s.service[p], changeP, s.service[q], changeQ)-s.mostMoved)
	}
	return delta
}

// mostMovedAfter is the largest number of moved processes of one service after
// two services changed theirs by at most one each; b may be −1 for none.
func (s *state) mostMovedAfter(a, changeA, b, changeB int32) int32 {
	if changeA == 0 && changeB == 0 {
		return s.mostMoved
	}
	if a == b {
		changeA, b = changeA+changeB, -1
	}
	after, atMost := s.movedOf[a]+changeA, int32(0)
	if s.movedOf[a] == s.mostMoved {
		atMost++
	}
	if b >= 0 {
		after = max(after, s.movedOf[b]+changeB)
		if s.movedOf[b] == s.mostMoved {
			atMost++
		}
	}
	// Where these two are all that had the most, no third has more than one
	// less. That is the least that they have now, unless one lost two.
	if s.havingMove[s.mostMoved] > atMost {
		return max(after, s.mostMoved)
	}
	if after == s.mostMoved-2 && s.havingMove[s.mostMoved-1] > 0 {
		return s.mostMoved - 1
	}
	return after
}
