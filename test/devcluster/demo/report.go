package demo

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
)

// report is what the demo has shown.
type report struct {
	before, after      measurement
	moves              tally
	end                ending
	thresholds         config.UtilizationThresholds
	rebalancing, total time.Duration
}

// criterion of success. Its last part is how rebalancing ends: see settled.
var criterion = []string{
	"a move succeeded, the standard deviation of CPU load fell, and",
	"no node is above a threshold or nothing more was found to move",
}

func (r report) write(out io.Writer) {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	row := func(name string, before, after any) { fmt.Fprintf(table, "  %s\t%v\t%v\n", name, before, after) }
	row("", "before", "after")
	row("standard deviation of node load, CPU", percent(deviation(r.before.cpus())), percent(deviation(r.after.cpus())))
	row("standard deviation of node load, memory", percent(deviation(r.before.memories())), percent(deviation(r.after.memories())))
	row("highest node load, CPU", percent(slices.Max(r.before.cpus())), percent(slices.Max(r.after.cpus())))
	row("highest node load, memory", percent(slices.Max(r.before.memories())), percent(slices.Max(r.after.memories())))
	row("nodes above a threshold", r.before.overutilized(r.thresholds), r.after.overutilized(r.thresholds))
	table.Flush()
	fmt.Fprintln(out)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(table, "  %s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	line("moves", "%d succeeded, %d failed", r.moves.succeeded, r.moves.failed)
	for _, failure := range r.moves.failures {
		line("", "%s", failure)
	}
	line("requests freed by stripping", "%.2f CPUs, %.2f GiB of memory",
		r.moves.freedCPU.AsApproximateFloat64(), r.moves.freedMemory.AsApproximateFloat64()/(1<<30))
	line("requests reclaimed in place", "%.2f CPUs, %.2f GiB of memory",
		r.moves.reclaimedCPU.AsApproximateFloat64(), r.moves.reclaimedMemory.AsApproximateFloat64()/(1<<30))
	line("time", "%s of rebalancing, %s in all", r.rebalancing.Round(time.Second), r.total.Round(time.Second))
	line("end", "%s", r.end)
	line("criterion", "%s", criterion[0])
	line("", "%s", criterion[1])
	verdict := "balanced"
	if err := r.judge(); err != nil {
		verdict = err.Error()
	}
	line("verdict", "%s", verdict)
	table.Flush()
}

// judge holds the result against the criterion. That rebalancing has ended is
// known before there is a report.
func (r report) judge() error {
	switch before, after := deviation(r.before.cpus()), deviation(r.after.cpus()); {
	case r.moves.succeeded == 0:
		return errors.New("not balanced: no move succeeded")
	case after >= before:
		return fmt.Errorf("not balanced: the standard deviation of CPU load went from %s to %s", percent(before), percent(after))
	}
	return nil
}

func percent(share float64) string { return fmt.Sprintf("%.1f%%", 100*share) }
