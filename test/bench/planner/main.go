// Command planner measures the search core on public instances: machine
// reassignment (ROADEF/EURO challenge 2012) and the repacking of fragmented
// hosts (ByteDance's VM rescheduling data). It takes whatever instances of these
// formats lie in a directory, prints a table, and writes JSON and every result in a
// form that an outside checker can verify.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/ai-storage/orchestrator/pkg/scheduling/annealing"
)

type options struct {
	data, out string
	limit     time.Duration
	seed      uint64
}

func main() {
	o := options{}
	flag.StringVar(&o.data, "data", "", "directory with instances, searched recursively")
	flag.StringVar(&o.out, "out", "", "directory for results")
	flag.DurationVar(&o.limit, "time-limit", 5*time.Second, "time for one search, reading and writing not counted")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the search")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "planner benchmark:", err)
		os.Exit(1)
	}
}

// results is what the JSON file holds.
type results struct {
	Command      string               `json:"command"`
	Go           string               `json:"go"`
	CPUs         int                  `json:"cpus"`
	Date         time.Time            `json:"date"`
	TimeLimit    string               `json:"timeLimit"`
	Seed         uint64               `json:"seed"`
	Generated    bool                 `json:"generated"`
	Reassignment []reassignmentResult `json:"reassignment"`
	Repacking    []repackingResult    `json:"repacking"`
}

func run(o options) error {
	switch {
	case o.out == "":
		return errors.New("-out: name a directory for the results")
	case o.limit <= 0:
		return fmt.Errorf("-time-limit: %s is not positive", o.limit)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("making the directory for results: %w", err)
	}
	models, snapshots, err := find(o.data)
	if err != nil {
		return err
	}
	r := results{
		Command: strings.Join(os.Args, " "), Go: runtime.Version(), CPUs: runtime.NumCPU(), Date: time.Now().UTC(),
		TimeLimit: o.limit.String(), Seed: o.seed,
	}
	if len(models)+len(snapshots) == 0 {
		fmt.Printf("no instances in %q: generated ones are used, seed %d\n", o.data, o.seed)
		r.Generated = true
		if models, snapshots, err = generate(o); err != nil {
			return err
		}
	}
	// An instance that fails does not stand in the way of the others.
	var reassigning, repacking error
	r.Reassignment, reassigning = reassignAll(models, o)
	r.Repacking, repacking = repackAll(snapshots, o)
	return errors.Join(reassigning, repacking, writeJSON(filepath.Join(o.out, "planner.json"), r))
}

// find lists the instances below a directory, in the order of their names.
func find(directory string) (models, snapshots []string, err error) {
	err = filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		switch name := filepath.Base(path); {
		case err != nil:
			return err
		case entry.IsDir():
		case strings.HasPrefix(name, "model_") && strings.HasSuffix(name, ".txt"):
			models = append(models, path)
		case strings.HasSuffix(name, ".json") && isSnapshot(path):
			snapshots = append(snapshots, path)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	return models, snapshots, err
}

// budget starts now.
func (o options) budget() annealing.Budget {
	begin := time.Now()
	return annealing.Budget{Spent: func() float64 { return float64(time.Since(begin)) / float64(o.limit) }}
}

// search runs one search with nothing left over from the one before.
func (o options) search() annealing.Options {
	debug.FreeOSMemory()
	return annealing.Options{Seed: o.seed, Workers: runtime.NumCPU(), Budget: o.budget()}
}

func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
