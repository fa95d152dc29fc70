package reassignment

import "github.com/ai-storage/orchestrator/pkg/scheduling/annealing"

// destinations knows which machines could ever hold a process, whoever else has
// to leave: what the processes that start on a machine hold of its transient
// resources is held for good, whether they stay or move. For a big process such
// machines are few, and a random one is hardly ever among them.
type destinations struct {
	*layout
	held   []int64   // machine × resource; 0 where it is not transient
	lists  [][]int32 // of a process; nil until it pays to have it
	missed []int32   // random machines that could not hold the process
	room   int       // for more entries of lists
}

const (
	// A list is made when so many random machines in a row of all of them were
	// in vain: both then have cost about the same.
	missesPerMachine = 0.125
	// listedDestinations bounds the memory of the lists, in entries of four bytes.
	listedDestinations = 8 << 20
)

func newDestinations(l *layout) *destinations {
	d := &destinations{
		layout: l, held: make([]int64, len(l.capacity)), lists: make([][]int32, len(l.service)),
		missed: make([]int32, len(l.service)), room: listedDestinations,
	}
	for p, m := range l.start {
		for r, n := range l.requirementOf(int32(p)) {
			if l.transient[r] {
				d.held[int(m)*l.resources+r] += n
			}
		}
	}
	return d
}

// pick returns a random machine that could hold the process, or −1 when it
// found none.
func (d *destinations) pick(r *annealing.Random, process int32) int32 {
	if list := d.lists[process]; list != nil {
		if len(list) == 0 {
			return -1
		}
		return list[r.Below(len(list))]
	}
	machine := int32(r.Below(d.machines))
	if d.couldHold(process, machine) {
		return machine
	}
	d.miss(process)
	return -1
}

func (d *destinations) miss(process int32) {
	d.missed[process]++
	if float64(d.missed[process]) < missesPerMachine*float64(d.machines) || d.room < d.machines {
		return
	}
	list := []int32{}
	for m := range int32(d.machines) {
		if d.couldHold(process, m) {
			list = append(list, m)
		}
	}
	d.room -= len(list)
	d.lists[process] = list
}

// count is the number of machines that at returns.
func (d *destinations) count(process int32) int {
	if list := d.lists[process]; list != nil {
		return len(list)
	}
	return d.machines
}

// at returns the i-th machine that may be asked about a process.
func (d *destinations) at(process int32, i int) int32 {
	if list := d.lists[process]; list != nil {
		return list[i]
	}
	return int32(i)
}

// couldHold says whether the machine would hold the process if all others that
// can leave it had left.
func (d *destinations) couldHold(process, machine int32) bool {
	if machine == d.start[process] {
		return true
	}
	at := int(machine) * d.resources
	capacity, held := d.capacity[at:at+d.resources], d.held[at:at+d.resources]
	for r, n := range d.requirementOf(process) {
		if n > capacity[r]-held[r] {
			return false
		}
	}
	return true
}
