package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFinish(t *testing.T) {
	r := &result{}
	for second := range 101 {
		p := point{Seconds: float64(second), Deviation: 20, Skipped: 20, Overutilized: 4}
		if second > 40 {
			p.Deviation, p.Skipped, p.Overutilized = 10, 22, 1
		}
		if second == 50 {
			p.Down = 3
		}
		r.observe(p)
	}
	moves := []move{
		{Workload: "w", Replica: 0, From: "A", To: "B"},
		{Workload: "w", Replica: 0, From: "B", To: "A", Undoes: true},
		{Workload: "w", Replica: 1, From: "A", To: "A"},
		{Workload: "v", Replica: 0, From: "A", To: "C"},
	}
	r.finish(moves, 2)
	if r.Moves != 4 || r.Undone != 1 || r.Back != 2 || r.Repeated != 1 || r.Strangers != 2 || r.DownSeconds != 3 {
		t.Errorf("counted %+v", r)
	}
	if r.Before != 20 || r.After != 10 || r.Skipped != 22 || r.OverutilizedBefore != 4 || r.OverutilizedAfter != 1 {
		t.Errorf("figures %+v", r)
	}
	if want := (41*20.0 + 60*10) / 101; r.Average != want {
		t.Errorf("average %g, want %g", r.Average, want)
	}
}

func TestReport(t *testing.T) {
	r := &report{Version: "v1", Results: []*result{{Arm: "ours", Seed: 7, Before: 23.456, Moves: 41, Failures: []string{"p: why"}}}}
	var out bytes.Buffer
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ours", "23.46%", " 41 "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
	r.add(&result{Arm: "descheduler", Seed: 7, loadAverage: 3})
	r.add(&result{Arm: "ours", Seed: 2, loadAverage: 1})
	if r.Results[0].Seed != 2 || r.Results[1].Arm != "descheduler" || r.LoadAverage != 3 {
		t.Errorf("results are not in order, or the load average is not the highest: %+v", r)
	}
	path := filepath.Join(t.TempDir(), "r.json")
	if err := r.save(path); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var read report
	if err := json.Unmarshal(content, &read); err != nil || read.Results[2].Moves != 41 {
		t.Errorf("read %+v, %v", read, err)
	}
}

func TestVerdicts(t *testing.T) {
	got := verdicts([]*result{
		{Arm: "ours", Seed: 1, After: 10, Moves: 20}, {Arm: "descheduler", Seed: 1, After: 12, Moves: 30},
		{Arm: "descheduler-deviation", Seed: 1, After: 10, Moves: 19},
		{Arm: "ours", Seed: 2, After: 10, Moves: 20, Back: 1, Undone: 1}, {Arm: "descheduler", Seed: 2, After: 12, Moves: 30},
	})
	want := []string{
		"seed 1, ours against descheduler: lower deviation yes, fewer moves yes, none back at its source yes, none undone yes",
		"seed 1, ours against descheduler-deviation: lower deviation NO, fewer moves NO, none back at its source yes, none undone yes",
		"seed 2, ours against descheduler: lower deviation yes, fewer moves yes, none back at its source NO, none undone NO",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

func TestParse(t *testing.T) {
	valid := []string{"--config=testdata", "--seeds=4,5", "--arms=ours,descheduler-deviation", "--duration=2m"}
	o, err := parse(valid)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.seeds) != 2 || len(o.arms) != 2 || o.arms[1].policy != "descheduler-deviation.yaml" || o.interval != 30*time.Second || o.overutilized != 0.7 {
		t.Errorf("options %+v", o)
	}
	if order := trials(o); len(order) != 4 || order[0].seed != 4 || order[1].seed != 4 || order[0].arm.name == order[1].arm.name {
		t.Error("the arms of one seed do not run side by side")
	}
	for _, bad := range []string{"--seeds=x", "--arms=theirs", "--nodes=3", "--parallel=0", "--duration=30s", "--step=5s", "--config=nowhere"} {
		if _, err := parse(append(valid, bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}
