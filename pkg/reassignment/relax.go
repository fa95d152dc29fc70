package reassignment

// relaxation lets a search go through assignments that exceed capacity, each
// unit at a price. Prices rise for a resource that is exceeded and fall for one
// that is not, so that a big process can push itself in and small ones out.
type relaxation struct {
	price []float64 // per unit of a resource
	// over counts the machines where a resource is exceeded.
	over []int32
	// tight counts the exceeded resources of a machine.
	tight []int16
}

func newRelaxation(s *state) *relaxation {
	x := &relaxation{price: make([]float64, s.resources), over: make([]int32, s.resources), tight: make([]int16, s.machines)}
	for r := range x.price {
		x.price[r] = float64(max(1, s.loadWeight[r]))
	}
	return x
}

// isFeasible says whether no capacity is exceeded.
func (x *relaxation) isFeasible() bool {
	for _, n := range x.over {
		if n > 0 {
			return false
		}
	}
	return true
}

// count notes what the machine exceeds, with sign −1 before it changes and +1
// after.
func (x *relaxation) count(s *state, machine, sign int32) {
	at := int(machine) * s.resources
	for r, free := range s.room[at : at+s.resources] {
		if free < 0 {
			x.over[r] += sign
			x.tight[machine] += int16(sign)
		}
	}
}

// adapt moves the prices; mayFall is false near the end.
func (x *relaxation) adapt(tolerated int32, mayFall bool) {
	rise, fall := TuneRise, 1/TuneRise
	for r, n := range x.over {
		if n > tolerated {
			x.price[r] *= rise
		} else if mayFall {
			x.price[r] *= fall
		}
	}
}

// penalty is what the machine pays as it is.
func (x *relaxation) penalty(s *state, machine int32) float64 {
	if x.tight[machine] == 0 {
		return 0
	}
	at := int(machine) * s.resources
	var sum float64
	for r, free := range s.room[at : at+s.resources] {
		if free < 0 {
			sum -= x.price[r] * float64(free)
		}
	}
	return sum
}

// penaltyWith is what the machine would pay after one process came and another
// went; −1 stands for none.
func (x *relaxation) penaltyWith(s *state, machine, comes, goes int32) float64 {
	at := int(machine) * s.resources
	room := s.room[at : at+s.resources : at+s.resources]
	needed, freed := s.nothing, s.nothing
	returns, leavesHome := false, false
	if comes >= 0 {
		needed, returns = s.requirementOf(comes), s.start[comes] == machine
	}
	if goes >= 0 {
		freed, leavesHome = s.requirementOf(goes), s.start[goes] == machine
	}
	needed, freed = needed[:len(room)], freed[:len(room)]
	var sum float64
	for r, free := range room {
		after := free
		if !returns || !s.transient[r] {
			after -= needed[r]
		}
		if !leavesHome || !s.transient[r] {
			after += freed[r]
		}
		if after < 0 {
			sum -= x.price[r] * float64(after)
		}
	}
	return sum
}
