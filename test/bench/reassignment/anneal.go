package reassignment

import (
	"cmp"
	"slices"

	"github.com/ai-storage/orchestrator/pkg/scheduling/annealing"
)

// The annealing schedule, tuned on the challenge's set A and on larger made-up
// instances. Temperatures are in units of what a typical random move loses.
const (
	// A search with time for many proposals for each process begins so warm that
	// big processes still change places; with little time it descends.
	warmest, tepid = 30.0, 0.03
	// sweepsPerDegree are the proposals for each process that a unit of the
	// first temperature takes to cool down.
	sweepsPerDegree = 200
	// It ends that cold, or that many times colder than it began.
	coldest, cooling = 0.05, 30
	// ejectShare of the proposals are ejection chains, which take a hundred
	// times as long as a shift.
	ejectShare = 0.1
	// siblingShare of the swaps are between processes of one service, which no
	// rule but capacity forbids.
	siblingShare = 0.1
)

// descent is one chain of simulated annealing over shifts, swaps and
// ejections. It never leaves the feasible assignments.
type descent struct {
	*state
	random       *annealing.Random
	destinations *destinations
	// members are the processes of a service.
	members [][]int32
	bySize  []int32 // processes, small ones first
	rank    []int32 // of a process in bySize
	// typical is what a random feasible move loses, in units of cost.
	typical float64
	// done are the proposals so far.
	done int64
	// steps of the compound move in hand, and the machines that it has made
	// overfull.
	steps    []shift
	overfull []int32

	best     Assignment
	bestCost int64
}

func newDescent(l *layout, seed uint64) *descent {
	s := newState(l)
	a := &descent{state: s, random: annealing.NewRandom(seed), destinations: newDestinations(l), best: slices.Clone(s.at), bestCost: s.cost}
	a.members = make([][]int32, len(l.problem.Services))
	for p, service := range l.service {
		a.members[service] = append(a.members[service], int32(p))
	}
	a.sortBySize()
	a.typical = a.typicalLoss()
	return a
}

// typicalLoss is the median of what random feasible moves lose.
func (a *descent) typicalLoss() float64 {
	const tries, enough = 200_000, 1000
	var losses []int64
	for range tries {
		p, to := a.randomProcess(), a.randomMachine()
		if to == a.at[p] || !a.canShift(p, to) {
			continue
		}
		if d := a.shiftDelta(p, to); d > 0 {
			losses = append(losses, d)
		}
		if len(losses) == enough {
			break
		}
	}
	if len(losses) == 0 {
		return 1
	}
	slices.Sort(losses)
	return float64(losses[len(losses)/2])
}

func (a *descent) randomProcess() int32 { return int32(a.random.Below(len(a.service))) }
func (a *descent) randomMachine() int32 { return int32(a.random.Below(a.machines)) }

func (a *descent) sortBySize() {
	n := len(a.service)
	sizes := make([]float64, n)
	a.bySize, a.rank = make([]int32, n), make([]int32, n)
	for p := range sizes {
		a.bySize[p] = int32(p)
		for r, need := range a.requirementOf(int32(p)) {
			sizes[p] += float64(need) * float64(max(1, a.loadWeight[r]))
		}
	}
	slices.SortFunc(a.bySize, func(x, y int32) int { return cmp.Or(cmp.Compare(sizes[x], sizes[y]), cmp.Compare(x, y)) })
	for i, p := range a.bySize {
		a.rank[p] = int32(i)
	}
}

// partner picks a process to swap with: of the same service, or of about the
// same size, since a swap of unlike ones rarely fits.
func (a *descent) partner(p int32) int32 {
	if a.random.Fraction() < siblingShare {
		list := a.members[a.service[p]]
		return list[a.random.Below(len(list))]
	}
	n := len(a.bySize)
	u := a.random.Fraction()
	offset := int(float64(n) * u * u * u)
	at := int(a.rank[p])
	if a.random.Next()&1 == 0 {
		at += offset
	} else {
		at -= offset
	}
	if at < 0 || at >= n {
		return int32(a.random.Below(n))
	}
	return a.bySize[at]
}

func (a *descent) Run(iterations int64, progress float64) {
	first := a.firstTemperature(progress)
	t := annealing.Temperature(first, min(first/cooling, coldest*a.typical), progress)
	a.done += iterations
	for range iterations {
		switch {
		case a.random.Fraction() < ejectShare:
			a.tryEject(t)
		case a.random.Next()&1 == 0:
			a.tryShift(t)
		default:
			a.trySwap(t)
		}
	}
	if a.cost < a.bestCost {
		a.bestCost = a.cost
		copy(a.best, a.at)
	}
}

// firstTemperature follows from how many proposals there is time for, going by
// how many there were so far.
func (a *descent) firstTemperature(progress float64) float64 {
	if progress <= 0 {
		return tepid * a.typical
	}
	sweeps := float64(a.done) / progress / float64(len(a.service))
	return a.typical * max(tepid, min(warmest, sweeps/sweepsPerDegree))
}

func (a *descent) tryShift(t float64) {
	p := a.randomProcess()
	to := a.destinations.pick(a.random, p)
	if to < 0 || a.at[p] == to || !a.fits(p, to) {
		return
	}
	delta := a.shiftDelta(p, to)
	if float64(delta) <= annealing.Uphill(a.random, t) && a.mayShift(p, to) {
		a.apply(p, to)
	}
}

func (a *descent) trySwap(t float64) {
	p := a.randomProcess()
	q := a.partner(p)
	at, other := a.at[p], a.at[q]
	if at == other || !a.fitsInstead(p, q, other) || !a.fitsInstead(q, p, at) {
		return
	}
	delta := a.swapDelta(p, q)
	if float64(delta) <= annealing.Uphill(a.random, t) && a.maySwap(p, q) {
		a.apply(p, other)
		a.apply(q, at)
	}
}
