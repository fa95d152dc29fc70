package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

const (
	// stopGrace is how long a process may take to end after SIGTERM.
	stopGrace = 15 * time.Second
	// killGrace is how long the kernel may take to end a process after SIGKILL.
	killGrace = 10 * time.Second

	pollInterval = 20 * time.Millisecond

	// environState and environName mark a process in its own environment, so
	// that it is found even when its record was never written or is lost.
	environState = "AI_STORAGE_DEVCLUSTER_STATE"
	environName  = "AI_STORAGE_DEVCLUSTER_PROCESS"
)

// ErrRunning says that a process of that name runs already.
var ErrRunning = errors.New("already running")

// Spec says what to run.
type Spec struct {
	// Name is unique in a state directory and names the log and the record.
	Name string
	// Path is the program.
	Path string
	Args []string
	// Env is added to the caller's environment.
	Env []string
	// Dir is the working directory; empty means the state directory.
	Dir string
}

// Record is what is remembered of a started process.
type Record struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// StartTicks is the start time of the process in clock ticks since boot
	// (field 22 of /proc/<pid>/stat): a pid that was given to another process
	// is not mistaken for ours.
	StartTicks uint64 `json:"startTicks"`
	Path       string `json:"path"`
}

// Start runs the process in a session of its own, so that it does not get the
// caller's Ctrl-C. Its output is appended to <stateDir>/logs/<name>.log. It
// returns ErrRunning when a process of that name is alive.
func Start(stateDir string, spec Spec) (Record, error) {
	if spec.Name == "" || strings.ContainsAny(spec.Name, "/\x00") {
		return Record{}, fmt.Errorf("start process: %q cannot name a file", spec.Name)
	}
	stateDir, err := filepath.Abs(stateDir)
	if err != nil {
		return Record{}, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	if old, err := load(stateDir, spec.Name); err == nil && old.Alive() {
		return old, fmt.Errorf("start %s: %w with pid %d", spec.Name, ErrRunning, old.PID)
	}
	for _, directory := range []string{logDirectory(stateDir), recordDirectory(stateDir)} {
		if err := os.MkdirAll(directory, 0o755); err != nil {
			return Record{}, fmt.Errorf("start %s: %w", spec.Name, err)
		}
	}
	log, err := os.OpenFile(LogPath(stateDir, spec.Name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return Record{}, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	defer log.Close()

	command := exec.Command(spec.Path, spec.Args...)
	command.Stdout, command.Stderr = log, log
	command.Dir = spec.Dir
	if command.Dir == "" {
		command.Dir = stateDir
	}
	command.Env = append(os.Environ(), spec.Env...)
	command.Env = append(command.Env, environState+"="+stateDir, environName+"="+spec.Name)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return Record{}, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	return remember(stateDir, spec, command)
}

func remember(stateDir string, spec Spec, command *exec.Cmd) (Record, error) {
	// Read before the wait below: an unreaped child keeps its entry in /proc.
	stat, err := readStat(command.Process.Pid)
	// A dead child must not stay a zombie while the caller lives on. How it
	// ended is for whoever watches it: its log tells.
	go func() { _ = command.Wait() }()
	if err != nil {
		_ = command.Process.Kill()
		return Record{}, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	record := Record{Name: spec.Name, PID: command.Process.Pid, StartTicks: stat.startTicks, Path: spec.Path}
	if err := save(stateDir, record); err != nil {
		_ = command.Process.Kill()
		return Record{}, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	return record, nil
}

// Alive tells whether this very process still runs.
func (r Record) Alive() bool {
	stat, err := readStat(r.PID)
	return err == nil && stat.startTicks == r.StartTicks && !stat.isOver()
}

// Signal sends a signal to the process if it is alive.
func (r Record) Signal(signal syscall.Signal) error {
	if !r.Alive() {
		return nil
	}
	if err := syscall.Kill(r.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %s to %s (pid %d): %w", signal, r.Name, r.PID, err)
	}
	return nil
}

// Stop ends the process: SIGTERM, then SIGKILL when it has not ended after a
// grace of 15 s or when ctx is done. Nothing to stop is no error. The record
// is removed once the process is gone.
func Stop(ctx context.Context, stateDir, name string) error {
	record, err := load(stateDir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	if err := record.End(ctx); err != nil {
		return err
	}
	return forget(stateDir, name)
}

// Kill ends the process with SIGKILL at once, as a crash would.
func Kill(stateDir, name string) error {
	record, err := load(stateDir, name)
	if err != nil {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	if err := record.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	if !record.waitGone(context.Background(), killGrace) {
		return fmt.Errorf("kill %s: pid %d is still there %s after SIGKILL", name, record.PID, killGrace)
	}
	return forget(stateDir, name)
}

// End ends the process like Stop and keeps the record.
func (r Record) End(ctx context.Context) error {
	if err := r.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if r.waitGone(ctx, stopGrace) {
		return nil
	}
	if err := r.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	// Not ctx: when it is done, that is one more reason to see the end of this.
	if !r.waitGone(context.WithoutCancel(ctx), killGrace) {
		return fmt.Errorf("stop %s: pid %d is still there %s after SIGKILL", r.Name, r.PID, killGrace)
	}
	return nil
}

func (r Record) waitGone(ctx context.Context, grace time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for r.Alive() {
		select {
		case <-ctx.Done():
			return !r.Alive()
		case <-ticker.C:
		}
	}
	return true
}

// List returns the records of the state directory, sorted by name, those of dead
// processes too. A state directory that is not there has none.
func List(stateDir string) ([]Record, error) {
	paths, err := filepath.Glob(filepath.Join(recordDirectory(stateDir), "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	sort.Strings(paths)
	var records []Record
	for _, path := range paths {
		record, err := load(stateDir, strings.TrimSuffix(filepath.Base(path), ".json"))
		if err != nil {
			return records, fmt.Errorf("list processes: %w", err)
		}
		records = append(records, record)
	}
	return records, nil
}

func load(stateDir, name string) (Record, error) {
	content, err := os.ReadFile(recordPath(stateDir, name))
	if err != nil {
		return Record{}, err
	}
	var record Record
	if err := json.Unmarshal(content, &record); err != nil {
		return Record{}, fmt.Errorf("read %s: %w", recordPath(stateDir, name), err)
	}
	return record, nil
}

// save replaces the record in one step: a crash leaves the old or the new one.
func save(stateDir string, record Record) error {
	content, err := json.Marshal(record)
	if err != nil {
		return err
	}
	path := recordPath(stateDir, record.Name)
	if err := os.WriteFile(path+".new", append(content, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func forget(stateDir, name string) error {
	if err := os.Remove(recordPath(stateDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget %s: %w", name, err)
	}
	return nil
}

func recordDirectory(stateDir string) string { return filepath.Join(stateDir, "processes") }
func logDirectory(stateDir string) string    { return filepath.Join(stateDir, "logs") }

func recordPath(stateDir, name string) string {
	return filepath.Join(recordDirectory(stateDir), name+".json")
}

// LogPath is where the output of a process goes.
func LogPath(stateDir, name string) string { return filepath.Join(logDirectory(stateDir), name+".log") }
