package reassignment

import (
	"errors"
	"fmt"
)

// Problem is the model of the challenge. All quantities are in the units of
// the caller; only that one resource has one unit matters. A Problem is not
// changed by a search and may be shared.
type Problem struct {
	Resources []Resource
	Machines  []Machine
	Services  []Service
	Processes []Process
	Balances  []Balance
	// MachineMoveCosts is what a move between two machines costs; nil is free.
	MachineMoveCosts *CostMatrix

	ProcessMoveWeight int64
	ServiceMoveWeight int64
	MachineMoveWeight int64
}

// Resource is one dimension of what machines offer.
type Resource struct {
	// Transient resources are held on both ends by a process that moves.
	Transient bool
	// LoadWeight is the cost of one unit above the safety capacity.
	LoadWeight int64
}

// Machine offers room.
type Machine struct {
	// Neighborhood matters for dependencies, Location for spread.
	Neighborhood, Location int
	// Capacity must never be exceeded; above Safety each unit costs.
	Capacity, Safety []int64
}

// Service is a group of processes that must be on distinct machines.
type Service struct {
	// SpreadMin is the least number of locations that the service touches.
	SpreadMin int
	// DependsOn are services that must have a process in each neighborhood
	// where this one has.
	DependsOn []int
}

// Process is what moves.
type Process struct {
	Service     int
	Requirement []int64
	MoveCost    int64
}

// Balance charges a machine for free room of A that has too little of B beside
// it: Weight·max(0, Target·freeA − freeB).
type Balance struct {
	A, B           int
	Target, Weight int64
}

// Assignment says on which machine each process is.
type Assignment []int32

// ErrInvalid wraps every complaint about a problem or an assignment.
var ErrInvalid = errors.New("invalid problem")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// Validate reports the first reference out of range or vector of the wrong
// length. Solve expects a valid problem.
func (p *Problem) Validate() error {
	resources := len(p.Resources)
	for i, m := range p.Machines {
		switch {
		case len(m.Capacity) != resources:
			return invalid("machine %d: %d capacities, want %d", i, len(m.Capacity), resources)
		case len(m.Safety) != resources:
			return invalid("machine %d: %d safety capacities, want %d", i, len(m.Safety), resources)
		case m.Neighborhood < 0 || m.Location < 0:
			return invalid("machine %d: negative neighborhood or location", i)
		}
	}
	for i, s := range p.Services {
		for _, d := range s.DependsOn {
			if d < 0 || d >= len(p.Services) {
				return invalid("service %d: depends on unknown service %d", i, d)
			}
		}
	}
	for i, q := range p.Processes {
		if q.Service < 0 || q.Service >= len(p.Services) {
			return invalid("process %d: unknown service %d", i, q.Service)
		}
		if len(q.Requirement) != resources {
			return invalid("process %d: %d requirements, want %d", i, len(q.Requirement), resources)
		}
	}
	for i, b := range p.Balances {
		if b.A < 0 || b.A >= resources || b.B < 0 || b.B >= resources {
			return invalid("balance %d: unknown resource", i)
		}
	}
	if p.MachineMoveCosts != nil && p.MachineMoveCosts.size != len(p.Machines) {
		return invalid("machine-move costs for %d machines, want %d", p.MachineMoveCosts.size, len(p.Machines))
	}
	return nil
}

// ValidateAssignment reports a wrong length or an unknown machine.
func (p *Problem) ValidateAssignment(a Assignment) error {
	if len(a) != len(p.Processes) {
		return invalid("assignment of %d processes, want %d", len(a), len(p.Processes))
	}
	for i, m := range a {
		if m < 0 || int(m) >= len(p.Machines) {
			return invalid("process %d: unknown machine %d", i, m)
		}
	}
	return nil
}
