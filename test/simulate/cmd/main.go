// Command simulate runs migrations in simulation, from seeds, and prints what breaks a
// promise: the seed, what interfered, and a trace. Without a violation it exits with 0.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/ai-storage/orchestrator/test/simulate"
)

func main() {
	seeds := flag.Uint64("seeds", 10000, "how many seeds to run")
	start := flag.Uint64("start", 1, "the first seed")
	seed := flag.Uint64("seed", 0, "repeat this one, with its trace")
	minutes := flag.Float64("minutes", 0, "run seeds for so long, instead of a number of them")
	workers := flag.Int("workers", runtime.NumCPU(), "how many seeds to run at the same time")
	most := flag.Int("most", 5, "how many violations to print")
	brief := flag.Bool("brief", false, "print one line for each violation, without its trace")
	calm := flag.Bool("calm", false, "run without disturbances")
	profile := flag.String("cpuprofile", "", "write a CPU profile here")
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	if *seed != 0 {
		os.Exit(repeat(*seed))
	}
	if *profile != "" {
		file, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(file)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	sweep := simulate.Sweep{Start: *start, Count: *seeds, Workers: *workers}
	if *minutes > 0 {
		sweep.Count, sweep.Until = 0, time.Now().Add(time.Duration(*minutes*float64(time.Minute)))
	}
	if *calm {
		sweep.Options.Only = []int{}
	}
	printed := 0
	sweep.Found = func(r simulate.Result) bool {
		if *brief {
			fmt.Printf("seed %d: %s [%s]\n", r.Seed, r.Violation, r.Scenario)
			return true
		}
		simulate.Shrink(simulate.Options{Seed: r.Seed, Only: sweep.Options.Only}, r).Print(os.Stdout)
		printed++
		return printed < *most
	}
	summary := sweep.Run()
	summary.Print(os.Stdout)
	if summary.Violations > 0 {
		pprof.StopCPUProfile()
		os.Exit(1)
	}
}

// repeat runs one seed as it is.
func repeat(seed uint64) int {
	r := simulate.Run(simulate.Options{Seed: seed, Trace: true})
	r.Print(os.Stdout)
	if r.Violation != nil {
		return 1
	}
	return 0
}
