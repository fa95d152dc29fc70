package vmr

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ai-storage/orchestrator/pkg/scheduling/annealing"
	"github.com/ai-storage/orchestrator/pkg/scheduling/repack"
)

const shape = 16

func randomSnapshot(seed uint64) *Snapshot {
	random := rand.New(rand.NewPCG(seed, 3))
	s := &Snapshot{}
	for c := range 2 {
		cluster := Cluster{Name: fmt.Sprint("cluster", c)}
		for h := range 8 {
			host := Host{ID: fmt.Sprintf("pm_%d_%d", c, h), Status: "ACTIVE", Nodes: []Node{{0, 40, 1000}, {1, 40, 1000}}}
			if h == 7 {
				host.Status = "LOCKED"
			}
			for range random.IntN(12) {
				cluster.Instances = append(cluster.Instances, randomInstance(random, &host, len(cluster.Instances)))
				if host.Nodes[0].FreeCPU < 0 || host.Nodes[1].FreeCPU < 0 {
					last := cluster.Instances[len(cluster.Instances)-1]
					for _, p := range last.Parts {
						host.Nodes[p.Node].FreeCPU += p.CPU
						host.Nodes[p.Node].FreeMemory += p.Memory
					}
					cluster.Instances = cluster.Instances[:len(cluster.Instances)-1]
				}
			}
			cluster.Hosts = append(cluster.Hosts, host)
		}
		s.Clusters = append(s.Clusters, cluster)
	}
	return s
}

func randomInstance(random *rand.Rand, host *Host, number int) Instance {
	v := Instance{ID: fmt.Sprint("vm_", number), Type: "one", Host: host.ID, AllowMigration: random.IntN(10) > 0}
	nodes := []int{random.IntN(2)}
	if random.IntN(4) == 0 {
		v.Type, nodes = "two", []int{0, 1}
	}
	cpu := float64(int(1) << random.IntN(5))
	for _, n := range nodes {
		v.Parts = append(v.Parts, Part{n, cpu, 20})
		host.Nodes[n].FreeCPU -= cpu
		host.Nodes[n].FreeMemory -= 20
	}
	return v
}

func repacked(t *testing.T, s *Snapshot, maxMoves int, o annealing.Options) ([]Move, repack.Repacking) {
	t.Helper()
	packing, index := s.Packing(shape)
	r, err := repack.Search(packing, maxMoves, o)
	if err != nil {
		t.Fatal(err)
	}
	return index.MovesOf(r.Moves), r
}

func TestEveryPrefixOfARepackingIsFeasible(t *testing.T) {
	improved := 0
	for seed := range uint64(40) {
		s := randomSnapshot(seed)
		maxMoves := int(1 + seed%8)
		moves, r := repacked(t, s, maxMoves, annealing.Options{Seed: seed, Budget: annealing.Budget{Iterations: 4000}})
		if len(moves) > maxMoves {
			t.Errorf("seed %d: %d moves, at most %d are allowed", seed, len(moves), maxMoves)
		}
		after, err := s.Replay(moves)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		before, now := s.FragmentRate(shape), after.FragmentRate(shape)
		if now > before {
			t.Errorf("seed %d: fragment rate rose from %f to %f", seed, before, now)
		}
		if r.InitialCost > 0 {
			if promised := before * float64(r.Cost) / float64(r.InitialCost); math.Abs(promised-now) > 1e-9 {
				t.Errorf("seed %d: the search promises %f, the replay gives %f", seed, promised, now)
			}
		}
		if now < before {
			improved++
		}
	}
	if improved < 30 {
		t.Errorf("only %d of 40 snapshots were improved", improved)
	}
}

func TestARepackingDoesNotDependOnTheNumberOfWorkers(t *testing.T) {
	s := randomSnapshot(1)
	var first []Move
	for _, workers := range []int{1, 2, 8} {
		moves, _ := repacked(t, s, 6, annealing.Options{Seed: 2, Workers: workers, Budget: annealing.Budget{Iterations: 5000}})
		if first == nil {
			first = moves
		}
		if !slices.Equal(first, moves) {
			t.Errorf("%d workers: %v, one worker: %v", workers, moves, first)
		}
	}
	if len(first) == 0 {
		t.Error("nothing was moved, so nothing was compared")
	}
}

func TestReplayRefuses(t *testing.T) {
	s := &Snapshot{Clusters: []Cluster{{
		Name: "c",
		Hosts: []Host{
			{"a", "ACTIVE", []Node{{0, 10, 100}, {1, 10, 100}}},
			{"b", "ACTIVE", []Node{{0, 4, 100}, {1, 10, 5}}},
			{"closed", "LOCKED", []Node{{0, 99, 999}, {1, 99, 999}}},
		},
		Instances: []Instance{
			{"one", "t", "a", true, []Part{{0, 4, 10}}},
			{"fixed", "t", "a", false, []Part{{0, 1, 1}}},
			{"both", "t", "a", true, []Part{{0, 2, 2}, {1, 2, 2}}},
			{"big", "t", "a", true, []Part{{0, 5, 1}}},
		},
	}}}
	tests := []struct {
		move Move
		want string
	}{
		{Move{"one", "b", 0, "c"}, ""},
		{Move{"both", "b", -1, "c"}, ""},
		{Move{"one", "b", 1, "c"}, "5 MB free"},
		{Move{"big", "b", 0, "c"}, "4 CPU"},
		{Move{"one", "closed", 0, "c"}, "LOCKED"},
		{Move{"fixed", "b", 0, "c"}, "not be migrated"},
		{Move{"both", "b", 0, "c"}, "on 2 nodes"},
		{Move{"one", "b", -1, "c"}, "on 1 nodes"},
		{Move{"one", "b", 0, "other"}, "no such instance"},
		{Move{"one", "b", 7, "c"}, "no NUMA node"},
	}
	for _, tt := range tests {
		after, err := s.Replay([]Move{tt.move})
		if tt.want == "" {
			if err != nil {
				t.Errorf("%v: %v", tt.move, err)
			} else if after.Clusters[0].Hosts[1].Nodes[0].FreeCPU == 4 || s.Clusters[0].Hosts[1].Nodes[0].FreeCPU != 4 {
				t.Errorf("%v: not carried out on a copy", tt.move)
			}
			continue
		}
		if !errors.Is(err, ErrInfeasible) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: error %v, want one about %q", tt.move, err, tt.want)
		}
	}
	// Room that is only free afterwards does not count: 4 + 4 of 4.
	twice := []Move{{"one", "b", 0, "c"}, {"both", "b", -1, "c"}}
	if _, err := s.Replay(twice); !errors.Is(err, ErrInfeasible) {
		t.Errorf("two moves into the same room: error %v", err)
	}
	// free 10+4 (4 back on a) … 10 mod 16 + 10 + 4 + 10 + 3 + 3 over 232.
	if rate, want := s.FragmentRate(shape), 40.0/232; math.Abs(rate-want) > 1e-12 {
		t.Errorf("fragment rate %f, want %f", rate, want)
	}
}

func TestMovesAreReadBack(t *testing.T) {
	moves := []Move{{"vm_1", "pm_2", -1, "c"}, {"vm_3", "pm_4", 1, "d"}}
	var text bytes.Buffer
	if err := WriteMoves(&text, moves); err != nil {
		t.Fatal(err)
	}
	got, err := ReadMoves(&text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(moves, got); diff != "" {
		t.Errorf("moves (-written +read):\n%s", diff)
	}
	for _, line := range []string{"a,b,c", "a,b,x,d"} {
		if _, err := ReadMoves(strings.NewReader(line)); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: error %v", line, err)
		}
	}
}
