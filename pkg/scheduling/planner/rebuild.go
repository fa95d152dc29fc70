package planner

import (
	"cmp"
	"context"
	"slices"
)

const (
	// rebuilds is how often a part of the plan is removed and found again (ruin and recreate).
	rebuilds = 80
	// confirmEvery is after how many of them the scheduler is asked.
	confirmEvery = 16
	// rebuildSample is how many pods are drawn each time, and rebuildWidth how many
	// of them, those with most to gain, look for a place.
	rebuildSample, rebuildWidth = 48, 8
	// rebuildNoise is by how much a gain may be misjudged, on purpose: the best
	// next move is not always part of the best plan.
	rebuildNoise = 0.3
)

// rebuild removes a part of the plan and finds it again (ruin and recreate), a little at random,
// and keeps what is better. The scheduler is asked about what came out every few
// turns; what it refuses is dropped, and not found again.
func (s *search) rebuild(ctx context.Context) error {
	pool := s.starters()
	for _, p := range s.moved {
		pool = append(pool, waiting{pod: p})
	}
	if len(pool) == 0 || s.options.MaxMoves == 0 {
		return nil
	}
	best, bestPlan := s.value(), s.save()
	confirmed, confirmedPlan := best, bestPlan
	for turn := range rebuilds {
		if s.effort > 0 {
			s.ruin()
			s.recreate(pool)
			s.prune()
		}
		if v := s.value(); v < best-gainEpsilon {
			best, bestPlan = v, s.save()
		} else {
			s.restore(bestPlan)
		}
		isLast := turn == rebuilds-1 || s.effort <= 0
		if best < confirmed-gainEpsilon && (isLast || turn%confirmEvery == confirmEvery-1) {
			ok, err := s.confirm(ctx)
			if err != nil {
				return err
			}
			if ok {
				confirmed, confirmedPlan = best, bestPlan
			} else {
				best, bestPlan = confirmed, confirmedPlan
				s.restore(bestPlan)
			}
		}
		if s.effort <= 0 {
			break
		}
	}
	return nil
}

// ruin takes a few moves back.
func (s *search) ruin() {
	count := 1 + s.random.below(max(1, min(4, len(s.moved))))
	for ; count > 0 && len(s.moved) > 0; count-- {
		s.takeOut(s.moved[s.random.below(len(s.moved))])
	}
}

// recreate adds moves until none gains. The scheduler is asked later, if the plan
// turns out better.
func (s *search) recreate(pool queue) {
	for !s.isFull() && s.effort > 0 {
		candidates := s.draw(pool)
		bestGain, bestAt, bestTo := 0.0, -1, int32(0)
		for i, c := range candidates {
			o, ok, _ := s.bestShift(c.pod, c.why, s.sample(), optimistic)
			if noisy := o.gain * (1 - rebuildNoise*s.random.fraction()); ok && noisy > bestGain {
				bestGain, bestAt, bestTo = noisy, i, o.to
			}
		}
		if bestAt >= 0 {
			s.apply(candidates[bestAt].pod, bestTo, candidates[bestAt].why)
			continue
		}
		if len(candidates) == 0 {
			return
		}
		if chained, _ := s.applyChain(candidates[0].pod, candidates[0].why, unasked); !chained {
			return
		}
	}
}

func unasked() (bool, error) { return true, nil }

// draw picks pods at random and returns those of them with most to gain.
func (s *search) draw(pool queue) []waiting {
	var drawn []waiting
	for range min(rebuildSample, 2*len(pool)) {
		p := pool[s.random.below(len(pool))].pod
		if why, bound := s.mayStart(p); why != notAllowed {
			drawn = append(drawn, waiting{pod: p, why: why, bound: bound})
		}
	}
	s.effort -= rebuildSample
	slices.SortFunc(drawn, func(a, b waiting) int {
		return cmp.Or(cmp.Compare(b.bound, a.bound), cmp.Compare(a.pod.id, b.pod.id))
	})
	drawn = slices.CompactFunc(drawn, func(a, b waiting) bool { return a.pod == b.pod })
	return drawn[:min(len(drawn), rebuildWidth)]
}

// randomSample is how many destinations are drawn beside the targets.
const randomSample = 32

func (s *search) sample() []int32 {
	ids := slices.Clone(s.targets)
	for range min(randomSample, len(s.nodes)) {
		ids = append(ids, int32(s.random.below(len(s.nodes))))
	}
	return ids
}
