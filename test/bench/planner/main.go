package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
	"encoding/csv"
	"strconv"

	"github.com/ai-storage/orchestrator/pkg/reassignment"
	"github.com/ai-storage/orchestrator/test/bench/roadef"
)

func main() {
	limit := flag.Duration("limit", 5*time.Second, "")
	data := flag.String("data", "/work/shared/data", "")
	only := flag.String("only", "", "")
	seed := flag.Uint64("seed", 1, "")
	flag.Float64Var(&reassignment.TuneFirst, "first", reassignment.TuneFirst, "")
	flag.Float64Var(&reassignment.TuneLast, "last", reassignment.TuneLast, "")
	flag.Float64Var(&reassignment.TuneTol, "tol", reassignment.TuneTol, "")
	flag.Float64Var(&reassignment.TuneRise, "rise", reassignment.TuneRise, "")
	flag.Float64Var(&reassignment.TuneTolEnd, "tolend", reassignment.TuneTolEnd, "")
	iters := flag.Int64("iters", 0, "")
	flag.Parse()
	refs := map[string][]string{}
	f, _ := os.Open(*data + "/roadef2012/reference.csv")
	rows, _ := csv.NewReader(f).ReadAll()
	for _, r := range rows { refs[r[0]] = r }
	models, _ := filepath.Glob(*data + "/roadef2012/model_*.txt")
	sort.Strings(models)
	sum, sumS, n := 0.0, 0.0, 0.0
	for _, m := range models {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(m), "model_"), ".txt")
		if *only != "" && !strings.Contains(*only, name) { continue }
		f, _ := os.Open(m)
		p, err := roadef.ParseModel(f)
		if err != nil { panic(err) }
		g, _ := os.Open(filepath.Dir(m) + "/assignment_" + name + ".txt")
		a, err := roadef.ParseAssignment(g, p)
		if err != nil { panic(err) }
		begin := time.Now()
		budget := reassignment.Budget{Iterations: *iters}
		if *iters == 0 { budget = reassignment.Budget{Spent: func() float64 { return float64(time.Since(begin)) / float64(*limit) }} }
		res, err := reassignment.Solve(p, a, reassignment.Options{Seed: *seed, Workers: 2, Budget: budget})
		if err != nil { panic(err) }
		b, _ := strconv.ParseFloat(refs[name][2], 64)
		s, _ := strconv.ParseFloat(refs[name][3], 64)
		i := float64(res.InitialCost)
		fmt.Printf("%s %d %d gap %.4f%% S41 %.4f%% moved %d check %v cost ok %v %.2fs\n", name, res.InitialCost, res.Cost, 100*(float64(res.Cost)-b)/i, 100*(s-b)/i, res.Moved, roadef.Check(p, a, res.Assignment), roadef.Cost(p, a, res.Assignment) == res.Cost, time.Since(begin).Seconds())
		sum += 100*(float64(res.Cost)-b)/i; sumS += 100*(s-b)/i; n++
	}
	fmt.Printf("mean %.4f S41 %.4f\n", sum/n, sumS/n)
}
