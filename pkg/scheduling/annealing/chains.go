package annealing

import (
	"math"
	"sync"
)

// Budget says how long a search may run. One of its fields is set.
type Budget struct {
	// Iterations is the number of proposals that each chain looks at.
	Iterations int64
	// Spent returns which part of the time is used up: 0 at the beginning, 1
	// and more when the search must stop. It is asked from several goroutines.
	Spent func() float64
}

// Options steer a search.
type Options struct {
	Budget Budget
	Seed   uint64
	// Workers is how many chains run at once. It changes how long an
	// iteration budget takes, never its result. Zero means one.
	Workers int
}

const (
	// ChainCount is fixed, since it is part of what decides the result.
	ChainCount = 2
	// sliceIterations are done between two looks at the budget, about a
	// millisecond.
	sliceIterations = 1 << 10
)

// Chain is one search that can be continued. Run looks at so many proposals;
// progress is the part of the budget that was spent before.
type Chain interface {
	Run(iterations int64, progress float64)
}

// Run runs all chains until the budget is spent. No chain sees another.
func Run(chains []Chain, o Options) {
	turns := make(chan struct{}, max(1, o.Workers))
	var all sync.WaitGroup
	for _, c := range chains {
		all.Go(func() { runChain(c, o.Budget, turns) })
	}
	all.Wait()
}

// runChain takes a turn for each slice, so that few workers serve all chains
// alike.
func runChain(c Chain, b Budget, turns chan struct{}) {
	if b.Spent == nil {
		for done := int64(0); done < b.Iterations; done += sliceIterations {
			turns <- struct{}{}
			c.Run(min(sliceIterations, b.Iterations-done), float64(done)/float64(b.Iterations))
			<-turns
		}
		return
	}
	for progress := b.Spent(); progress < 1; progress = b.Spent() {
		turns <- struct{}{}
		c.Run(sliceIterations, progress)
		<-turns
	}
}

// Temperature falls geometrically from first to last as progress goes from 0 to 1.
func Temperature(first, last, progress float64) float64 {
	return first * math.Pow(last/first, min(1, progress))
}

// Uphill is the largest loss that is accepted this time (Metropolis, with the
// random number drawn first so that hopeless proposals are dropped early).
func Uphill(r *Random, temperature float64) float64 {
	return -temperature * math.Log(r.Fraction())
}
