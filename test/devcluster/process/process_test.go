package process

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func startShell(t *testing.T, stateDir, name, script string) Record {
	t.Helper()
	record, err := Start(stateDir, Spec{Name: name, Path: "/bin/sh", Args: []string{"-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = record.Signal(syscall.SIGKILL) })
	return record
}

func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !met() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestStartStop(t *testing.T) {
	stateDir := t.TempDir()
	record := startShell(t, stateDir, "sleeper", "echo one; echo two; pwd; exec sleep 600")
	if !record.Alive() {
		t.Fatal("a started process is not alive")
	}
	eventually(t, "output in the log", func() bool {
		return LogTail(stateDir, "sleeper", 2) == "two\n"+stateDir
	})
	if session, err := syscall.Getpgid(record.PID); err != nil || session != record.PID {
		t.Errorf("process group %d, %v; want its own, %d", session, err, record.PID)
	}
	listed, err := List(stateDir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Record{record}, listed); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if _, err := Start(stateDir, Spec{Name: "sleeper", Path: "/bin/true"}); !errors.Is(err, ErrRunning) {
		t.Errorf("second start: %v, want %v", err, ErrRunning)
	}
	for range 2 {
		if err := Stop(t.Context(), stateDir, "sleeper"); err != nil {
			t.Fatal(err)
		}
	}
	if record.Alive() {
		t.Error("alive after stop")
	}
	if listed, err := List(stateDir); err != nil || len(listed) != 0 {
		t.Errorf("list after stop: %v, %v; want nothing", listed, err)
	}
}

func TestStopKillsWhatIgnoresTerm(t *testing.T) {
	stateDir := t.TempDir()
	record := startShell(t, stateDir, "stubborn", `trap "" TERM; echo ready; while :; do sleep 1; done`)
	eventually(t, "the trap", func() bool { return LogTail(stateDir, "stubborn", 1) == "ready" })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := Stop(ctx, stateDir, "stubborn"); err != nil {
		t.Fatal(err)
	}
	if record.Alive() {
		t.Error("alive after stop")
	}
}

func TestEndedProcessIsNotAlive(t *testing.T) {
	stateDir := t.TempDir()
	record := startShell(t, stateDir, "short", "exit 3")
	eventually(t, "the end of a short process", func() bool { return !record.Alive() })
	again := startShell(t, stateDir, "short", "exec sleep 600")
	if err := Kill(stateDir, "short"); err != nil {
		t.Fatal(err)
	}
	if again.Alive() {
		t.Error("alive after kill")
	}
}

func TestReusedPIDIsNotAlive(t *testing.T) {
	self, err := readStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	ours := Record{Name: "self", PID: os.Getpid(), StartTicks: self.startTicks}
	if !ours.Alive() {
		t.Error("this test is not alive")
	}
	ours.StartTicks--
	if ours.Alive() {
		t.Error("a process with another start time counts as ours")
	}
	// Must not reach this process.
	if err := ours.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

func TestStraysAreFoundWithoutRecord(t *testing.T) {
	stateDir := t.TempDir()
	lost := startShell(t, stateDir, "lost", "exec sleep 600")
	startShell(t, stateDir, "kept", "exec sleep 600")
	startShell(t, t.TempDir(), "other", "exec sleep 600")
	if err := os.Remove(filepath.Join(stateDir, "processes", "lost.json")); err != nil {
		t.Fatal(err)
	}
	// The path and the environment are the child's own only once it has called exec.
	eventually(t, "the stray", func() bool {
		strays, err := Strays(stateDir)
		if err != nil {
			t.Fatal(err)
		}
		return len(strays) == 1 && strays[0].Name == "lost" && strays[0].PID == lost.PID
	})
	strays, err := Strays(stateDir)
	if err != nil || len(strays) != 1 {
		t.Fatalf("strays: %v, %v", strays, err)
	}
	if err := strays[0].End(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lost.Alive() {
		t.Error("alive after its end")
	}
}

func TestStartRefuses(t *testing.T) {
	for name, spec := range map[string]Spec{
		"no name":         {Path: "/bin/true"},
		"name of a path":  {Name: "../x", Path: "/bin/true"},
		"missing program": {Name: "x", Path: "/does/not/exist"},
	} {
		t.Run(name, func(t *testing.T) {
			stateDir := t.TempDir()
			if _, err := Start(stateDir, spec); err == nil {
				t.Error("want an error")
			}
			if listed, err := List(stateDir); err != nil || len(listed) != 0 {
				t.Errorf("list: %v, %v; want nothing", listed, err)
			}
		})
	}
}

func TestParseStat(t *testing.T) {
	line := "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3"
	got, err := parseStat(line)
	if want := (stat{state: 'S', threads: 1, startTicks: 987654}); err != nil || got != want {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if _, err := parseStat("42 (short) S 1"); err == nil {
		t.Error("a short line is accepted")
	}
}

func TestAProcessIsOverWithItsLastThread(t *testing.T) {
	for state, want := range map[stat]bool{
		{state: 'S', threads: 1}: false,
		{state: 'Z', threads: 3}: false,
		{state: 'Z', threads: 1}: true,
		{state: 'X'}:             true,
	} {
		if got := state.isOver(); got != want {
			t.Errorf("%c with %d threads is over: %t, want %t", state.state, state.threads, got, want)
		}
	}
}

func TestLogTailWithoutLog(t *testing.T) {
	if got := LogTail(t.TempDir(), "none", 3); !strings.Contains(got, "no log") {
		t.Errorf("got %q", got)
	}
}

func TestStartReady(t *testing.T) {
	stateDir := t.TempDir()
	t.Cleanup(func() { _ = Stop(context.Background(), stateDir, "p") })
	notYet := errors.New("not yet")
	start := func(ctx context.Context, script string, ready func(context.Context) error) error {
		return StartReady(ctx, stateDir, Spec{Name: "p", Path: "/bin/sh", Args: []string{"-c", script}}, ready)
	}
	err := start(t.Context(), "echo broken pipe dream; exit 1", func(context.Context) error { return notYet })
	if err == nil || !strings.Contains(err.Error(), "broken pipe dream") {
		t.Errorf("process that ends: %v; want its log quoted", err)
	}
	calls := 0
	if err := start(t.Context(), "exec sleep 600", func(context.Context) error {
		if calls++; calls < 3 {
			return notYet
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := Stop(t.Context(), stateDir, "p"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = start(ctx, "exec sleep 600", func(context.Context) error { cancel(); return notYet })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled wait: %v", err)
	}
}
