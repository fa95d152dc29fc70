package reassignment

// Repack searches for at most o.MaxMoves moves (zero: as many as help) that
// leave the free room less fragmented, in an order in which each finds room.
func Repack(p *Packing, o Options) (Repacking, error) {
	if err := p.Validate(); err != nil {
		return Repacking{}, err
	}
	limit := o.MaxMoves
	if limit == 0 {
		limit = 2 * len(p.Items)
	}
	searches := make([]*packingAnnealing, chainCount)
	chains := make([]chain, chainCount)
	for i := range chains {
		searches[i] = newPackingAnnealing(p, o.Seed*chainCount+uint64(i), limit)
		chains[i] = searches[i]
	}
	runChains(chains, o)
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
