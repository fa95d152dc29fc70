package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"text/tabwriter"

	"github.com/ai-storage/orchestrator/test/bench/machine"
)

// report prints medians, each with the least and the most, and writes all to OUT.
func (b *bench) report(out io.Writer) error {
	r := Report{Machine: fmt.Sprintf("%s, %d processors, %s", machine.Processor(), runtime.NumCPU(), machine.Memory()), Go: runtime.Version(), Files: b.files, Size: b.size}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "%s, %s, medians of %d rounds (least to most)\n", r.Machine, r.Go, b.rounds)
	fmt.Fprintln(w, "what\tseconds\tof processors\tagainst\tseconds\tof processors\tratio")
	for _, name := range b.order {
		m := *b.found[name]
		r.Measurements = append(r.Measurements, m)
		if m.With == "" {
			fmt.Fprintf(w, "%s\t%s\t%.2f\t\t\t\t\n", name, spread(m.Seconds, 3), median(m.Processor))
			continue
		}
		ratios := make([]float64, len(m.Seconds))
		for i := range ratios {
			ratios[i] = m.Seconds[i] / m.Against[i]
		}
		fmt.Fprintf(w, "%s\t%s\t%.2f\t%s\t%s\t%.2f\t%s\n", name, spread(m.Seconds, 3), median(m.Processor),
			m.With, spread(m.Against, 3), median(m.AgainstProcessor), spread(ratios, 2))
	}
	if err := w.Flush(); err != nil || b.out == "" {
		return err
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.out, "checkpoint.json"), content, 0o644)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// spread is the median with the least and the most, with digits after the point.
func spread(values []float64, digits int) string {
	return fmt.Sprintf("%.*f (%.*f to %.*f)", digits, median(values), digits, slices.Min(values), digits, slices.Max(values))
}
