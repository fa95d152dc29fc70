package reassignment

import (
	"math"
	"slices"

	"github.com/ai-storage/orchestrator/pkg/scheduling/annealing"
)

const (
	// maxEjected bounds how many processes one process pushes out.
	maxEjected = 8
	// maxMisses is how many of them may find no refuge before it gives up.
	maxMisses = 3
	// maxPushes is how many of them may push others out in their turn, into
	// machines that lack at most tightest of what they need.
	maxPushes, tightest = 2, 0.7
	// Tournaments: the winner is the best of so many random ones.
	sourceTries, processTries, destinationTries, refugeTries, pushTries = 8, 2, 16, 64, 4
)

// shift is one step of a compound move.
type shift struct{ process, from int32 }

// tryEject pushes a process into a machine that has too little room for it and
// sends those that are in its way elsewhere, as one move. In machines that are
// nearly full, big processes move in no other way (the "big process
// rearrangement" of Gavranović and Buljubašić, 2014).
func (a *descent) tryEject(t float64) {
	p := a.costlyProcess()
	to := a.attractiveMachine(p)
	if to < 0 {
		return
	}
	before, limit := a.cost, annealing.Uphill(a.random, t)
	a.steps = a.steps[:0]
	a.step(p, to)
	a.overfull = append(a.overfull[:0], to)
	if !a.relieve() || float64(a.cost-before) > limit {
		a.undo()
	}
}

// relieve continues with a compound move until no machine is overfull, and reports
// whether that was reached.
func (a *descent) relieve() bool {
	for misses, pushes := 0, 0; len(a.overfull) > 0; {
		machine := a.overfull[len(a.overfull)-1]
		if !a.isOverfull(machine) {
			a.overfull = a.overfull[:len(a.overfull)-1]
			continue
		}
		q := a.inTheWay(machine)
		if q < 0 || len(a.steps) > maxEjected {
			return false
		}
		if refuge := a.refugeFor(q); refuge >= 0 {
			a.step(q, refuge)
			continue
		}
		pushed := int32(-1)
		if pushes < maxPushes {
			pushed = a.tightRefuge(q)
		}
		if pushed >= 0 {
			pushes++
			a.step(q, pushed)
			a.overfull = append(a.overfull, pushed)
		} else if misses++; misses > maxMisses {
			return false
		}
	}
	return true
}

// step moves a process and notes from where.
func (a *descent) step(p, to int32) {
	a.steps = append(a.steps, shift{p, a.at[p]})
	a.apply(p, to)
}

// hasMoved says whether a process is part of the compound move.
func (a *descent) hasMoved(p int32) bool {
	return slices.ContainsFunc(a.steps, func(s shift) bool { return s.process == p })
}

func (a *descent) undo() {
	for _, s := range slices.Backward(a.steps) {
		a.apply(s.process, s.from)
	}
}

// costlyProcess picks a machine that costs much and a process whose leaving
// saves much.
func (a *descent) costlyProcess() int32 {
	machine := a.at[a.randomProcess()]
	for range sourceTries - 1 {
		if other := a.at[a.randomProcess()]; a.machineCost[other] > a.machineCost[machine] {
			machine = other
		}
	}
	list := a.on[machine]
	best, least := int32(-1), int64(math.MaxInt64)
	for range processTries {
		p := list[a.random.Below(len(list))]
		if without := a.costWith(machine, a.nothing, a.requirementOf(p)); without < least {
			best, least = p, without
		}
	}
	return best
}

// attractiveMachine picks the cheapest of a few machines where the rules allow
// the process, room aside; −1 when there is none.
func (a *descent) attractiveMachine(p int32) int32 {
	best, least := int32(-1), int64(math.MaxInt64)
	for range destinationTries {
		to := a.destinations.pick(a.random, p)
		if to < 0 || to == a.at[p] || !a.mayShift(p, to) {
			continue
		}
		if rise := a.costWith(to, a.requirementOf(p), a.nothing) - a.machineCost[to]; rise < least {
			best, least = to, rise
		}
	}
	return best
}

func (a *descent) isOverfull(machine int32) bool {
	at := int(machine) * a.resources
	for _, free := range a.room[at : at+a.resources] {
		if free < 0 {
			return true
		}
	}
	return false
}

// inTheWay picks a process whose leaving helps an overfull machine; −1 when
// none helps.
func (a *descent) inTheWay(machine int32) int32 {
	best, most := int32(-1), 0.0
	for _, q := range a.on[machine] {
		if a.hasMoved(q) {
			continue
		}
		if score := a.relief(q, machine) * (0.5 + a.random.Fraction()); score > most {
			best, most = q, score
		}
	}
	return best
}

// relief is by what part of the missing room the leaving of a process helps,
// against all that it takes.
func (a *descent) relief(q, machine int32) float64 {
	// A little size for free keeps tiny processes from winning by division.
	const sizeForFree = 0.05
	leavesHome := machine == a.start[q]
	at := int(machine) * a.resources
	var missing, helped, size float64
	for r, need := range a.requirementOf(q) {
		unit := 1 / float64(a.capacity[at+r]+1)
		size += float64(need) * unit
		lack := -a.room[at+r]
		if lack <= 0 {
			continue
		}
		missing += float64(lack) * unit
		if !leavesHome || !a.transient[r] {
			helped += float64(min(lack, need)) * unit
		}
	}
	if helped == 0 {
		return 0
	}
	return helped / missing / (sizeForFree + size)
}

// refugeFor picks the cheapest of some machines that have room for a process.
// They are neighbors in memory: most of the time goes into finding that there
// is no room.
func (a *descent) refugeFor(q int32) int32 {
	best, least := int32(-1), int64(math.MaxInt64)
	n := a.destinations.count(q)
	for i, left := a.random.Below(n), min(refugeTries, n); left > 0; i, left = i+1, left-1 {
		to := a.destinations.at(q, i%n)
		if to == a.at[q] || !a.canShift(q, to) {
			continue
		}
		if rise := a.costWith(to, a.requirementOf(q), a.nothing) - a.machineCost[to] + a.moveCostAt(q, to); rise < least {
			best, least = to, rise
		}
	}
	return best
}

// tightRefuge picks, of a few machines that lack room for a process, the one
// that lacks least of what it needs; −1 when all lack too much.
func (a *descent) tightRefuge(q int32) int32 {
	best, least := int32(-1), tightest
	for range pushTries {
		to := a.destinations.pick(a.random, q)
		if to < 0 || to == a.at[q] || !a.mayShift(q, to) {
			continue
		}
		if lacks := a.lacking(q, to); lacks < least {
			best, least = to, lacks
		}
	}
	return best
}

// lacking is the part of what a process needs that a machine has no room for.
func (a *descent) lacking(q, machine int32) float64 {
	at := int(machine) * a.resources
	lacks, size := 0.0, 0.0
	for r, need := range a.requirementOf(q) {
		unit := 1 / float64(a.capacity[at+r]+1)
		size += float64(need) * unit
		lacks += float64(min(need, max(0, need-a.room[at+r]))) * unit
	}
	return lacks / size
}
