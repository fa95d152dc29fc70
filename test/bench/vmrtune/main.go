package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/ai-storage/orchestrator/pkg/reassignment"
	"github.com/ai-storage/orchestrator/test/bench/vmr"
)

func main() {
	limit := flag.Duration("limit", 5*time.Second, "")
	iters := flag.Int64("iters", 0, "")
	seed := flag.Uint64("seed", 1, "")
	flag.BoolVar(&vmr.Strict, "strict", true, "")
	flag.Float64Var(&reassignment.TunePFirst, "first", reassignment.TunePFirst, "")
	flag.Float64Var(&reassignment.TunePLast, "last", reassignment.TunePLast, "")
	flag.Float64Var(&reassignment.TuneEps, "eps", reassignment.TuneEps, "")
	flag.Float64Var(&reassignment.TunePrice, "price", reassignment.TunePrice, "")
	flag.Parse()
	f, _ := os.Open("/work/shared/data/bytedance_vmr/medium.json")
	s, err := vmr.Parse(f)
	if err != nil { panic(err) }
	p, _ := s.Packing(16)
	total := 0.0
	for _, h := range p.Hosts { for _, n := range h.Free { total += float64(n[0]) } }
	for _, cap := range []int{10, 25, 50, 100} {
		begin := time.Now()
		b := reassignment.Budget{Iterations: *iters}
		if *iters == 0 { b = reassignment.Budget{Spent: func() float64 { return float64(time.Since(begin)) / float64(*limit) }} }
		r, err := reassignment.Repack(p, reassignment.Options{Seed: *seed, Workers: 2, MaxMoves: cap, Budget: b})
		if err != nil { panic(err) }
		fmt.Printf("%d: %.4f (%d moves, start %.4f, %.1fs) ", cap, float64(r.Cost)/total, len(r.Moves), float64(r.InitialCost)/total, time.Since(begin).Seconds())
	}
	fmt.Println()
}
