package repack

import "slices"

// sequencer finds orders of execution. It keeps a packing that is at the start
// between calls.
type sequencer struct {
	*packingState
	steps   []step
	pending []int32
}

func newSequencer(p *Packing) *sequencer { return &sequencer{packingState: newPackingState(p)} }

// order brings items to where they should be, one after another, so that each
// finds room while it still holds its old place. A circle of items that wait
// for each other is opened by one that steps aside for a while. It says no
// when that is impossible or takes more than limit steps; the steps are valid
// until the next call.
func (q *sequencer) order(items []int32, target []spot, limit int) ([]step, bool) {
	q.steps, q.pending = q.steps[:0], append(q.pending[:0], items...)
	ok := q.advance(target, limit)
	for _, s := range slices.Backward(q.steps) {
		q.move(s.item, s.from)
	}
	return q.steps, ok
}

func (q *sequencer) advance(target []spot, limit int) bool {
	for len(q.pending) > 0 {
		left := q.pending[:0]
		for _, item := range q.pending {
			if q.fits(item, target[item]) {
				q.take(item, target[item])
			} else {
				left = append(left, item)
			}
		}
		progressed := len(left) < len(q.pending)
		q.pending = left
		if progressed || len(left) == 0 {
			continue
		}
		if len(q.steps)+len(left)+1 > limit {
			return false
		}
		item, aside, found := q.stepAside(left, target)
		if !found {
			return false
		}
		q.take(item, aside)
	}
	return len(q.steps) <= limit
}

func (q *sequencer) take(item int32, to spot) {
	q.steps = append(q.steps, step{item, q.at[item], to})
	q.move(item, to)
}

// stepAside finds a pending item and a free spot for it such that another
// pending item then fits.
func (s *packingState) stepAside(pending []int32, target []spot) (int32, spot, bool) {
	for _, item := range pending {
		from := s.at[item]
		s.occupy(item, from, -1)
		helps := slices.ContainsFunc(pending, func(other int32) bool { return other != item && s.fits(other, target[other]) })
		s.occupy(item, from, 1)
		if !helps {
			continue
		}
		for to := range s.spots(item) {
			if to == from || !s.accepts(item, s.hostOf(item, to)) || !s.fits(item, to) {
				continue
			}
			s.move(item, to)
			frees := slices.ContainsFunc(pending, func(other int32) bool { return other != item && s.fits(other, target[other]) })
			s.move(item, from)
			if frees {
				return item, to, true
			}
		}
	}
	return 0, 0, false
}

// spots yields all places of the kind that the item takes.
func (s *packingState) spots(item int32) func(func(spot) bool) {
	count := len(s.Hosts)
	if s.Items[item].Node != Split {
		count *= s.nodes
	}
	return func(yield func(spot) bool) {
		for to := range spot(count) {
			if !yield(to) {
				return
			}
		}
	}
}
