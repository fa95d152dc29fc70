package rebalance

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/ai-storage/orchestrator/pkg/cluster"
	"github.com/ai-storage/orchestrator/pkg/planner"
)

// WritePlan writes a plan for a person to read: the moves, the predicted load
// before and after, and why nodes stay hot.
func WritePlan(w io.Writer, plan *planner.Plan) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	writeMoves(table, plan)
	writeLoads(table, plan)
	fmt.Fprintf(table, "\nPREDICTED\tBEFORE\tAFTER\n")
	fmt.Fprintf(table, "objective\t%.3f\t%.3f\n", plan.Before.Objective, plan.After.Objective)
	fmt.Fprintf(table, "standard deviation of CPU load\t%s\t%s\n", percent(plan.Before.CPUDeviation), percent(plan.After.CPUDeviation))
	fmt.Fprintf(table, "standard deviation of memory load\t%s\t%s\n", percent(plan.Before.MemoryDeviation), percent(plan.After.MemoryDeviation))
	fmt.Fprintf(table, "moves\t\t%d\n", len(plan.Moves))
	fmt.Fprintf(table, "requests freed by stripping\t\t%s\n", amounts(plan.FreedRequests()))
	for i, hot := range plan.StillHot {
		if i == 0 {
			fmt.Fprint(table, "\nSTAYS HOT\tWHY\n")
		}
		for _, reason := range hot.Reasons {
			fmt.Fprintf(table, "%s\t%s\n", hot.Name, reason)
		}
	}
	return table.Flush()
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
		if before.Hot {
			mark = "hot"
		}
		if after.Hot {
			mark = "stays hot"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", before.Name,
			percent(before.CPU), percent(after.CPU), percent(before.Memory), percent(after.Memory), mark)
	}
}

func percent(ratio float64) string { return fmt.Sprintf("%.1f%%", 100*ratio) }

func amounts(r cluster.Resources) string {
	return fmt.Sprintf("%dm CPU, %dMi", r.MilliCPU, r.Memory>>20)
}
