package reassignment

import (
	"cmp"
	"slices"
)

// annealing is a chain of simulated annealing over shifts and swaps.
type annealing struct {
	*state
	random   *random
	maxMoves int
	relaxed  *relaxation
	bySize   []int32 // processes, small ones first
	rank     []int32
	size     []float64 // by rank
	first    float64   // temperatures
	last     float64

	best     Assignment
	bestCost int64
	// changed are the processes that may differ between the state and best.
	dirty bool
}

var (
	TuneFirst  = 0.3
	TuneLast   = 1e-5
	TuneAlpha  = 0.0
	TuneTol    = 0.1
	TuneRise   = 1.02
	TuneTolEnd = 0.4
)

func newAnnealing(l *layout, seed uint64, maxMoves int) *annealing {
	s := newState(l)
	a := &annealing{state: s, random: newRandom(seed), relaxed: newRelaxation(s), maxMoves: maxMoves, best: slices.Clone(s.at), bestCost: s.cost}
	a.sortBySize()
	typical := a.typicalLoss()
	a.first, a.last = TuneFirst*typical, TuneLast*typical
	return a
}

// typicalLoss is the median of what random feasible moves lose.
func (a *annealing) typicalLoss() float64 {
	const samples = 200_000
	var losses []int64
	for range samples {
		p, to := a.randomProcess(), a.randomMachine()
		if to == a.at[p] || !a.canShift(p, to) {
			continue
		}
		if d := a.shiftDelta(p, to); d > 0 {
			losses = append(losses, d)
		}
		if len(losses) == 1000 {
			break
		}
	}
	if len(losses) == 0 {
		return 1
	}
	slices.Sort(losses)
	return float64(losses[len(losses)/2])
}

func (a *annealing) randomProcess() int32 { return int32(a.random.below(len(a.service))) }
func (a *annealing) randomMachine() int32 { return int32(a.random.below(a.machines)) }

func (a *annealing) sortBySize() {
	n := len(a.service)
	sizes := make([]float64, n)
	a.bySize, a.rank, a.size = make([]int32, n), make([]int32, n), make([]float64, n)
	for p := range sizes {
		a.bySize[p] = int32(p)
		for r, need := range a.requirementOf(int32(p)) {
			sizes[p] += float64(need) * float64(max(1, a.loadWeight[r]))
		}
	}
	slices.SortFunc(a.bySize, func(x, y int32) int { return cmp.Or(cmp.Compare(sizes[x], sizes[y]), cmp.Compare(x, y)) })
	for i, p := range a.bySize {
		a.rank[p], a.size[i] = int32(i), sizes[p]
	}
}

func (a *annealing) partner(p int32) int32 {
	n := len(a.bySize)
	u := a.random.fraction()
	offset := int(float64(n) * u * u * u)
	at := int(a.rank[p])
	if a.random.next()&1 == 0 {
		at += offset
	} else {
		at -= offset
	}
	if at < 0 || at >= n {
		return int32(a.random.below(n))
	}
	return a.bySize[at]
}

func (a *annealing) run(iterations int64, progress float64) {
	t := temperature(a.first, a.last, progress)
	for range iterations {
		if a.random.next()&1 == 0 {
			a.tryShift(t)
		} else {
			a.trySwap(t)
		}
	}
	a.relaxed.adapt(int32(TuneTol*max(0, 1-progress/TuneTolEnd)*float64(a.machines)), progress < 0.9)
}

func (a *annealing) tryShift(t float64) {
	p, to := a.randomProcess(), a.randomMachine()
	from := a.at[p]
	if from == to || !a.hasMovesLeft(movedChange(from, to, a.start[p])) {
		return
	}
	limit := uphill(a.random, t)
	x := a.relaxed
	strain := x.penaltyWith(a.state, to, p, -1) - x.penalty(a.state, to)
	if x.tight[from] > 0 {
		strain += x.penaltyWith(a.state, from, -1, p) - x.penalty(a.state, from)
	}
	if strain > limit+float64(a.machineCost[from]) {
		return
	}
	delta := a.shiftDelta(p, to)
	if float64(delta)+strain > limit || !a.mayShift(p, to) {
		return
	}
	a.move(p, to, delta)
	a.remember()
}

func (a *annealing) trySwap(t float64) {
	p := a.randomProcess()
	q := a.partner(p)
	at, other := a.at[p], a.at[q]
	if at == other {
		return
	}
	if !a.hasMovesLeft(movedChange(at, other, a.start[p]) + movedChange(other, at, a.start[q])) {
		return
	}
	limit := uphill(a.random, t)
	x := a.relaxed
	strain := x.penaltyWith(a.state, at, q, p) - x.penalty(a.state, at) + x.penaltyWith(a.state, other, p, q) - x.penalty(a.state, other)
	if strain > limit+float64(a.machineCost[at]+a.machineCost[other]) {
		return
	}
	delta := a.swapDelta(p, q)
	if float64(delta)+strain > limit || !a.maySwap(p, q) {
		return
	}
	a.move(p, other, delta)
	a.move(q, at, 0)
	a.remember()
}

func (a *annealing) move(p, to int32, delta int64) {
	from := a.at[p]
	a.relaxed.count(a.state, from, -1)
	a.relaxed.count(a.state, to, -1)
	a.apply(p, to, delta)
	a.relaxed.count(a.state, from, 1)
	a.relaxed.count(a.state, to, 1)
}

func (a *annealing) hasMovesLeft(change int32) bool {
	return a.maxMoves == 0 || change <= 0 || a.moved+int(change) <= a.maxMoves
}

func (a *annealing) remember() {
	if a.cost < a.bestCost && a.relaxed.isFeasible() {
		a.bestCost = a.cost
		a.dirty = true
		copy(a.best, a.at)
	}
}

func (a *annealing) meet([]chain) {}
