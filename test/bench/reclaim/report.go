package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"

	"github.com/ai-storage/orchestrator/test/bench/machine"
)

// report is what is written down.
type report struct {
	Machine    string    `json:"machine"`
	Go         string    `json:"go"`
	Version    string    `json:"version"`
	Kubernetes string    `json:"kubernetes"`
	Command    string    `json:"command"`
	Seed       uint64    `json:"seed"`
	Files      []string  `json:"files"`
	Generated  []string  `json:"generated"`
	Results    []*result `json:"results"`
}

func newReport(o options, d *data) *report {
	r := &report{
		Machine: describeMachine(), Go: runtime.Version(), Version: o.version, Kubernetes: "unknown", Command: o.command, Seed: o.seed,
		Files: d.files, Generated: d.generated,
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range build.Deps {
			if dependency.Path == "k8s.io/kubernetes" {
				r.Kubernetes = dependency.Version
			}
		}
	}
	return r
}

// describeMachine names the processor and counts the cores.
func describeMachine() string {
	return fmt.Sprintf("%d cores, %s", runtime.NumCPU(), machine.Processor())
}

func (r *report) writeHeading(w io.Writer) {
	fmt.Fprintf(w, "Reclaim in place: requests of finished steps\nmachine   %s\nversion   %s, Kubernetes %s, %s\nseed      %d\ncommand   %s\nfiles     %s\n",
		r.Machine, r.Version, r.Kubernetes, r.Go, r.Seed, r.Command, strings.Join(r.Files, ", "))
	if len(r.Generated) > 0 {
		fmt.Fprintf(w, "GENERATED from the seed, since no file has them: %s\n", strings.Join(r.Generated, ", "))
	}
}

func (r *result) write(w io.Writer) {
	control := ""
	if r.Control {
		control = ", negative control"
	}
	fmt.Fprintf(w, "\n%s%s: %d tasks, %d steps; %d pods request %.1f CPUs and %.1f GiB on %d nodes; pods of %d tasks wait for room\n",
		r.Instance, control, r.Tasks, r.Steps, r.Pods, r.CPURequested, r.MemoryRequested, r.Nodes, r.WaitingKinds)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "finished\tCPU ceiling\treclaimed\t\tGiB ceiling\treclaimed\t\textra pods: none\treclaim\tceiling\t")
	for _, s := range r.Stages {
		fmt.Fprintf(table, "%d\t%.1f\t%.1f\t%s\t%.1f\t%.1f\t%s\t%d\t%d\t%d\t\n", s.Stage,
			s.CPUCeiling, s.CPUReclaimed, share(s.CPUReclaimed, s.CPUCeiling), s.MemoryCeiling, s.MemoryReclaimed, share(s.MemoryReclaimed, s.MemoryCeiling),
			s.ExtraWithout, s.Extra, s.ExtraCeiling)
	}
	_ = table.Flush()
}

func share(part, whole float64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f %%", 100*part/whole)
}

// problems are results that must not be.
func (r *report) problems() (problems []error) {
	for _, result := range r.Results {
		for _, s := range result.Stages {
			switch {
			case result.Control && (s.CPUReclaimed != 0 || s.MemoryReclaimed != 0 || result.Resizes != 0):
				problems = append(problems, fmt.Errorf("%s is the negative control, and %g CPUs and %g GiB were reclaimed in %d resizes", result.Instance, s.CPUReclaimed, s.MemoryReclaimed, result.Resizes))
			case s.CPUReclaimed > s.CPUCeiling || s.MemoryReclaimed > s.MemoryCeiling:
				problems = append(problems, fmt.Errorf("%s, stage %d: more was reclaimed than finished steps requested", result.Instance, s.Stage))
			}
		}
	}
	return problems
}

// save writes reclaim.json and, for each instance, a table of what was counted
// for one pod of every task at every stage.
func (r *report) save(directory string) error {
	if directory == "" {
		return nil
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(directory, "reclaim.json"), append(content, '\n'), 0o644); err != nil {
		return err
	}
	for _, result := range r.Results {
		var lines strings.Builder
		lines.WriteString("task,finished,cpu_original_m,cpu_ceiling_m,cpu_counted_m,memory_original_bytes,memory_ceiling_bytes,memory_counted_bytes\n")
		for _, t := range result.perTask {
			fmt.Fprintf(&lines, "%q,%d,%d,%d,%d,%d,%d,%d\n", t.task, t.stage, t.cpuOriginal, t.cpuCeiling, t.cpuCounted, t.memoryOriginal, t.memoryCeiling, t.memoryCounted)
		}
		name := strings.NewReplacer("/", "-", " ", "-").Replace(result.Instance) + ".reclaim.csv"
		if err := os.WriteFile(filepath.Join(directory, name), []byte(lines.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
