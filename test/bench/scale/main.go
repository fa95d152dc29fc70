// Command scale measures how long a plan takes on large clusters: the first
// one, and one after 1 % of the pods changed, from what the informers hold to
// the finished plan. The scheduler's filters are the real framework with the
// shipped configuration; only the API server behind its informers, which would
// serve volumes and namespaces, is client-go's fake. Each size runs in a process
// of its own, so that its peak memory is its own.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/ai-storage/orchestrator/test/bench/machine"
)

// Result is what one size gave.
type Result struct {
	Nodes int `json:"nodes"`
	Pods  int `json:"pods"`
	// First and Replan are in seconds, the parts of First after it.
	First         float64 `json:"firstPlanSeconds"`
	FirstSnapshot float64 `json:"firstSnapshotSeconds"`
	Replan        float64 `json:"replanSeconds"`
	// Replans are all of them; Replan is the slowest.
	Replans []float64 `json:"replansSeconds"`
	// CPU and ReplanCPU are the processor time of the first plan, and of a later
	// one in the mean, in seconds. Other programs on the machine do not add to it.
	CPU       float64 `json:"firstPlanCPUSeconds"`
	ReplanCPU float64 `json:"replanCPUSeconds"`
	// PeakMiB is the highest resident memory, InputMiB that before the first plan:
	// the cluster itself and its measurements.
	PeakMiB           float64 `json:"peakMiB"`
	InputMiB          float64 `json:"inputMiB"`
	Overutilized      int     `json:"overutilizedNodes"`
	OverutilizedAfter int     `json:"overutilizedNodesAfter"`
	Moves             int     `json:"moves"`
	// Refused counts moves of all plans that a fresh simulation refuses.
	Refused         int     `json:"refused"`
	DeviationBefore float64 `json:"cpuDeviationBefore"`
	DeviationAfter  float64 `json:"cpuDeviationAfter"`
	Questions       int     `json:"questions"`
}

// Report is what is written to OUT.
type Report struct {
	Machine  string   `json:"machine"`
	Go       string   `json:"go"`
	Command  string   `json:"command"`
	Seed     uint64   `json:"seed"`
	MaxMoves int      `json:"maxMoves"`
	Results  []Result `json:"results"`
	// Growth is the processor time of the first plan at the largest size over that at the
	// smallest, NLogN what n log n would give.
	Growth float64 `json:"growth"`
	NLogN  float64 `json:"nLogN"`
}

type settings struct {
	sizes         string
	one           int
	podsPerNode   int
	seed          uint64
	maxMoves      int
	configuration string
	out           string
	profile       string
}

func main() {
	var s settings
	flag.StringVar(&s.sizes, "sizes", "1000,2000,5000", "numbers of nodes")
	flag.IntVar(&s.one, "one", 0, "measure one number of nodes in this process")
	flag.IntVar(&s.podsPerNode, "pods", 30, "pods on a node in the mean")
	flag.Uint64Var(&s.seed, "seed", 1, "seed of the clusters and of the search")
	flag.IntVar(&s.maxMoves, "moves", 20, "cap on moves")
	flag.StringVar(&s.configuration, "config", "config/scheduler-configuration.yaml", "scheduler configuration")
	flag.StringVar(&s.out, "out", os.Getenv("OUT"), "directory for scale.json")
	flag.StringVar(&s.profile, "profile", "", "with -one, a file for a CPU profile")
	flag.Parse()
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(s settings) error {
	if s.one > 0 {
		if s.profile != "" {
			file, err := os.Create(s.profile)
			if err != nil {
				return err
			}
			defer file.Close()
			if err := pprof.StartCPUProfile(file); err != nil {
				return err
			}
			defer pprof.StopCPUProfile()
		}
		result, err := measure(s)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(result)
	}
	report := Report{
		Machine: describeMachine(), Go: runtime.Version(), Command: strings.Join(os.Args, " "), Seed: s.seed, MaxMoves: s.maxMoves,
	}
	for _, size := range strings.Split(s.sizes, ",") {
		result, err := inOwnProcess(s, size)
		if err != nil {
			return fmt.Errorf("%s nodes: %w", size, err)
		}
		report.Results = append(report.Results, *result)
	}
	first, last := report.Results[0], report.Results[len(report.Results)-1]
	report.Growth = last.CPU / first.CPU
	report.NLogN = nLogN(last.Pods) / nLogN(first.Pods)
	print(report)
	if s.out == "" {
		return nil
	}
	encoded, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.out, "scale.json"), append(encoded, '\n'), 0o644)
}

func nLogN(n int) float64 { return float64(n) * math.Log(float64(n)) }

func inOwnProcess(s settings, size string) (*Result, error) {
	if _, err := strconv.Atoi(size); err != nil {
		return nil, fmt.Errorf("sizes: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, "-one", size, "-pods", strconv.Itoa(s.podsPerNode), "-seed", strconv.FormatUint(s.seed, 10),
		"-moves", strconv.Itoa(s.maxMoves), "-config", s.configuration)
	var stdout bytes.Buffer
	command.Stdout, command.Stderr = &stdout, os.Stderr
	if err := command.Run(); err != nil {
		return nil, err
	}
	result := &Result{}
	return result, json.Unmarshal(stdout.Bytes(), result)
}

func print(report Report) {
	fmt.Printf("%s, %s, seed %d, at most %d moves\n", report.Machine, report.Go, report.Seed, report.MaxMoves)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "NODES\tPODS\tFIRST PLAN\tCPU\tREPLAN (1 %)\tCPU\tPEAK\tMOVES\tREFUSED\tOVERUTILIZED\tOVERUTILIZED AFTER\tCPU DEVIATION\tAFTER\t")
	for _, r := range report.Results {
		fmt.Fprintf(table, "%d\t%d\t%.2f s\t%.2f s\t%.2f s\t%.2f s\t%.0f MiB\t%d\t%d\t%d\t%d\t%.2f%%\t%.2f%%\t\n",
			r.Nodes, r.Pods, r.First, r.CPU, r.Replan, r.ReplanCPU, r.PeakMiB, r.Moves, r.Refused, r.Overutilized, r.OverutilizedAfter, 100*r.DeviationBefore, 100*r.DeviationAfter)
	}
	table.Flush()
	fmt.Printf("growth of the first plan's processor time from %d to %d nodes: %.1f times; n log n would be %.1f times\n",
		report.Results[0].Nodes, report.Results[len(report.Results)-1].Nodes, report.Growth, report.NLogN)
}

// describeMachine names the processor, the cores in use and the kernel.
func describeMachine() string {
	return fmt.Sprintf("%s, %d cores, %s/%s", machine.Processor(), runtime.GOMAXPROCS(0), runtime.GOOS, runtime.GOARCH)
}
