package devcluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseNodeSpec(t *testing.T) {
	for _, test := range []struct {
		text string
		want NodeSpec
		ok   bool
	}{
		{"simulated:20", NodeSpec{Simulated, 20}, true},
		{"real:2", NodeSpec{Real, 2}, true},
		{"real:17", NodeSpec{}, false},
		{"simulated:0", NodeSpec{}, false},
		{"simulated:-1", NodeSpec{}, false},
		{"simulated", NodeSpec{}, false},
		{"simulated:", NodeSpec{}, false},
		{"simulated:two", NodeSpec{}, false},
		{"kind:2", NodeSpec{}, false},
		{"", NodeSpec{}, false},
	} {
		got, err := ParseNodeSpec(test.text)
		if (err == nil) != test.ok || got != test.want {
			t.Errorf("%q: %v, %v; want %v, ok %v", test.text, got, err, test.want, test.ok)
		}
		if err == nil && got.String() != test.text {
			t.Errorf("%q is written as %q", test.text, got)
		}
		if err != nil && !strings.Contains(err.Error(), test.text) {
			t.Errorf("%q: the error does not quote it: %v", test.text, err)
		}
	}
}

func TestNodeNamesSortAsTheyCount(t *testing.T) {
	names := NodeSpec{Simulated, 12}.Names()
	if diff := cmp.Diff([]string{"sim-01", "sim-02"}, names[:2]); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	for i := 1; i < len(names); i++ {
		if names[i-1] >= names[i] {
			t.Errorf("%s comes before %s", names[i-1], names[i])
		}
	}
	if diff := cmp.Diff([]string{"real-1", "real-2"}, NodeSpec{Real, 2}.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

// programs makes a directory with executable files of these names.
func programs(t *testing.T, names ...string) string {
	t.Helper()
	directory := t.TempDir()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(directory, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return directory
}

func TestMissingPrerequisitesAreNamedWithTheirRemedy(t *testing.T) {
	existing := t.TempDir()
	o := Options{
		BinDir:       programs(t, "etcd", "kube-apiserver", "metrics-server", "rebalancer"),
		ManifestsDir: existing, ConfigFile: filepath.Join(existing, "none.yaml"),
		Nodes: NodeSpec{Simulated, 1}, Components: []string{Scheduler, DefaultScheduler, Rebalancer},
	}
	err := o.checkPrerequisites()
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		filepath.Join(o.BinDir, "kube-controller-manager") + " is missing: run `make tools`",
		filepath.Join(o.BinDir, "kwok") + " is missing: run `make tools`",
		filepath.Join(o.BinDir, "scheduler") + " is missing: run `make build`",
		o.ConfigFile + " is missing: run this in the project's directory, or name the path",
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
	o.Components = []string{"unknown"}
	if err := o.checkPrerequisites(); err == nil || !strings.Contains(err.Error(), `"unknown"`) {
		t.Errorf("unknown component: %v", err)
	}
}

func TestOptionsMustBeComplete(t *testing.T) {
	whole := Options{StateDir: "s", BinDir: "b", ManifestsDir: "m", ConfigFile: "c", Nodes: NodeSpec{Simulated, 1}}
	completed, err := whole.complete()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{completed.StateDir, completed.BinDir, completed.ManifestsDir, completed.ConfigFile} {
		if !filepath.IsAbs(path) {
			t.Errorf("%s is not absolute", path)
		}
	}
	for name, spoil := range map[string]func(*Options){
		"no state directory": func(o *Options) { o.StateDir = "" },
		"no programs":        func(o *Options) { o.BinDir = "" },
		"no manifests":       func(o *Options) { o.ManifestsDir, o.Components = "", []string{Scheduler} },
		"no config":          func(o *Options) { o.ConfigFile = "" },
		"no nodes":           func(o *Options) { o.Nodes = NodeSpec{} },
	} {
		spoilt := whole
		spoil(&spoilt)
		if _, err := spoilt.complete(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A cluster that was started through a link must be found without it.
func TestLinksLeadToTheSameStateDirectory(t *testing.T) {
	directory := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(directory, link); err != nil {
		t.Fatal(err)
	}
	o := Options{StateDir: filepath.Join(link, "not", "yet"), BinDir: "b", ManifestsDir: "m", ConfigFile: "c", Nodes: NodeSpec{Simulated, 1}}
	completed, err := o.complete()
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(directory, "not", "yet"); completed.StateDir != want {
		t.Errorf("state directory %s, want %s", completed.StateDir, want)
	}
	if got, err := stateDirectory(link); err != nil || got != directory {
		t.Errorf("existing directory: %s, %v; want %s", got, err, directory)
	}
}
