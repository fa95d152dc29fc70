package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ai-storage/orchestrator/test/bench/roadef"
	"github.com/ai-storage/orchestrator/test/bench/vmr"
)

func TestWithoutDataGeneratedInstancesAreMeasured(t *testing.T) {
	out := t.TempDir()
	if err := run(options{data: filepath.Join(out, "absent"), out: out, limit: 300 * time.Millisecond, seed: 1}); err != nil {
		t.Fatal(err)
	}
	var r results
	content, err := os.ReadFile(filepath.Join(out, "planner.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &r); err != nil {
		t.Fatal(err)
	}
	if !r.Generated || len(r.Reassignment) != 1 || len(r.Repacking) != len(moveCaps) {
		t.Fatalf("results of %d and %d searches, generated %t", len(r.Reassignment), len(r.Repacking), r.Generated)
	}

	// What was written is what the figures say.
	problem, start, err := readInstance(filepath.Join(out, "model_generated.txt"), filepath.Join(out, "assignment_generated.txt"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(filepath.Join(out, "generated.solution"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	end, err := roadef.ParseAssignment(file, problem)
	if err != nil {
		t.Fatal(err)
	}
	if err := roadef.Check(problem, start, end); err != nil {
		t.Error(err)
	}
	if cost := roadef.Cost(problem, start, end); cost != r.Reassignment[0].Cost || cost >= r.Reassignment[0].InitialCost {
		t.Errorf("cost %d of the file, %d in the results, %d at the start", cost, r.Reassignment[0].Cost, r.Reassignment[0].InitialCost)
	}
	checkMoves(t, out, r.Repacking)
}

func checkMoves(t *testing.T, out string, all []repackingResult) {
	t.Helper()
	snapshot, err := readSnapshot(filepath.Join(out, "generated.json"))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"generated-10.moves", "generated-25.moves", "generated-50.moves", "generated-100.moves"} {
		file, err := os.Open(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		moves, err := vmr.ReadMoves(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		after, err := snapshot.Replay(moves)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(moves) != all[i].Moves || len(moves) > all[i].MaxMoves || after.FragmentRate(shapeCores) != all[i].After {
			t.Errorf("%s: %d moves to %f, the results say %+v", name, len(moves), after.FragmentRate(shapeCores), all[i])
		}
	}
}

func TestInstancesAreFoundByTheirForm(t *testing.T) {
	directory := t.TempDir()
	for name, content := range map[string]string{
		"b/model_x.txt": "", "b/assignment_x.txt": "", "a/snapshot.json": `{"cluster_list": []}`, "a/other.json": `{"nodes": []}`, "readme.txt": "",
	} {
		path := filepath.Join(directory, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	models, snapshots, err := find(directory)
	if err != nil {
		t.Fatal(err)
	}
	if len(models) != 1 || filepath.Base(models[0]) != "model_x.txt" || len(snapshots) != 1 || filepath.Base(snapshots[0]) != "snapshot.json" {
		t.Errorf("found %v and %v", models, snapshots)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []options{{limit: time.Second}, {out: t.TempDir()}} {
		if err := run(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}
