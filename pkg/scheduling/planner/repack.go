package planner

import (
	"context"
	"fmt"
	"math"

	"github.com/ai-storage/orchestrator/pkg/scheduling/annealing"
	"github.com/ai-storage/orchestrator/pkg/scheduling/repack"
)

const (
	// repackEffort are the proposals for each pod in each chain of the repacking
	// search, up to repackIterations, which take about a tenth of a second.
	repackEffort, repackIterations = 300, 30_000
	// memoryUnit is the grain of memory in a packing, in bytes, and packingScale
	// what a whole node of one resource weighs. Both keep sums within 64 bits.
	memoryUnit   = 1 << 20
	packingScale = 1e9
)

// repack looks for many moves at once that let free room hold whole shapes. In
// fragmented clusters the first moves of such a set often gain nothing, so that
// no search from move to move begins with them.
func (s *search) repack(ctx context.Context) error {
	left := s.options.MaxMoves - len(s.moved)
	if s.weights.Defragment <= 0 || len(s.shapes) == 0 || left <= 0 {
		return nil
	}
	packing, pods := s.packing()
	if len(packing.Items) == 0 || len(packing.Shapes) == 0 {
		return nil
	}
	found, err := repack.Search(packing, left, annealing.Options{
		Seed: s.options.Seed, Budget: annealing.Budget{Iterations: min(repackIterations, repackEffort*int64(len(pods)))},
	})
	if err != nil {
		return fmt.Errorf("repacking: %w", err)
	}
	kept, before, packed, price := s.save(), s.value(), s.packed, s.price
	for _, m := range lastMoves(found.Moves) {
		p, to := pods[m.Item], &s.nodes[m.Host]
		if !s.isFull() && s.takes(to, p) && s.isOrderly(p, to) {
			s.apply(p, to.id, defragmentation)
		}
	}
	s.prune()
	if s.value() >= before-gainEpsilon || packed-s.packed-s.moveCostFactor*(s.price-price) <= gainEpsilon {
		s.restore(kept)
		return nil
	}
	ok, err := s.confirm(ctx)
	if err == nil && !ok {
		s.restore(kept)
	}
	return err
}

// lastMoves leaves out the steps of items that step aside for a while and move
// on: a pod moves once.
func lastMoves(moves []repack.ItemMove) []repack.ItemMove {
	last := make(map[int]int, len(moves))
	for i, m := range moves {
		last[m.Item] = i
	}
	var kept []repack.ItemMove
	for i, m := range moves {
		if last[m.Item] == i {
			kept = append(kept, m)
		}
	}
	return kept
}

// packing is the cluster as it is with the plan so far: hosts are all nodes, in
// the same order, items the pods that may still move. NUMA nodes are part of it
// where all usable nodes have equally many. What it cannot express, such as
// load, is left to the search to refuse.
func (s *search) packing() (*repack.Packing, []*pod) {
	zones := s.commonZones()
	known := s.knownInZones(zones)
	p := &repack.Packing{Shapes: s.packingShapes()}
	for i := range s.nodes {
		n := &s.nodes[i]
		host := repack.Host{Closed: !n.usable || !n.Schedulable}
		for z := range max(1, zones) {
			switch {
			case zones == 0:
				host.Free = append(host.Free, s.packingRow(n.free, known, 1, false))
			case n.usable:
				host.Free = append(host.Free, s.packingRow(n.zones[z], known, 1, false))
			default:
				host.Free = append(host.Free, make([]int64, s.index.size()))
			}
		}
		p.Hosts = append(p.Hosts, host)
	}
	var pods []*pod
	for i := range s.pods {
		q := &s.pods[i]
		if !q.movable || q.at != q.home || p.Hosts[q.home].Closed {
			continue
		}
		item := repack.Item{Host: int(q.home), Node: repack.Split}
		parts := int64(max(1, zones))
		if zones > 0 && len(q.Zones) == 1 && q.Zones[0] >= 0 && q.Zones[0] < zones {
			item.Node, parts = q.Zones[0], 1
		}
		item.Requirement = s.packingRow(q.requests, known, parts, true)
		p.Items, pods = append(p.Items, item), append(pods, q)
	}
	return p, pods
}

// commonZones is the number of NUMA nodes of every usable node; 0 where they
// differ.
func (s *search) commonZones() int {
	zones := -1
	for i := range s.nodes {
		if n := &s.nodes[i]; n.usable {
			if zones >= 0 && zones != len(n.zones) {
				return 0
			}
			zones = len(n.zones)
		}
	}
	return max(0, zones)
}

// knownInZones returns which resources NUMA nodes report; without any, all.
func (s *search) knownInZones(zones int) []bool {
	known := make([]bool, s.index.size())
	for r := range known {
		known[r] = zones == 0 || r < 2
	}
	for i := range s.nodes {
		for _, z := range s.nodes[i].zones {
			for r, amount := range z {
				known[r] = known[r] || amount > 0
			}
		}
	}
	return known
}

// packingRow converts amounts to the units of a packing, divided into parts.
// Needs are rounded up and room down, so that rounding never makes a pod fit.
func (s *search) packingRow(amounts []int64, known []bool, parts int64, isNeed bool) []int64 {
	row := make([]int64, len(amounts))
	for r, amount := range amounts {
		unit := packingUnit(r) * parts
		if amount <= 0 || !known[r] {
			continue
		}
		if isNeed {
			amount += unit - 1
		}
		row[r] = amount / unit
	}
	return row
}

func packingUnit(resource int) int64 {
	if resource == 1 {
		return memoryUnit
	}
	return 1
}

// packingShapes weighs resources by what a node of average size has of them.
func (s *search) packingShapes() []repack.Shape {
	capacity := make([]float64, s.index.size())
	for i := range s.nodes {
		for r, inverse := range s.nodes[i].inverse {
			if inverse > 0 {
				capacity[r] += 1 / inverse / float64(len(s.nodes))
			}
		}
	}
	var all []repack.Shape
	for _, one := range s.shapes {
		for i, r := range one.resources {
			unit := packingUnit(r)
			if size := one.amounts[i] / unit; size > 0 && capacity[r] > 0 {
				weight := int64(math.Round(packingScale / (capacity[r] / float64(unit))))
				all = append(all, repack.Shape{Resource: r, Size: size, Weight: max(1, weight)})
			}
		}
	}
	return all
}
