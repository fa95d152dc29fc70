package reassignment

// layout is the problem as flat arrays, shared by all states of one search.
type layout struct {
	problem   *Problem
	start     Assignment
	resources int
	machines  int

	requirement []int64 // process × resource
	capacity    []int64 // machine × resource
	safety      []int64 // machine × resource
	loadWeight  []int64
	transient   []bool
	balances    []Balance

	service      []int32 // of a process
	neighborhood []int32 // of a machine
	location     []int32 // of a machine
	moveCost     []int64 // of a process, weighted
	dependsOn    [][]int32
	dependents   [][]int32
	single       []bool  // services of one process: they cannot conflict
	nothing      []int64 // a vector of zeros, one per resource
}

func newLayout(p *Problem, start Assignment) *layout {
	l := &layout{
		problem: p, start: start, resources: len(p.Resources), machines: len(p.Machines), balances: p.Balances,
		dependsOn: make([][]int32, len(p.Services)), dependents: make([][]int32, len(p.Services)),
		single: make([]bool, len(p.Services)), nothing: make([]int64, len(p.Resources)),
	}
	for _, r := range p.Resources {
		l.loadWeight = append(l.loadWeight, r.LoadWeight)
		l.transient = append(l.transient, r.Transient)
	}
	for _, m := range p.Machines {
		l.capacity = append(l.capacity, m.Capacity...)
		l.safety = append(l.safety, m.Safety...)
		l.neighborhood = append(l.neighborhood, int32(m.Neighborhood))
		l.location = append(l.location, int32(m.Location))
	}
	sizes := make([]int, len(p.Services))
	for _, q := range p.Processes {
		l.requirement = append(l.requirement, q.Requirement...)
		l.service = append(l.service, int32(q.Service))
		l.moveCost = append(l.moveCost, q.MoveCost*p.ProcessMoveWeight)
		sizes[q.Service]++
	}
	for s, service := range p.Services {
		l.single[s] = sizes[s] == 1
		for _, d := range service.DependsOn {
			if d != s {
				l.dependsOn[s] = append(l.dependsOn[s], int32(d))
				l.dependents[d] = append(l.dependents[d], int32(s))
			}
		}
	}
	return l
}

func (l *layout) requirementOf(process int32) []int64 {
	at := int(process) * l.resources
	return l.requirement[at : at+l.resources : at+l.resources]
}

// moveCostAt is what it costs that the process ends on the machine.
func (l *layout) moveCostAt(process, machine int32) int64 {
	from := l.start[process]
	var cost int64
	if l.problem.MachineMoveCosts != nil {
		cost = l.problem.MachineMoveWeight * l.problem.MachineMoveCosts.At(int(from), int(machine))
	}
	if from != machine {
		cost += l.moveCost[process]
	}
	return cost
}

// state is an assignment with everything that makes the change of one process
// cost O(resources + balances).
type state struct {
	*layout
	at    Assignment
	usage []int64 // machine × resource
	// room is what is left of the capacity; transient resources are still
	// held by the processes that started here and went.
	room        []int64
	machineCost []int64

	onMachine      *counter // service, machine
	inLocation     *counter // service, location
	inNeighborhood *counter // service, neighborhood
	locations      []int32  // distinct ones, of a service

	on   [][]int32 // processes of a machine
	slot []int32   // where a process is in on

	movedOf    []int32 // moved processes of a service
	havingMove []int32 // number of services with so many moved processes
	mostMoved  int32
	cost       int64
}

func newState(l *layout) *state {
	services, processes := len(l.problem.Services), len(l.service)
	s := &state{
		layout: l, at: append(Assignment(nil), l.start...),
		usage: make([]int64, len(l.capacity)), room: append([]int64(nil), l.capacity...),
		machineCost: make([]int64, l.machines),
		onMachine:   newCounter(processes), inLocation: newCounter(processes), inNeighborhood: newCounter(processes),
		locations: make([]int32, services), movedOf: make([]int32, services),
		havingMove: make([]int32, processes+2),
		on:         make([][]int32, l.machines), slot: make([]int32, processes),
	}
	s.havingMove[0] = int32(services)
	for p := range int32(processes) {
		m := s.at[p]
		for r, need := range l.requirementOf(p) {
			s.usage[int(m)*l.resources+r] += need
			s.room[int(m)*l.resources+r] -= need
		}
		s.countArrival(l.service[p], m)
		s.slot[p] = int32(len(s.on[m]))
		s.on[m] = append(s.on[m], p)
		s.cost += l.moveCostAt(p, m)
	}
	for m := range int32(l.machines) {
		s.machineCost[m] = s.costOf(m)
		s.cost += s.machineCost[m]
	}
	return s
}

func (s *state) countArrival(service, machine int32) {
	s.onMachine.increment(pair(service, machine))
	s.inNeighborhood.increment(pair(service, s.neighborhood[machine]))
	place := pair(service, s.location[machine])
	if s.inLocation.get(place) == 0 {
		s.locations[service]++
	}
	s.inLocation.increment(place)
}

func (s *state) countDeparture(service, machine int32) {
	s.onMachine.decrement(pair(service, machine))
	s.inNeighborhood.decrement(pair(service, s.neighborhood[machine]))
	place := pair(service, s.location[machine])
	s.inLocation.decrement(place)
	if s.inLocation.get(place) == 0 {
		s.locations[service]--
	}
}

// apply moves the process. The rules are not looked at: the caller asked before.
func (s *state) apply(process, to int32) {
	s.lift(process)
	s.place(process, to)
}

// lift takes a process off its machine. Until it is placed again it is nowhere.
func (s *state) lift(process int32) {
	from, home := s.at[process], s.start[process]
	source := int(from) * s.resources
	for r, n := range s.requirementOf(process) {
		s.usage[source+r] -= n
		if !s.transient[r] || from != home {
			s.room[source+r] += n
		}
	}
	left := s.on[from]
	last := left[len(left)-1]
	left[s.slot[process]], s.slot[last] = last, s.slot[process]
	s.on[from] = left[:len(left)-1]
	s.countDeparture(s.service[process], from)
	if from != home {
		s.countMove(s.service[process], -1)
	}
	s.cost -= s.machineCost[from] + s.moveCostAt(process, from)
	s.machineCost[from] = s.costOf(from)
	s.cost += s.machineCost[from]
}

// place puts a lifted process on a machine.
func (s *state) place(process, to int32) {
	home := s.start[process]
	destination := int(to) * s.resources
	for r, n := range s.requirementOf(process) {
		s.usage[destination+r] += n
		if !s.transient[r] || to != home {
			s.room[destination+r] -= n
		}
	}
	s.at[process] = to
	s.slot[process] = int32(len(s.on[to]))
	s.on[to] = append(s.on[to], process)
	s.countArrival(s.service[process], to)
	if to != home {
		s.countMove(s.service[process], 1)
	}
	s.cost += s.moveCostAt(process, to) - s.machineCost[to]
	s.machineCost[to] = s.costOf(to)
	s.cost += s.machineCost[to]
}

// movedChange is +1 for a process that leaves home, −1 for one that returns.
func movedChange(from, to, home int32) int32 {
	var change int32
	if to != home {
		change++
	}
	if from != home {
		change--
	}
	return change
}

func (s *state) countMove(service, change int32) {
	before := s.mostMoved
	s.havingMove[s.movedOf[service]]--
	s.movedOf[service] += change
	s.havingMove[s.movedOf[service]]++
	for s.mostMoved > 0 && s.havingMove[s.mostMoved] == 0 {
		s.mostMoved--
	}
	s.mostMoved = max(s.mostMoved, s.movedOf[service])
	s.cost += s.problem.ServiceMoveWeight * int64(s.mostMoved-before)
}
