package main

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func nodeNames(count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("sim-%02d", i+1)
	}
	return names
}

func startingLoads(s *scenario, sample int) []float64 {
	var pods []placed
	for _, r := range s.replicas {
		pods = append(pods, placed{r.start, r.milliCPUAt(sample)})
	}
	return loads(s.nodes, pods)
}

func TestScenarioIsSkewedAndCanBeBalanced(t *testing.T) {
	data := generateDataset()
	for seed := uint64(1); seed <= 3; seed++ {
		s, err := newScenario(data, nodeNames(60), 12, seed)
		if err != nil {
			t.Fatal(err)
		}
		shares := startingLoads(s, 0)
		overutilized := 0
		for _, share := range shares {
			if share > 0.7 {
				overutilized++
			}
		}
		if overutilized < 8 || overutilized > 20 {
			t.Errorf("seed %d: %d of 60 nodes are above 70%%, want about 15", seed, overutilized)
		}
		if m := mean(shares); m < 0.3 || m > 0.6 {
			t.Errorf("seed %d: the mean load is %.2f: there must be something to move and room for it", seed, m)
		}
		if d := deviation(shares); d < 0.15 {
			t.Errorf("seed %d: the deviation is %.2f at the start", seed, d)
		}
	}
}

func TestScenarioKeepsToTheRequests(t *testing.T) {
	s, err := newScenario(generateDataset(), nodeNames(40), 12, 7)
	if err != nil {
		t.Fatal(err)
	}
	requested := map[string]amounts{}
	slots := map[slot]bool{}
	for _, r := range s.replicas {
		requested[r.start] = requested[r.start].plus(r.request)
		if slots[r.slot] {
			t.Errorf("two replicas in %v", r.slot)
		}
		slots[r.slot] = true
	}
	for _, n := range s.nodes {
		if !requested[n.name].fitsIn(n.shape.size) {
			t.Errorf("node %s of %+v has pods that request %+v", n.name, n.shape.size, requested[n.name])
		}
	}
}

func TestScenarioIsAMatterOfItsSeed(t *testing.T) {
	draw := func(seed uint64) *scenario {
		s, err := newScenario(generateDataset(), nodeNames(20), 5, seed)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	compare := cmp.AllowUnexported(scenario{}, node{}, shape{}, amounts{}, replica{})
	if diff := cmp.Diff(draw(3), draw(3), compare); diff != "" {
		t.Errorf("two scenarios of one seed differ:\n%s", diff)
	}
	if cmp.Equal(draw(3).replicas, draw(4).replicas, compare) {
		t.Error("two seeds give the same scenario")
	}
}

func TestScenarioRefuses(t *testing.T) {
	data := generateDataset()
	idle := *data
	idle.traces = []trace{make(trace, 288)}
	small := *data
	small.nodes = []shape{{"n", amounts{4000, 4096, 0}}}
	huge := *data
	huge.pods = []shape{{"p", amounts{100_000, 1, 0}}}
	for name, test := range map[string]struct {
		data    *dataset
		samples int
	}{
		"idle traces": {&idle, 10}, "traces too short": {data, 289}, "small nodes": {&small, 10}, "huge pods": {&huge, 10},
	} {
		if _, err := newScenario(test.data, nodeNames(10), test.samples, 1); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestUseOverTime(t *testing.T) {
	r := &replica{milliCPU: []float64{10, 20, 30}}
	for sample, want := range map[int]float64{-1: 10, 0: 10, 2: 30, 9: 30} {
		if got := r.milliCPUAt(sample); got != want {
			t.Errorf("sample %d: %g, want %g", sample, got, want)
		}
	}
}

func TestDeviation(t *testing.T) {
	for _, test := range []struct {
		figures []float64
		want    float64
	}{{nil, 0}, {[]float64{0.4}, 0}, {[]float64{0.5, 0.5, 0.5}, 0}, {[]float64{2, 4, 4, 4, 5, 5, 7, 9}, 2}} {
		if got := deviation(test.figures); math.Abs(got-test.want) > 1e-12 {
			t.Errorf("deviation of %v is %g, want %g", test.figures, got, test.want)
		}
	}
}

func TestLoads(t *testing.T) {
	nodes := []*node{{name: "a", shape: shape{size: amounts{milliCPU: 4000}}}, {name: "b", shape: shape{size: amounts{milliCPU: 8000}}}}
	got := loads(nodes, []placed{{"a", 1000}, {"b", 2000}, {"a", 1000}, {"", 500}})
	if diff := cmp.Diff([]float64{0.5, 0.25}, got); diff != "" {
		t.Errorf("loads (-want +got):\n%s", diff)
	}
}
