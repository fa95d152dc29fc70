package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ai-storage/orchestrator/pkg/scheduling/repack"
	"github.com/ai-storage/orchestrator/test/bench/vmr"
)

// shapeCores is the size of the piece that free room should hold (FR16).
const shapeCores = 16

var moveCaps = []int{10, 25, 50, 100}

type repackingResult struct {
	Instance  string  `json:"instance"`
	MaxMoves  int     `json:"maxMoves"`
	Moves     int     `json:"moves"`
	Before    float64 `json:"fragmentRateBefore"`
	After     float64 `json:"fragmentRateAfter"`
	Seconds   float64 `json:"seconds"`
	Instances int     `json:"instances"`
}

// isSnapshot looks for the key that every snapshot has.
func isSnapshot(path string) bool {
	content, err := os.ReadFile(path)
	return err == nil && bytes.Contains(content, []byte(`"cluster_list"`))
}

func repackAll(snapshots []string, o options) ([]repackingResult, error) {
	if len(snapshots) == 0 {
		return nil, nil
	}
	fmt.Printf("\nRepacking, %s a search, seed %d; every list of moves was replayed in its order\n", o.limit, o.seed)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "INSTANCE\tCAP\tMOVES\tFR16 BEFORE\tFR16 AFTER\tSECONDS")
	var all []repackingResult
	var failures []error
	for _, path := range snapshots {
		snapshot, err := readSnapshot(path)
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", path, err))
			continue
		}
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		for _, moveCap := range moveCaps {
			result, err := repackOne(name, snapshot, moveCap, o)
			if err != nil {
				failures = append(failures, fmt.Errorf("%s: %w", path, err))
				break
			}
			all = append(all, result)
			fmt.Fprintf(table, "%s\t%d\t%d\t%.4f\t%.4f\t%.1f\n", name, moveCap, result.Moves, result.Before, result.After, result.Seconds)
		}
	}
	return all, errors.Join(append(failures, table.Flush())...)
}

func readSnapshot(path string) (*vmr.Snapshot, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return vmr.Parse(file)
}

func repackOne(name string, snapshot *vmr.Snapshot, moveCap int, o options) (repackingResult, error) {
	packing, index := snapshot.Packing(shapeCores)
	begin := time.Now()
	found, err := repack.Search(packing, moveCap, o.search())
	if err != nil {
		return repackingResult{}, err
	}
	result := repackingResult{
		Instance: name, MaxMoves: moveCap, Moves: len(found.Moves), Instances: len(packing.Items),
		Before: snapshot.FragmentRate(shapeCores), Seconds: time.Since(begin).Seconds(),
	}
	if len(found.Moves) > moveCap {
		return repackingResult{}, fmt.Errorf("%d moves, at most %d are allowed", len(found.Moves), moveCap)
	}
	moves := index.MovesOf(found.Moves)
	after, err := snapshot.Replay(moves)
	if err != nil {
		return repackingResult{}, err
	}
	result.After = after.FragmentRate(shapeCores)
	return result, writeFile(filepath.Join(o.out, fmt.Sprintf("%s-%d.moves", name, moveCap)), func(f *os.File) error {
		return vmr.WriteMoves(f, moves)
	})
}
