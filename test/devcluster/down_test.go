package devcluster

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ai-storage/orchestrator/test/devcluster/process"
)

func TestVolumeDirectories(t *testing.T) {
	line := func(resource, object, path string) string {
		return `{"verb":"create","objectRef":{"resource":"` + resource + `"},"` + object + `":{"spec":{"hostPath":{"path":"` + path + `"}}}}` + "\n"
	}
	log := line("persistentvolumes", "responseObject", "/tmp/hostpath_pv/a") +
		line("persistentvolumes", "requestObject", "/tmp/hostpath_pv/refused") +
		line("pods", "responseObject", "/tmp/hostpath_pv/pod") +
		line("persistentvolumes", "responseObject", "/etc") +
		line("persistentvolumes", "responseObject", "/tmp/hostpath_pv/../../etc") +
		line("persistentvolumes", "responseObject", "/tmp/hostpath_pv/") +
		line("persistentvolumes", "responseObject", "/tmp/hostpath_pv/b") +
		`{"verb":"create","objectRef":{"resource":"persistentvolumes"},"responseObject":{"spec":{"hostPath":{"path":"/tmp/hostpath_pv/cut`
	got, err := volumeDirectories(strings.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/tmp/hostpath_pv/a", "/tmp/hostpath_pv/b"}, got); diff != "" {
		t.Errorf("directories (-want +got):\n%s", diff)
	}
}

// ourDirectory is a state directory that a cluster was in.
func ourDirectory(t *testing.T) string {
	t.Helper()
	stateDir := t.TempDir()
	release, err := lock(stateDir)
	if err != nil {
		t.Fatal(err)
	}
	release()
	return stateDir
}

func TestDownEndsWhatACrashLeft(t *testing.T) {
	stateDir := ourDirectory(t)
	start := func(name string) process.Record {
		record, err := process.Start(stateDir, process.Spec{Name: name, Path: "/bin/sleep", Args: []string{"600"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = record.End(t.Context()) })
		return record
	}
	recorded, lost := start("etcd"), start("kwok")
	foreign := filepath.Join(stateDir, "notes.txt")
	for _, err := range []error{
		state{Nodes: NodeSpec{Simulated, 1}}.write(stateDir),
		os.Remove(filepath.Join(stateDir, "processes", "kwok.json")),
		os.WriteFile(foreign, []byte("mine"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var said bytes.Buffer
	if err := Down(t.Context(), stateDir, &said); err != nil {
		t.Fatal(err)
	}
	if recorded.Alive() || lost.Alive() {
		t.Errorf("alive after down: recorded %v, lost %v", recorded.Alive(), lost.Alive())
	}
	var left []string
	entries, err := os.ReadDir(stateDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		left = append(left, entry.Name())
	}
	if diff := cmp.Diff([]string{lockFile, "logs", "notes.txt"}, left); diff != "" {
		t.Errorf("left in the state directory (-want +got):\n%s", diff)
	}
	if err := Down(t.Context(), stateDir, &said); err != nil {
		t.Errorf("second down: %v", err)
	}
	if !strings.HasSuffix(said.String(), "there is no cluster in "+stateDir+"\n") {
		t.Errorf("second down said:\n%s", said.String())
	}
}

// A directory of the user's may have entries of the same names as a state directory.
func TestDirectoriesOfOthersAreKept(t *testing.T) {
	for name, call := range map[string]func(stateDir string) error{
		"up": func(stateDir string) error {
			o := Options{
				StateDir: stateDir, BinDir: programs(t, "etcd", "kube-apiserver", "kube-controller-manager", "metrics-server", "kwok"),
				ManifestsDir: t.TempDir(), ConfigFile: t.TempDir(), Nodes: NodeSpec{Simulated, 1},
			}
			_, err := Up(t.Context(), o)
			return err
		},
		"down": func(stateDir string) error { return Down(t.Context(), stateDir, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			stateDir := t.TempDir()
			mine := map[string]string{"state.json": "{}", "config/mine.yaml": "a: 1", "logs/mine.log": "line"}
			for path, content := range mine {
				path = filepath.Join(stateDir, path)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			if err := call(stateDir); err == nil || !strings.Contains(err.Error(), "is not empty and no state directory") {
				t.Errorf("error %v, want a refusal of the directory", err)
			}
			for path, content := range mine {
				if got, err := os.ReadFile(filepath.Join(stateDir, path)); err != nil || string(got) != content {
					t.Errorf("%s: %q, %v", path, got, err)
				}
			}
			if _, err := os.Stat(filepath.Join(stateDir, lockFile)); err == nil {
				t.Error("the directory was taken")
			}
		})
	}
}

func TestDownWithoutDirectory(t *testing.T) {
	if err := Down(t.Context(), filepath.Join(t.TempDir(), "none"), nil); err != nil {
		t.Error(err)
	}
}

func TestOpenWithoutCluster(t *testing.T) {
	stateDir := t.TempDir()
	if _, err := Open(stateDir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("empty directory: %v", err)
	}
	if err := (state{Nodes: NodeSpec{Simulated, 1}, Complete: true}).write(stateDir); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(stateDir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("dead cluster: %v", err)
	}
}

func TestOneCommandAtATime(t *testing.T) {
	stateDir := t.TempDir()
	release, err := lock(stateDir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(stateDir); err == nil {
		t.Error("a second lock is granted")
	}
	release()
	again, err := lock(stateDir)
	if err != nil {
		t.Fatalf("after the release: %v", err)
	}
	again()
}
