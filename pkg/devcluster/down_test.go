package devcluster

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ai-storage/orchestrator/pkg/devcluster/process"
)

func TestVolumeFolders(t *testing.T) {
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
	got, err := volumeFolders(strings.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/tmp/hostpath_pv/a", "/tmp/hostpath_pv/b"}, got); diff != "" {
		t.Errorf("folders (-want +got):\n%s", diff)
	}
}

func TestDownEndsWhatACrashLeft(t *testing.T) {
	stateDir := t.TempDir()
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
	if diff := cmp.Diff([]string{"logs", "notes.txt"}, left); diff != "" {
		t.Errorf("left in the state folder (-want +got):\n%s", diff)
	}
	if err := Down(t.Context(), stateDir, &said); err != nil {
		t.Errorf("second down: %v", err)
	}
	if !strings.HasSuffix(said.String(), "there is no cluster in "+stateDir+"\n") {
		t.Errorf("second down said:\n%s", said.String())
	}
}

func TestDownWithoutFolder(t *testing.T) {
	if err := Down(t.Context(), filepath.Join(t.TempDir(), "none"), nil); err != nil {
		t.Error(err)
	}
}

func TestOpenWithoutCluster(t *testing.T) {
	stateDir := t.TempDir()
	if _, err := Open(stateDir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("empty folder: %v", err)
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
