package planner

import (
	"context"
	"slices"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// Make plans at most MaxMoves moves that lower the objective most, among those
// that the scheduler and the budget allow. No node that takes pods in comes near
// a threshold, and the plan never costs more than it gains. It returns an error
// only when the Feasibility does.
func Make(ctx context.Context, snapshot *cluster.Snapshot, feasibility Feasibility, options Options) (*Plan, error) {
	s := newSearch(snapshot, feasibility, options)
	plan := &Plan{SnapshotTime: snapshot.Time, Moves: []Move{}, Before: s.summary(), Source: snapshot.Source}
	ordered, err := s.plan(ctx)
	if err != nil {
		return nil, err
	}
	plan.After = s.summary()
	plan.StillOverutilized = s.stillOverutilized()
	plan.Moves = s.moves(ordered)
	return plan, nil
}

// rule is what allows a move.
type rule uint8

const (
	notAllowed rule = iota
	// relief: the source node is overutilized.
	relief
	// makesRoom: the move lets another one of the plan in.
	makesRoom
	// consolidation: nodes become empty.
	consolidation
	// defragmentation: free room comes to hold whole shapes.
	defragmentation
)

// search looks for a plan. How long it may look is counted in evaluations, not
// in time, so that the same input always gives the same plan.
type search struct {
	*state
	feasibilityCache
	options Options
	random  random
	// effort is how many evaluations are left in the phase at work.
	effort int
	// targets are open nodes with room and low load, a sample of good destinations.
	targets []int32
	// mostWaste is the most that a node can gain by defragmentation.
	mostWaste float64
	// chains is used by the search for chains.
	chains chainSearch
}

// Evaluations of a pod on a node that each phase may make: about a second for
// all of them together.
const (
	shiftEffort   = 8_000_000
	chainEffort   = 5_000_000
	rebuildEffort = 5_000_000
	explainEffort = 3_000_000
)

func newSearch(snapshot *cluster.Snapshot, feasibility Feasibility, options Options) *search {
	s := &search{state: newState(snapshot, options), options: options, random: random{state: options.Seed}}
	s.feasibilityCache = feasibilityCache{feasibility: feasibility, refused: map[question]string{}, allowed: map[question]string{}}
	return s
}

// repairs is how often a plan that the scheduler refused in part is filled up
// again. After that it only shrinks.
const repairs = 4

// repairShare is the part of the effort that is spent on each of them.
const repairShare = 8

// plan searches, and tries the result on the scheduler in order until nothing
// is refused. Every try that fails takes a move out, so there is an end.
func (s *search) plan(ctx context.Context) ([]orderedMove, error) {
	for round := 0; ; round++ {
		if round <= repairs {
			if err := s.improve(ctx, round); err != nil {
				return nil, err
			}
		}
		s.prune()
		ordered, complete := s.arrange()
		if !complete {
			s.takeOut(s.firstUnordered())
			continue
		}
		refused, err := s.dryRunPlan(ctx, ordered)
		if err != nil {
			return nil, err
		}
		if len(refused) == 0 {
			return ordered, nil
		}
		for _, p := range refused {
			if p.at != p.home {
				s.takeOut(p)
			}
		}
	}
}

// improve makes the plan better. To fill up what the scheduler refused takes
// less effort than to find the plan.
func (s *search) improve(ctx context.Context, round int) error {
	share := 1
	if round > 0 {
		share = repairShare
	}
	s.findTargets()
	s.effort = shiftEffort / share
	if err := s.shiftAll(ctx); err != nil {
		return err
	}
	s.effort = chainEffort / share
	if err := s.emptyNodes(ctx); err != nil {
		return err
	}
	if err := s.chainAll(ctx); err != nil {
		return err
	}
	if round == 0 {
		if err := s.repack(ctx); err != nil {
			return err
		}
	}
	s.effort = rebuildEffort / share
	return s.rebuild(ctx)
}

// gainEpsilon keeps rounding from being taken for a gain.
const gainEpsilon = 1e-9

// prune undoes every move without which the plan is better.
func (s *search) prune() {
	for again := true; again; {
		again = false
		for _, p := range append([]*pod(nil), s.moved...) {
			if p.at != p.home && s.isBetterWithout(p) {
				again = true
			}
		}
	}
}

// isBetterWithout undoes a move if the plan is better then.
func (s *search) isBetterWithout(p *pod) bool {
	before, to := s.value(), &s.nodes[p.at]
	s.effort -= 2
	if s.isNeeded(p) {
		kept := s.save()
		s.effort -= len(kept)
		s.takeOut(p)
		if s.value() <= before+gainEpsilon {
			return true
		}
		s.restore(kept)
		return false
	}
	at := slices.Index(s.moved, p)
	s.back(p)
	if s.value() <= before+gainEpsilon {
		return true
	}
	s.move(p, to)
	s.moved = slices.Insert(s.moved[:len(s.moved)-1], at, p)
	return false
}

// isNeeded reports whether a pod of the plan comes to the home of the pod, and
// so perhaps for the room that it leaves.
func (s *search) isNeeded(p *pod) bool {
	return slices.ContainsFunc(s.moved, func(other *pod) bool { return other.at == p.home })
}

// takeOut undoes a move, and with it the moves that are not possible
// without it.
func (s *search) takeOut(p *pod) {
	s.back(p)
	s.clear(&s.nodes[p.home])
	for {
		if _, complete := s.arrange(); complete {
			return
		}
		unordered := s.firstUnordered()
		s.back(unordered)
		s.clear(&s.nodes[unordered.home])
	}
}

// firstUnordered is a moved pod that found no turn in the latest order.
func (s *search) firstUnordered() *pod {
	for _, p := range s.moved {
		if !p.isOrdered {
			return p
		}
	}
	return nil
}

// clear removes arrivals from a node that has no room for them any more.
func (s *search) clear(n *node) {
	for i := len(s.moved) - 1; i >= 0; i-- {
		p := s.moved[i]
		if p.at == n.id && s.isOverfull(n, p) {
			s.back(p)
			s.clear(&s.nodes[p.home])
			i = len(s.moved)
		}
	}
}

func (s *search) isOverfull(n *node, arrival *pod) bool {
	for r, amount := range arrival.stripped {
		if amount > 0 && n.free[r] < 0 {
			return true
		}
	}
	return s.wouldFill(n, n.load)
}

// save and restore keep a whole plan.
func (s *search) save() []relocation {
	kept := make([]relocation, len(s.moved))
	for i, p := range s.moved {
		kept[i] = relocation{p, p.at, p.why}
	}
	return kept
}

func (s *search) restore(kept []relocation) {
	for len(s.moved) > 0 {
		s.back(s.moved[len(s.moved)-1])
	}
	for _, r := range kept {
		s.move(r.pod, &s.nodes[r.to])
		r.pod.why = r.why
	}
}
