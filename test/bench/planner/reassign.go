package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ai-storage/orchestrator/test/bench/reassignment"
	"github.com/ai-storage/orchestrator/test/bench/roadef"
)

type reassignmentResult struct {
	Instance    string  `json:"instance"`
	Processes   int     `json:"processes"`
	Machines    int     `json:"machines"`
	InitialCost int64   `json:"initialCost"`
	Cost        int64   `json:"cost"`
	Moved       int     `json:"moved"`
	Seconds     float64 `json:"seconds"`
	// Gap is (cost − bound)/initial cost; without a reference, the bound is 0.
	Gap float64 `json:"gap"`
	// PublishedGap is that of team S41 after 300 s; nil where it is not known.
	PublishedGap *float64 `json:"publishedGap,omitempty"`
}

// reference is a row of reference.csv, beside the models.
type reference struct{ bound, published float64 }

func readReferences(directory string) (map[string]reference, error) {
	file, err := os.Open(filepath.Join(directory, "reference.csv"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file.Name(), err)
	}
	references := map[string]reference{}
	for _, row := range rows[1:] {
		bound, errBound := strconv.ParseFloat(row[2], 64)
		published, errPublished := strconv.ParseFloat(row[3], 64)
		if errBound == nil && errPublished == nil {
			references[row[0]] = reference{bound, published}
		}
	}
	return references, nil
}

func reassignAll(models []string, o options) ([]reassignmentResult, error) {
	if len(models) == 0 {
		return nil, nil
	}
	fmt.Printf("\nMachine reassignment, %s a search, seed %d; every solution passed the checker\n", o.limit, o.seed)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "INSTANCE\tPROCESSES\tMACHINES\tINITIAL COST\tCOST\tMOVED\tGAP\tS41 IN 300 S\tSECONDS")
	var all []reassignmentResult
	var failures []error
	for _, model := range models {
		result, err := reassignOne(model, o)
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", model, err))
			continue
		}
		all = append(all, result)
		published := "-"
		if result.PublishedGap != nil {
			published = fmt.Sprintf("%.4f %%", 100**result.PublishedGap)
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%.4f %%\t%s\t%.1f\n", result.Instance, result.Processes, result.Machines,
			result.InitialCost, result.Cost, result.Moved, 100*result.Gap, published, result.Seconds)
	}
	ours, published := meanGaps(all)
	fmt.Fprintf(table, "mean\t\t\t\t\t\t%.4f %%\t%.4f %%\t\n", 100*ours, 100*published)
	return all, errors.Join(append(failures, table.Flush())...)
}

// meanGaps are over the instances that have a reference.
func meanGaps(all []reassignmentResult) (ours, published float64) {
	n := 0.0
	for _, r := range all {
		if r.PublishedGap != nil {
			n++
			ours += r.Gap
			published += *r.PublishedGap
		}
	}
	return ours / max(1, n), published / max(1, n)
}

func reassignOne(model string, o options) (reassignmentResult, error) {
	name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(model), "model_"), ".txt")
	problem, start, err := readInstance(model, filepath.Join(filepath.Dir(model), "assignment_"+name+".txt"))
	if err != nil {
		return reassignmentResult{}, err
	}
	begin := time.Now()
	found, err := reassignment.Solve(problem, start, o.search())
	if err != nil {
		return reassignmentResult{}, err
	}
	seconds := time.Since(begin).Seconds()
	if err := roadef.Check(problem, start, found.Assignment); err != nil {
		return reassignmentResult{}, err
	}
	if cost := roadef.Cost(problem, start, found.Assignment); cost != found.Cost {
		return reassignmentResult{}, fmt.Errorf("the search says cost %d, the checker %d", found.Cost, cost)
	}
	result := reassignmentResult{
		Instance: name, Processes: len(problem.Processes), Machines: len(problem.Machines),
		InitialCost: found.InitialCost, Cost: found.Cost, Moved: found.Moved, Seconds: seconds,
		Gap: float64(found.Cost) / float64(max(1, found.InitialCost)),
	}
	references, err := readReferences(filepath.Dir(model))
	if err != nil {
		return reassignmentResult{}, err
	}
	if r, known := references[name]; known {
		initial := float64(found.InitialCost)
		published := (r.published - r.bound) / initial
		result.Gap, result.PublishedGap = (float64(found.Cost)-r.bound)/initial, &published
	}
	return result, writeFile(filepath.Join(o.out, name+".solution"), func(f *os.File) error {
		return roadef.WriteAssignment(f, found.Assignment)
	})
}

func readInstance(model, assignment string) (*reassignment.Problem, reassignment.Assignment, error) {
	file, err := os.Open(model)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	problem, err := roadef.ParseModel(file)
	if err != nil {
		return nil, nil, err
	}
	initial, err := os.Open(assignment)
	if err != nil {
		return nil, nil, err
	}
	defer initial.Close()
	start, err := roadef.ParseAssignment(initial, problem)
	return problem, start, err
}

func writeFile(path string, write func(*os.File) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(file); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}
