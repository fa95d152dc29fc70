package reassignment

import "github.com/ai-storage/orchestrator/pkg/scheduling/annealing"

// Result is the best assignment that a search found.
type Result struct {
	Assignment Assignment
	// InitialCost and Cost are those of the start and of the assignment; Cost
	// is never above InitialCost.
	InitialCost, Cost int64
	// Moved is the number of processes that end elsewhere.
	Moved int
}

// Solve searches for a cheaper assignment that keeps the hard rules. The
// start must keep them itself and is what is returned when nothing better is found.
func Solve(p *Problem, start Assignment, o annealing.Options) (Result, error) {
	if err := p.Validate(); err != nil {
		return Result{}, err
	}
	if err := p.ValidateAssignment(start); err != nil {
		return Result{}, err
	}
	l := newLayout(p, start)
	chains := make([]annealing.Chain, annealing.ChainCount)
	searches := make([]*descent, annealing.ChainCount)
	for i := range chains {
		searches[i] = newDescent(l, o.Seed*annealing.ChainCount+uint64(i))
		chains[i] = searches[i]
	}
	initial := searches[0].bestCost
	annealing.Run(chains, o)
	best := searches[0]
	for _, s := range searches[1:] {
		if s.bestCost < best.bestCost {
			best = s
		}
	}
	return Result{Assignment: best.best, InitialCost: initial, Cost: best.bestCost, Moved: countMoved(start, best.best)}, nil
}

func countMoved(start, end Assignment) int {
	moved := 0
	for p, m := range end {
		if m != start[p] {
			moved++
		}
	}
	return moved
}
