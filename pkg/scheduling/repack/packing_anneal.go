package repack

import (
	"math"
	"slices"

	"github.com/ai-storage/orchestrator/pkg/scheduling/annealing"
)

// packingAnnealing is a chain of simulated annealing in the space of packings
// with at most maxMoves displaced items. Proposals are compound: shifts,
// returns, swaps and ejections, applied first and undone when refused.
type packingAnnealing struct {
	*packingState
	random   *annealing.Random
	maxMoves int
	scale    float64 // size of the largest weighted shape

	onNode    [][]int32 // items, by node; split ones are on all nodes
	open      []int32   // nodes with room in a shape's resource
	openAt    []int32   // where a node is in open, −1 if it is not
	displaced []int32
	listedAt  []int32 // where an item is in displaced, −1 if it is not
	movable   []int32

	made      []step // of the proposal in hand
	energy    float64
	energies  []float64 // by node
	sequencer *sequencer

	best     []step
	bestCost int64
}

// step is one item going from one spot to another.
type step struct {
	item     int32
	from, to spot
}

// The schedule, tuned on the snapshot of production hosts in the benchmark
// data. Energies are in units of the largest weighted shape.
const (
	firstPackingTemperature = 0.2
	lastPackingTemperature  = 0.01
	// unevenBonus makes two uneven remainders cost less than two equal ones.
	unevenBonus = 0.2
	// displacedPrice is what a displaced item costs: a move must be worth it.
	displacedPrice = 0.1
	spotTries      = 8
)

func newPackingAnnealing(p *Packing, seed uint64, maxMoves int) *packingAnnealing {
	s := newPackingState(p)
	a := &packingAnnealing{packingState: s, random: annealing.NewRandom(seed), maxMoves: maxMoves, bestCost: s.cost,
		onNode: make([][]int32, len(s.nodeCost)), openAt: make([]int32, len(s.nodeCost)), energies: make([]float64, len(s.nodeCost)),
		listedAt: make([]int32, len(p.Items)), sequencer: newSequencer(p)}
	for _, shape := range p.Shapes {
		a.scale = max(a.scale, float64(shape.Size*shape.Weight))
	}
	for i := range p.Items {
		item := int32(i)
		a.listedAt[i] = -1
		first, end := s.nodeRange(item, s.at[item])
		for n := first; n < end; n++ {
			a.onNode[n] = append(a.onNode[n], item)
		}
		if !p.Items[i].Fixed && !p.Hosts[p.Items[i].Host].Closed {
			a.movable = append(a.movable, item)
		}
	}
	for n := range a.openAt {
		a.openAt[n] = -1
		a.noteRoom(int32(n))
	}
	return a
}

// noteRoom updates what follows from the free room of a node.
func (a *packingAnnealing) noteRoom(node int32) {
	energy, isOpen := a.energyWith(node, nil)
	a.energy += energy - a.energies[node]
	a.energies[node] = energy
	a.open = setListed(a.open, a.openAt, node, isOpen)
}

// energyWith is the energy of a node once so much more of it is taken, and
// whether it has room in a shape's resource then.
func (a *packingAnnealing) energyWith(node int32, taken []int64) (energy float64, isOpen bool) {
	for _, shape := range a.Shapes {
		free := a.free[int(node)*a.resources+shape.Resource]
		if taken != nil {
			free -= taken[shape.Resource]
		}
		if free <= 0 {
			continue
		}
		isOpen = true
		// A little less for uneven remainders leads towards whole shapes.
		rest, size := float64(free%shape.Size), float64(shape.Size)
		energy += float64(shape.Weight) * (rest - unevenBonus*rest*rest/size)
	}
	return energy, isOpen
}

// setListed puts a number on a list or takes it off; at knows where it is.
func setListed(list, at []int32, number int32, listed bool) []int32 {
	if listed == (at[number] >= 0) {
		return list
	}
	if listed {
		at[number] = int32(len(list))
		return append(list, number)
	}
	last := list[len(list)-1]
	list[at[number]] = last
	at[last] = at[number]
	at[number] = -1
	return list[:len(list)-1]
}

// put moves the item and notes the step, whether it fits or not.
func (a *packingAnnealing) put(item int32, to spot) {
	a.made = append(a.made, step{item, a.at[item], to})
	a.place(item, to)
}

func (a *packingAnnealing) place(item int32, to spot) {
	from := a.at[item]
	a.move(item, to)
	first, end := a.nodeRange(item, from)
	for n := first; n < end; n++ {
		list := a.onNode[n]
		i := slices.Index(list, item)
		list[i] = list[len(list)-1]
		a.onNode[n] = list[:len(list)-1]
		a.noteRoom(n)
	}
	first, end = a.nodeRange(item, to)
	for n := first; n < end; n++ {
		a.onNode[n] = append(a.onNode[n], item)
		a.noteRoom(n)
	}
	a.displaced = setListed(a.displaced, a.listedAt, item, to != a.start[item])
}

func (a *packingAnnealing) undo() {
	for _, s := range slices.Backward(a.made) {
		a.place(s.item, s.from)
	}
}

// holds says whether all nodes that the proposal touched have room enough.
func (a *packingAnnealing) holds() bool {
	for _, s := range a.made {
		first, end := a.nodeRange(s.item, a.at[s.item])
		for _, free := range a.free[int(first)*a.resources : int(end)*a.resources] {
			if free < 0 {
				return false
			}
		}
	}
	return true
}

func (a *packingAnnealing) Run(iterations int64, progress float64) {
	if len(a.movable) == 0 || len(a.open) == 0 {
		return
	}
	t := annealing.Temperature(firstPackingTemperature*a.scale, lastPackingTemperature*a.scale, progress)
	for range iterations {
		a.made = a.made[:0]
		before := a.energy + displacedPrice*a.scale*float64(a.moved)
		limit := before + annealing.Uphill(a.random, t)
		if !a.propose() || len(a.made) == 0 {
			a.undo()
			continue
		}
		for tries := 0; a.moved > a.maxMoves && tries < 3; tries++ {
			a.returnOne()
		}
		if a.moved > a.maxMoves || !a.holds() || a.energy+displacedPrice*a.scale*float64(a.moved) > limit {
			a.undo()
			continue
		}
		steps, ok := a.sequencer.order(a.displaced, a.at, a.maxMoves)
		if !ok {
			a.undo()
			continue
		}
		a.remember(steps)
	}
}

// propose makes a change and says whether it may be worth a look.
func (a *packingAnnealing) propose() bool {
	switch kind := a.random.Below(16); {
	case kind < 7:
		item := a.randomItem()
		to, found := a.randomSpot(item)
		if !found {
			return false
		}
		a.put(item, to)
		return true
	case kind < 9:
		return a.returnOne()
	case kind < 12:
		return a.swap()
	default:
		return a.eject()
	}
}

// randomItem prefers items on nodes that have room, since only there something
// can be completed.
func (a *packingAnnealing) randomItem() int32 {
	if a.random.Next()&3 != 0 {
		list := a.onNode[a.open[a.random.Below(len(a.open))]]
		if len(list) > 0 {
			if item := list[a.random.Below(len(list))]; a.isMovable(item) {
				return item
			}
		}
	}
	return a.movable[a.random.Below(len(a.movable))]
}

func (a *packingAnnealing) isMovable(item int32) bool {
	return !a.Items[item].Fixed && !a.Hosts[a.Items[item].Host].Closed
}

// randomSpot looks for a place with room, every other time for the best of a
// few.
func (a *packingAnnealing) randomSpot(item int32) (spot, bool) {
	wanted := 1
	if a.random.Next()&1 == 0 {
		wanted = spotTries
	}
	var best spot
	least, found := math.Inf(1), 0
	for range 2 * spotTries {
		node := a.open[a.random.Below(len(a.open))]
		host := int(node) / a.nodes
		to := node
		if a.Items[item].Node == Split {
			to = spot(host)
		}
		if to == a.at[item] || !a.accepts(item, host) || !a.fits(item, to) {
			continue
		}
		if rise := a.rise(item, to); rise < least {
			best, least = to, rise
		}
		if found++; found == wanted {
			break
		}
	}
	return best, found > 0
}

// rise is what the arrival of the item changes in energy.
func (a *packingAnnealing) rise(item int32, to spot) float64 {
	var sum float64
	first, end := a.nodeRange(item, to)
	for n := first; n < end; n++ {
		energy, _ := a.energyWith(n, a.Items[item].Requirement)
		sum += energy - a.energies[n]
	}
	return sum
}

// returnOne sends a displaced item home.
func (a *packingAnnealing) returnOne() bool {
	if len(a.displaced) == 0 {
		return false
	}
	item := a.displaced[a.random.Below(len(a.displaced))]
	a.put(item, a.start[item])
	return true
}

// swap exchanges two items of the same kind of spot.
func (a *packingAnnealing) swap() bool {
	p, q := a.randomItem(), a.movable[a.random.Below(len(a.movable))]
	if a.random.Next()&1 == 0 {
		q = a.randomItem()
	}
	if (a.Items[p].Node == Split) != (a.Items[q].Node == Split) {
		return false
	}
	from, to := a.at[p], a.at[q]
	if from == to || !a.accepts(p, a.hostOf(q, to)) || !a.accepts(q, a.hostOf(p, from)) {
		return false
	}
	a.put(p, to)
	a.put(q, from)
	return true
}

// eject puts an item where there is too little room and sends one or two of
// those that are there elsewhere.
func (a *packingAnnealing) eject() bool {
	p := a.randomItem()
	node := a.open[a.random.Below(len(a.open))]
	if a.random.Next()&3 == 0 {
		node = int32(a.random.Below(len(a.nodeCost)))
	}
	to := node
	if a.Items[p].Node == Split {
		to = spot(int(node) / a.nodes)
	}
	if to == a.at[p] || !a.accepts(p, int(node)/a.nodes) {
		return false
	}
	a.put(p, to)
	for range 2 {
		list := a.onNode[node]
		q := list[a.random.Below(len(list))]
		if q == p || !a.isMovable(q) {
			return a.holds()
		}
		away, found := a.randomSpot(q)
		if !found {
			return false
		}
		a.put(q, away)
		if a.holds() {
			return true
		}
	}
	return false
}

// remember keeps the packing if it is the best so far; steps are its order.
func (a *packingAnnealing) remember(steps []step) {
	if a.cost < a.bestCost {
		a.best, a.bestCost = append(a.best[:0], steps...), a.cost
	}
}
