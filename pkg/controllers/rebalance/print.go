package rebalance

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

// WriteStatus writes a status in a human-readable form: the moves, what is predicted
// before and after them, and why nodes stay overutilized or are skipped.
func WriteStatus(w io.Writer, status *Status) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	writeMoves(table, status.Plan)
	writeLoads(table, status.Plan)
	writePrediction(table, status)
	writeReasons(table, status)
	return table.Flush()
}

func writePrediction(w io.Writer, status *Status) {
	before, after, plan := status.Before, status.After, status.Plan
	fmt.Fprintf(w, "\nPREDICTED (source: %s)\tBEFORE\tAFTER\n", status.Source)
	fmt.Fprintf(w, "objective\t%.3f\t%.3f\n", before.Objective, after.Objective)
	fmt.Fprintf(w, "standard deviation of CPU load\t%s\t%s\n", percent(before.CPUDeviation), percent(after.CPUDeviation))
	fmt.Fprintf(w, "standard deviation of memory load\t%s\t%s\n", percent(before.MemoryDeviation), percent(after.MemoryDeviation))
	fmt.Fprintf(w, "fragmentation\t%s\t%s\n", percent(before.Fragmentation), percent(after.Fragmentation))
	fmt.Fprintf(w, "number of moves\t\t%d\n", status.Moves)
	downtime := "unknown"
	switch {
	case status.Moves == 0:
		downtime = "none"
	case status.ExpectedDowntime != nil:
		downtime = status.ExpectedDowntime.Duration.Round(time.Millisecond).String()
	}
	fmt.Fprintf(w, "expected downtime\t\t%s\n", downtime)
	fmt.Fprintf(w, "requests freed by stripping\t\t%s\n", amounts(plan.FreedRequests()))
}

func writeReasons(w io.Writer, status *Status) {
	if status.Held != "" {
		fmt.Fprintf(w, "\nHELD BACK\n%s\n", status.Held)
	}
	for i, overutilized := range status.Plan.StillOverutilized {
		if i == 0 {
			fmt.Fprint(w, "\nSTAYS OVERUTILIZED\tWHY\n")
		}
		for _, reason := range overutilized.Reasons {
			fmt.Fprintf(w, "%s\t%s\n", overutilized.Name, reason)
		}
	}
	for i, node := range status.Skipped {
		if i == 0 {
			fmt.Fprint(w, "\nSKIPPED\tREASON\n")
		}
		fmt.Fprintf(w, "%s\t%s\n", node.Name, node.Reason)
	}
	for i, c := range status.Cooldowns {
		if i == 0 {
			fmt.Fprint(w, "\nCOOLING DOWN\tUNTIL\n")
		}
		fmt.Fprintf(w, "%s\t%s\n", c.Workload, c.Until.UTC().Format(time.RFC3339))
	}
}

func writeMoves(w io.Writer, plan *planner.Plan) {
	if len(plan.Moves) == 0 {
		fmt.Fprintln(w, "Nothing to move.")
		return
	}
	fmt.Fprintln(w, "POD\tFROM\tTO\tUSES\tFREES\tGAIN")
	for _, move := range plan.Moves {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.3f\n", move.Pod, move.From, move.To, amounts(move.Usage), amounts(move.FreedRequests), move.Gain)
	}
}

func writeLoads(w io.Writer, plan *planner.Plan) {
	fmt.Fprint(w, "\nNODE\tCPU BEFORE\tCPU AFTER\tMEMORY BEFORE\tMEMORY AFTER\t\n")
	for i, before := range plan.Before.Nodes {
		after := plan.After.Nodes[i]
		mark := ""
		if before.Overutilized {
			mark = "overutilized"
		}
		if after.Overutilized {
			mark = "stays overutilized"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", before.Name,
			percent(before.CPU), percent(after.CPU), percent(before.Memory), percent(after.Memory), mark)
	}
}

func percent(ratio float64) string { return fmt.Sprintf("%.1f%%", 100*ratio) }

func amounts(r cluster.Resources) string {
	return fmt.Sprintf("%dm CPU, %dMi", r.MilliCPU, r.Memory>>20)
}
