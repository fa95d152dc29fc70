package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// Written by hand: two steps of which the first asks for 500m and 64 MiB, and a
// pod of one container.
var files = map[string]string{
	"pods/history.csv": "commit,date,path,order,step,cpu_request_m,mem_request_MiB,cpu_limit_m,mem_limit_MiB\n" +
		"x,2024-01-01,a.yaml,0,build,500.0,64.0,,64.0\nx,2024-01-01,a.yaml,1,push,100.0,,,\n",
	"pods/jobs.csv": "source,path,job,kind,order,container,cpu_request_m,mem_request_MiB,cpu_limit_m,mem_limit_MiB,cluster\n" +
		"s,j.yaml,j,container,0,,4000.0,6144.0,4000.0,6144.0,c\n",
	"nodes/nodes.csv": "sn,cpu_milli,memory_mib,gpu,model\nn-0,6000,262144,2,P100\n",
	"other.csv":       "a,b\n1,2\n",
}

func directory(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestFiguresOfASmallCluster(t *testing.T) {
	d, err := readData(directory(t, files))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.files) != 3 || len(d.instances) != 2 || len(d.nodes) != 1 {
		t.Fatalf("read %v: %d instances, %d nodes", d.files, len(d.instances), len(d.nodes))
	}
	o := options{seed: 1, podsPerNode: 110}
	history, err := measure(d.instances[0], d.nodes, o)
	if err != nil {
		t.Fatal(err)
	}
	// Ten pods of 600m fill 6 CPUs. Of each, 499m of 500m and 63 of 64 MiB come free:
	// room for 8 more pods, and for 8 if all of the 500m were free.
	want := stage{Stage: 1, FinishedSteps: 10, CPUCeiling: 5, CPUReclaimed: 4.99, MemoryCeiling: 640.0 / 1024, MemoryReclaimed: 630.0 / 1024, Extra: 8, ExtraCeiling: 8}
	got := history.Stages[1]
	if round := func(s stage) stage {
		for _, v := range []*float64{&s.CPUCeiling, &s.CPUReclaimed, &s.MemoryCeiling, &s.MemoryReclaimed} {
			*v = float64(int(*v*1e6+0.5)) / 1e6
		}
		return s
	}; round(got) != round(want) || history.Pods != 10 || history.Control {
		t.Errorf("%d pods, control %t, stage\n%+v, want\n%+v", history.Pods, history.Control, got, want)
	}
	control, err := measure(d.instances[1], d.nodes, o)
	if err != nil {
		t.Fatal(err)
	}
	if !control.Control || control.Resizes != 0 || control.Stages[0].CPUReclaimed != 0 {
		t.Errorf("the negative control: %+v", control)
	}
	control.Stages[0].CPUReclaimed = 0.001
	if problems := (&report{Results: []*result{control}}).problems(); len(problems) != 1 {
		t.Errorf("a control that is not zero goes unnoticed: %v", problems)
	}
}

func TestBadAmountsAreNamed(t *testing.T) {
	bad := map[string]string{"h.csv": strings.Replace(files["pods/history.csv"], "500.0", "many", 1)}
	if _, err := readData(directory(t, bad)); err == nil || !strings.Contains(err.Error(), "line 2") || !strings.Contains(err.Error(), "cpu_request_m") {
		t.Errorf("error %v, want one that names the line and the column", err)
	}
}

func TestGeneratedDataIsSaidAndTheSameForASeed(t *testing.T) {
	var results [2][]*result
	for i := range results {
		var out bytes.Buffer
		o := options{data: filepath.Join(t.TempDir(), "none"), out: t.TempDir(), seed: 3, podsPerNode: 30}
		if err := run(o, &out); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), "GENERATED from the seed, since no file has them: nodes, pods") {
			t.Errorf("it is not said that the data is generated:\n%s", out.String())
		}
		if _, err := os.Stat(filepath.Join(o.out, "reclaim.json")); err != nil {
			t.Error(err)
		}
		d := &data{}
		d.complete(o.seed)
		for _, in := range d.instances {
			r, err := measure(in, d.nodes, o)
			if err != nil {
				t.Fatal(err)
			}
			results[i] = append(results[i], r)
		}
	}
	if !reflect.DeepEqual(results[0], results[1]) {
		t.Error("the same seed gave other results")
	}
	if last := results[0][0].Stages[len(results[0][0].Stages)-1]; last.CPUReclaimed == 0 || last.CPUReclaimed > last.CPUCeiling {
		t.Errorf("generated pipelines: %+v", last)
	}
}
