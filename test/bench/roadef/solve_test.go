package roadef

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ai-storage/orchestrator/pkg/scheduling/annealing"
	"github.com/ai-storage/orchestrator/test/bench/reassignment"
)

// randomInstance makes a feasible instance: what does not fit or breaks a rule
// at the start is left out.
func randomInstance(seed uint64) (*reassignment.Problem, reassignment.Assignment) {
	random := rand.New(rand.NewPCG(seed, 7))
	const machines, services, resources = 12, 15, 3
	p := &reassignment.Problem{
		Balances:          []reassignment.Balance{{A: 0, B: 1, Target: 2, Weight: 3}},
		MachineMoveCosts:  reassignment.NewCostMatrix(machines),
		ProcessMoveWeight: 1, ServiceMoveWeight: 50, MachineMoveWeight: 2,
	}
	for r := range resources {
		p.Resources = append(p.Resources, reassignment.Resource{Transient: r == 1, LoadWeight: int64(1 + r)})
	}
	for m := range machines {
		capacity := []int64{int64(random.IntN(100)), 150, 120}
		p.Machines = append(p.Machines, reassignment.Machine{
			Neighborhood: m % 3, Location: m % 4, Capacity: capacity,
			Safety: []int64{capacity[0] / 2, int64(random.IntN(150)), int64(random.IntN(120))},
		})
		for to := range machines {
			if to != m {
				p.MachineMoveCosts.Set(m, to, int64(random.IntN(4)))
			}
		}
	}
	for s := range services {
		service := reassignment.Service{SpreadMin: random.IntN(3)}
		if s > 0 && random.IntN(3) == 0 {
			service.DependsOn = []int{random.IntN(s)}
		}
		p.Services = append(p.Services, service)
	}
	var start reassignment.Assignment
	for range 200 {
		p.Processes = append(p.Processes, reassignment.Process{
			Service: random.IntN(services), MoveCost: int64(random.IntN(5)),
			Requirement: []int64{int64(random.IntN(20)), int64(random.IntN(30)), int64(random.IntN(25))},
		})
		start = append(start, int32(random.IntN(machines)))
		if checkCapacity(p, start, start) != nil || checkConflict(p, start, start) != nil {
			p.Processes, start = p.Processes[:len(p.Processes)-1], start[:len(start)-1]
		}
	}
	// Rules that the start breaks are not asked for.
	for s := range p.Services {
		for checkSpread(p, start, start) != nil && p.Services[s].SpreadMin > 0 {
			p.Services[s].SpreadMin--
		}
	}
	for s := range p.Services {
		if checkDependency(p, start, start) != nil {
			p.Services[s].DependsOn = nil
		}
	}
	return p, start
}

func TestSolutionsKeepTheRulesAndAreNeverWorse(t *testing.T) {
	improved := 0
	for seed := range uint64(60) {
		p, start := randomInstance(seed)
		if err := Check(p, start, start); err != nil {
			t.Fatalf("seed %d: the start is infeasible: %v", seed, err)
		}
		r, err := reassignment.Solve(p, start, annealing.Options{Seed: seed, Budget: annealing.Budget{Iterations: 5_000}})
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(p, start, r.Assignment); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		if cost := Cost(p, start, r.Assignment); cost != r.Cost {
			t.Errorf("seed %d: the search says cost %d, the checker %d", seed, r.Cost, cost)
		}
		if initial := Cost(p, start, start); initial != r.InitialCost || r.Cost > initial {
			t.Errorf("seed %d: initial cost %d and cost %d, the checker says initial %d", seed, r.InitialCost, r.Cost, initial)
		}
		if r.Cost < r.InitialCost {
			improved++
		}
	}
	if improved < 50 {
		t.Errorf("only %d of 60 instances were improved", improved)
	}
}

func TestTheSameSeedGivesTheSameSolutionOnAnyNumberOfWorkers(t *testing.T) {
	p, start := randomInstance(3)
	var first reassignment.Assignment
	for _, workers := range []int{1, 2, 8} {
		r, err := reassignment.Solve(p, start, annealing.Options{Seed: 5, Workers: workers, Budget: annealing.Budget{Iterations: 8_000}})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = r.Assignment
		}
		if !slices.Equal(first, r.Assignment) {
			t.Errorf("%d workers give another solution than one", workers)
		}
	}
	r, err := reassignment.Solve(p, start, annealing.Options{Seed: 6, Budget: annealing.Budget{Iterations: 8_000}})
	if err != nil {
		t.Fatal(err)
	}
	if slices.Equal(first, r.Assignment) {
		t.Error("another seed gives the same solution: the seed is not used")
	}
}

const tiny = `2
1 10
0 20
2
0 0 10 10 5 5 0 3
0 1 10 10 5 5 3 0
2
1 0
0 1 0
3
0 4 4 1
0 3 3 2
1 2 2 3
1
0 1 2
7
1 10 100
`

func parseTiny(t *testing.T) *reassignment.Problem {
	t.Helper()
	p, err := ParseModel(strings.NewReader(tiny))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCostByHand(t *testing.T) {
	p := parseTiny(t)
	start, end := reassignment.Assignment{0, 1, 0}, reassignment.Assignment{0, 1, 1}
	// Machine 0 uses 4, machine 1 uses 5 of each: no load above safety. Balance:
	// 7·(2·6−6) + 7·(2·5−5) = 77. Moves: process 3·1, service 10·1, machine 100·3.
	if cost := Cost(p, start, end); cost != 77+3+10+300 {
		t.Errorf("cost %d, want 390", cost)
	}
	// At the start machine 0 uses 6, one above safety: 10 + 20. Balance:
	// 7·(2·4−4) + 7·(2·7−7) = 77.
	if cost := Cost(p, start, start); cost != 30+77 {
		t.Errorf("cost of the start %d, want 107", cost)
	}
}

func TestTheCheckerNoticesEveryRule(t *testing.T) {
	tests := []struct {
		name   string
		change func(*reassignment.Problem)
		end    reassignment.Assignment
		want   string
	}{
		{"nothing", func(*reassignment.Problem) {}, reassignment.Assignment{0, 1, 1}, ""},
		{"capacity", func(p *reassignment.Problem) { p.Machines[1].Capacity[1] = 4 }, reassignment.Assignment{0, 1, 1}, "resource 1"},
		{"transient capacity", func(p *reassignment.Problem) { p.Machines[0].Capacity[0] = 8 }, reassignment.Assignment{1, 0, 0}, "resource 0"},
		{"conflict", func(*reassignment.Problem) {}, reassignment.Assignment{1, 1, 0}, "both on machine 1"},
		{"spread", func(p *reassignment.Problem) { p.Services[1].SpreadMin = 2 }, reassignment.Assignment{0, 1, 1}, "1 locations, wants 2"},
		{"dependency", func(p *reassignment.Problem) { p.Machines[1].Neighborhood = 1; p.Processes[1].Service = 1 }, reassignment.Assignment{0, 1, 0}, "depends"},
		{"unknown machine", func(*reassignment.Problem) {}, reassignment.Assignment{0, 1, 2}, "machine 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := parseTiny(t)
			tt.change(p)
			err := Check(p, reassignment.Assignment{0, 1, 0}, tt.end)
			if tt.want == "" {
				if err != nil {
					t.Errorf("unexpected: %v", err)
				}
				return
			}
			if !errors.Is(err, ErrInfeasible) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one about %q", err, tt.want)
			}
		})
	}
}

func TestBrokenFilesAreNamed(t *testing.T) {
	for name, text := range map[string]string{
		"cut off":        tiny[:40],
		"not a number":   strings.Replace(tiny, "10 10 5", "10 x 5", 1),
		"trailing":       tiny + "5",
		"unknown number": strings.Replace(tiny, "0 1 0\n3", "0 1 9\n3", 1),
	} {
		if _, err := ParseModel(strings.NewReader(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	p := parseTiny(t)
	for _, text := range []string{"0 1", "0 1 2", "0 1 0 0"} {
		if _, err := ParseAssignment(strings.NewReader(text), p); err == nil {
			t.Errorf("assignment %q: no error", text)
		}
	}
}
