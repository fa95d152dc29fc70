package main

import (
	"cmp"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ai-storage/orchestrator/test/bench/machine"
)

// report is what the benchmark writes as JSON.
type report struct {
	Machine     string    `json:"machine"`
	Go          string    `json:"go"`
	Version     string    `json:"version"`
	Descheduler string    `json:"descheduler"`
	Command     string    `json:"command"`
	Began       time.Time `json:"began"`
	Data        string    `json:"data"`
	Nodes       int       `json:"nodes"`
	Duration    string    `json:"duration"`
	Step        string    `json:"step"`
	Interval    string    `json:"interval"`
	// LoadAverage of the machine over a minute, at its highest: above the number
	// of its cores, the arms were short of CPU.
	LoadAverage float64   `json:"loadAverage"`
	Results     []*result `json:"results"`
}

func newReport(o options, data *dataset) *report {
	return &report{
		Machine: describeMachine(), Go: runtime.Version(), Version: o.version, Descheduler: deschedulerVersion(o.binDir),
		Command: strings.Join(os.Args, " "), Began: time.Now().UTC().Truncate(time.Second), Data: data.source,
		Nodes: o.nodes, Duration: o.duration.String(), Step: o.step.String(), Interval: o.interval.String(),
	}
}

// add keeps the results in order, whichever ended first.
func (r *report) add(one *result) {
	r.LoadAverage = max(r.LoadAverage, one.loadAverage)
	r.Results = append(r.Results, one)
	slices.SortFunc(r.Results, func(a, b *result) int {
		return cmp.Or(cmp.Compare(a.Seed, b.Seed), cmp.Compare(a.Arm, b.Arm))
	})
}

func describeMachine() string {
	return fmt.Sprintf("%d cores (%s), %s, %s", runtime.NumCPU(), machine.Processor(), machine.Memory(), runtime.GOOS)
}

// deschedulerVersion is the version of the module that the program was built from.
func deschedulerVersion(binDir string) string {
	info, err := buildinfo.ReadFile(filepath.Join(binDir, "descheduler"))
	if err != nil {
		return "unknown"
	}
	const module = "sigs.k8s.io/descheduler"
	if info.Main.Path == module {
		return info.Main.Version
	}
	for _, dependency := range info.Deps {
		if dependency.Path == module {
			return dependency.Version
		}
	}
	return "unknown"
}

// loadAverage is that of the last minute; 0 where there is none.
func loadAverage() float64 {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	var load float64
	if _, err := fmt.Sscan(string(content), &load); err != nil {
		return 0
	}
	return load
}

// write prints the table.
func (r *report) write(w io.Writer) error {
	fmt.Fprintf(w, "Machine: %s, %s; load average up to %.1f\n", r.Machine, r.Go, r.LoadAverage)
	fmt.Fprintf(w, "Version %s against the descheduler %s; %d nodes, %s, both every %s, a sample of load every %s\nData: %s\n\n",
		r.Version, r.Descheduler, r.Nodes, r.Duration, r.Interval, r.Step, r.Data)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "seed\tarm\tpods\tdeviation before\twithout moves\tafter\taverage\toverutilized before\tafter\tmoves\tundone\tback at source\trepeated\tfailed\tdown, s\t")
	for _, result := range r.Results {
		fmt.Fprintf(table, "%d\t%s\t%d\t%.2f%%\t%.2f%%\t%.2f%%\t%.2f%%\t%d\t%.1f\t%d\t%d\t%d\t%d\t%d\t%d\t\n",
			result.Seed, result.Arm, result.Pods, result.Before, result.Skipped, result.After, result.Average,
			result.OverutilizedBefore, result.OverutilizedAfter, result.Moves, result.Undone, result.Back, result.Repeated, len(result.Failures), result.DownSeconds)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, line := range verdicts(r.Results) {
		fmt.Fprintln(w, line)
	}
	return nil
}

// verdicts compare ours with every other arm of the same seed.
func verdicts(results []*result) []string {
	var lines []string
	for _, a := range results {
		if a.Arm != ours {
			continue
		}
		for _, b := range results {
			if b.Seed != a.Seed || b == a {
				continue
			}
			lines = append(lines, fmt.Sprintf("seed %d, ours against %s: lower deviation %s, fewer moves %s, none back at its source %s, none undone %s",
				a.Seed, b.Arm, yes(a.After < b.After), yes(a.Moves < b.Moves), yes(a.Back == 0), yes(a.Undone == 0)))
		}
	}
	return lines
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "NO"
}

// save writes everything as JSON.
func (r *report) save(path string) error {
	content, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	if err := os.WriteFile(path, append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}
