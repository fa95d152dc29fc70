package roadef

import (
	"errors"
	"fmt"

	"github.com/ai-storage/orchestrator/test/bench/reassignment"
)

// ErrInfeasible wraps every broken hard rule.
var ErrInfeasible = errors.New("infeasible")

func infeasible(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInfeasible, fmt.Sprintf(format, args...))
}

// Check reports the first hard rule that the solution breaks.
func Check(p *reassignment.Problem, start, end reassignment.Assignment) error {
	if err := p.ValidateAssignment(end); err != nil {
		return infeasible("%v", err)
	}
	for _, rule := range []func(*reassignment.Problem, reassignment.Assignment, reassignment.Assignment) error{
		checkCapacity, checkConflict, checkSpread, checkDependency,
	} {
		if err := rule(p, start, end); err != nil {
			return err
		}
	}
	return nil
}

func checkCapacity(p *reassignment.Problem, start, end reassignment.Assignment) error {
	for r, resource := range p.Resources {
		held := make([]int64, len(p.Machines))
		for i, process := range p.Processes {
			held[end[i]] += process.Requirement[r]
			if resource.Transient && start[i] != end[i] {
				held[start[i]] += process.Requirement[r]
			}
		}
		for m, h := range held {
			if h > p.Machines[m].Capacity[r] {
				return infeasible("machine %d: %d of resource %d, capacity %d", m, h, r, p.Machines[m].Capacity[r])
			}
		}
	}
	return nil
}

func checkConflict(p *reassignment.Problem, _, end reassignment.Assignment) error {
	seen := map[[2]int]int{}
	for i, process := range p.Processes {
		key := [2]int{process.Service, int(end[i])}
		if other, taken := seen[key]; taken {
			return infeasible("processes %d and %d of service %d are both on machine %d", other, i, process.Service, end[i])
		}
		seen[key] = i
	}
	return nil
}

func checkSpread(p *reassignment.Problem, _, end reassignment.Assignment) error {
	locations := make([]map[int]bool, len(p.Services))
	for i, process := range p.Processes {
		if locations[process.Service] == nil {
			locations[process.Service] = map[int]bool{}
		}
		locations[process.Service][p.Machines[end[i]].Location] = true
	}
	for s, service := range p.Services {
		if len(locations[s]) < service.SpreadMin {
			return infeasible("service %d is in %d locations, wants %d", s, len(locations[s]), service.SpreadMin)
		}
	}
	return nil
}

func checkDependency(p *reassignment.Problem, _, end reassignment.Assignment) error {
	present := map[[2]int]bool{}
	for i, process := range p.Processes {
		present[[2]int{process.Service, p.Machines[end[i]].Neighborhood}] = true
	}
	for i, process := range p.Processes {
		neighborhood := p.Machines[end[i]].Neighborhood
		for _, d := range p.Services[process.Service].DependsOn {
			if !present[[2]int{d, neighborhood}] {
				return infeasible("process %d is in neighborhood %d without service %d, on which its own depends", i, neighborhood, d)
			}
		}
	}
	return nil
}

// Cost is the challenge's objective of a solution.
func Cost(p *reassignment.Problem, start, end reassignment.Assignment) int64 {
	usage := make([][]int64, len(p.Machines))
	for m := range usage {
		usage[m] = make([]int64, len(p.Resources))
	}
	movedOf := make([]int64, len(p.Services))
	var cost, mostMoved int64
	for i, process := range p.Processes {
		for r, n := range process.Requirement {
			usage[end[i]][r] += n
		}
		if p.MachineMoveCosts != nil {
			cost += p.MachineMoveWeight * p.MachineMoveCosts.At(int(start[i]), int(end[i]))
		}
		if start[i] != end[i] {
			cost += p.ProcessMoveWeight * process.MoveCost
			movedOf[process.Service]++
			mostMoved = max(mostMoved, movedOf[process.Service])
		}
	}
	cost += p.ServiceMoveWeight * mostMoved
	for m, machine := range p.Machines {
		for r, resource := range p.Resources {
			cost += resource.LoadWeight * max(0, usage[m][r]-machine.Safety[r])
		}
		for _, b := range p.Balances {
			freeA, freeB := machine.Capacity[b.A]-usage[m][b.A], machine.Capacity[b.B]-usage[m][b.B]
			cost += b.Weight * max(0, b.Target*freeA-freeB)
		}
	}
	return cost
}
