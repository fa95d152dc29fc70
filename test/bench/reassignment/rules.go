package reassignment

// fits says whether the machine has room for the process, counting what moved
// processes still hold.
func (s *state) fits(process, to int32) bool {
	at := int(to) * s.resources
	room := s.room[at : at+s.resources : at+s.resources]
	need := s.requirementOf(process)[:len(room)]
	if to == s.start[process] {
		for r, n := range need {
			// Its transient resources were never given away.
			if n > room[r] && !s.transient[r] {
				return false
			}
		}
		return true
	}
	for r, n := range need {
		if n > room[r] {
			return false
		}
	}
	return true
}

// canShift checks all hard rules for a move.
func (s *state) canShift(process, to int32) bool {
	return s.fits(process, to) && s.mayShift(process, to)
}

// mayShift checks conflict, spread and dependency.
func (s *state) mayShift(process, to int32) bool {
	service := s.service[process]
	if !s.single[service] && s.onMachine.get(pair(service, to)) > 0 {
		return false
	}
	return s.keepsSpread(service, s.at[process], to) && s.keepsDependencies(service, s.at[process], to)
}

func (s *state) keepsSpread(service, from, to int32) bool {
	least := s.problem.Services[service].SpreadMin
	if least < 2 || s.location[from] == s.location[to] || int(s.locations[service]) > least {
		return true
	}
	return s.inLocation.get(pair(service, s.location[from])) > 1 || s.inLocation.get(pair(service, s.location[to])) == 0
}

func (s *state) keepsDependencies(service, from, to int32) bool {
	source, destination := s.neighborhood[from], s.neighborhood[to]
	if source == destination {
		return true
	}
	for _, d := range s.dependsOn[service] {
		if s.inNeighborhood.get(pair(d, destination)) == 0 {
			return false
		}
	}
	if len(s.dependents[service]) == 0 || s.inNeighborhood.get(pair(service, source)) > 1 {
		return true
	}
	for _, d := range s.dependents[service] {
		if s.inNeighborhood.get(pair(d, source)) > 0 {
			return false
		}
	}
	return true
}

// maySwap checks conflict, spread and dependency of an exchange.
func (s *state) maySwap(p, q int32) bool {
	a, b := s.at[p], s.at[q]
	if s.service[p] == s.service[q] {
		// The service is then where it was.
		return true
	}
	// Each is judged as if the other stayed. That is exact unless one's
	// service needs the other's.
	if s.neighborhood[a] != s.neighborhood[b] && s.areRelated(s.service[p], s.service[q]) {
		return false
	}
	return s.mayShift(p, b) && s.mayShift(q, a)
}

// fitsInstead says whether a process fits on the machine that another leaves.
func (s *state) fitsInstead(arrives, leaves, machine int32) bool {
	at := int(machine) * s.resources
	room := s.room[at : at+s.resources : at+s.resources]
	needed, freed := s.requirementOf(arrives)[:len(room)], s.requirementOf(leaves)[:len(room)]
	returns, leavesHome := s.start[arrives] == machine, s.start[leaves] == machine
	if !returns && !leavesHome {
		for r, free := range room {
			if needed[r]-freed[r] > free {
				return false
			}
		}
		return true
	}
	for r, free := range room {
		n, f := needed[r], freed[r]
		if s.transient[r] && returns {
			n = 0
		}
		if s.transient[r] && leavesHome {
			f = 0
		}
		// What is over capacity from the start may stay so, but not grow.
		if n > 0 && n-f > free {
			return false
		}
	}
	return true
}

func (s *state) areRelated(a, b int32) bool {
	for _, d := range s.dependsOn[a] {
		if d == b {
			return true
		}
	}
	for _, d := range s.dependents[a] {
		if d == b {
			return true
		}
	}
	return false
}
