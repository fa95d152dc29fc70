package repack

import "github.com/ai-storage/orchestrator/pkg/scheduling/annealing"

// Search looks for at most maxMoves moves (zero: as many as help) that leave the
// free room less fragmented, in an order in which each finds room. Its only
// error is a packing that contradicts itself.
func Search(p *Packing, maxMoves int, o annealing.Options) (Repacking, error) {
	if err := p.Validate(); err != nil {
		return Repacking{}, err
	}
	if maxMoves == 0 {
		maxMoves = 2 * len(p.Items)
	}
	searches := make([]*packingAnnealing, annealing.ChainCount)
	chains := make([]annealing.Chain, annealing.ChainCount)
	for i := range chains {
		searches[i] = newPackingAnnealing(p, o.Seed*annealing.ChainCount+uint64(i), maxMoves)
		chains[i] = searches[i]
	}
	annealing.Run(chains, o)
	best := searches[0]
	for _, s := range searches[1:] {
		if s.bestCost < best.bestCost {
			best = s
		}
	}
	return explainSteps(p, best.best), nil
}

// explainSteps replays the steps and says what each gains.
func explainSteps(p *Packing, steps []step) Repacking {
	s := newPackingState(p)
	r := Repacking{InitialCost: s.cost}
	for _, step := range steps {
		before := s.cost
		s.move(step.item, step.to)
		host, node := s.placeOf(step.item, step.to)
		r.Moves = append(r.Moves, ItemMove{Item: int(step.item), Host: host, Node: node, Gain: before - s.cost})
	}
	r.Cost = s.cost
	return r
}
