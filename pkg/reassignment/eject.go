package reassignment

import (
	"math"
	"slices"
)

const (
	// maxEjected bounds how many processes one process pushes out.
	maxEjected = 8
	// maxMisses is how many of them may find no refuge before it gives up.
	maxMisses = 3
	// Tournaments: the winner is the best of so many random ones.
	sourceTries, processTries, destinationTries, refugeTries = 8, 2, 16, 64
)

// shift is one step of a compound move.
type shift struct{ process, from int32 }

// tryEject pushes a process into a machine that has too little room for it and
// sends those that are in its way elsewhere, as one move. In machines that are
// nearly full, big processes move in no other way (the "big process
// rearrangement" of Gavranović and Buljubašić, 2014).
func (a *annealing) tryEject(t float64) {
	p := a.costlyProcess()
	to := a.attractiveMachine(p)
	if to < 0 {
		return
	}
	before, limit := a.cost, uphill(a.random, t)
	a.steps = a.steps[:0]
	a.step(p, to)
	for misses := 0; len(a.steps) <= maxEjected; {
		q := a.inTheWay(to, p)
		if q < 0 {
			break
		}
		if refuge := a.refugeFor(q); refuge >= 0 {
			a.step(q, refuge)
		} else if misses++; misses > maxMisses {
			break
		}
	}
	if float64(a.cost-before) > limit || a.isOverfull(to) {
		a.takeBack()
	}
}

// step moves a process and notes from where.
func (a *annealing) step(p, to int32) {
	a.steps = append(a.steps, shift{p, a.at[p]})
	a.apply(p, to)
}

func (a *annealing) takeBack() {
	for _, s := range slices.Backward(a.steps) {
		a.apply(s.process, s.from)
	}
}

// costlyProcess picks a machine that costs much and a process whose leaving
// saves much.
func (a *annealing) costlyProcess() int32 {
	machine := a.at[a.randomProcess()]
	for range sourceTries - 1 {
		if other := a.at[a.randomProcess()]; a.machineCost[other] > a.machineCost[machine] {
			machine = other
		}
	}
	list := a.on[machine]
	best, least := int32(-1), int64(math.MaxInt64)
	for range processTries {
		p := list[a.random.below(len(list))]
		if without := a.costWith(machine, a.nothing, a.requirementOf(p)); without < least {
			best, least = p, without
		}
	}
	return best
}

// attractiveMachine picks the cheapest of a few machines where the rules allow
// the process, room aside; −1 when there is none.
func (a *annealing) attractiveMachine(p int32) int32 {
	best, least := int32(-1), int64(math.MaxInt64)
	for range destinationTries {
		to := a.randomMachine()
		if to == a.at[p] || !a.couldHold(p, to) || !a.mayShift(p, to) {
			continue
		}
		if rise := a.costWith(to, a.requirementOf(p), a.nothing) - a.machineCost[to]; rise < least {
			best, least = to, rise
		}
	}
	return best
}

// couldHold says whether the machine would hold the process if it were empty.
func (a *annealing) couldHold(p, machine int32) bool {
	at := int(machine) * a.resources
	capacity := a.capacity[at : at+a.resources]
	for r, n := range a.requirementOf(p) {
		if n > capacity[r] {
			return false
		}
	}
	return true
}

func (a *annealing) isOverfull(machine int32) bool {
	at := int(machine) * a.resources
	for _, free := range a.room[at : at+a.resources] {
		if free < 0 {
			return true
		}
	}
	return false
}

// inTheWay picks a process whose leaving helps an overfull machine; −1 when
// there is room, or none helps.
func (a *annealing) inTheWay(machine, stays int32) int32 {
	if !a.isOverfull(machine) {
		return -1
	}
	best, most := int32(-1), 0.0
	for _, q := range a.on[machine] {
		if q == stays {
			continue
		}
		if score := a.relief(q, machine) * (0.5 + a.random.fraction()); score > most {
			best, most = q, score
		}
	}
	return best
}

// relief is by what part of the missing room the leaving of a process helps,
// against all that it takes.
func (a *annealing) relief(q, machine int32) float64 {
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
func (a *annealing) refugeFor(q int32) int32 {
	best, least := int32(-1), int64(math.MaxInt64)
	to := a.randomMachine()
	for range min(refugeTries, a.machines) {
		if to++; int(to) == a.machines {
			to = 0
		}
		if to == a.at[q] || !a.canShift(q, to) {
			continue
		}
		if rise := a.costWith(to, a.requirementOf(q), a.nothing) - a.machineCost[to] + a.moveCostAt(q, to); rise < least {
			best, least = to, rise
		}
	}
	return best
}
