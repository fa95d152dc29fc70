package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

type stat struct {
	state      byte
	threads    uint64
	startTicks uint64
}

// isOver reports whether nothing of the process runs any more. The first thread
// of a killed process may be gone while others still are: the process then looks
// dead, and has its files and ports.
func (s stat) isOver() bool { return s.state == 'X' || s.state == 'Z' && s.threads <= 1 }

func readStat(pid int) (stat, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(content))
}

// parseStat reads fields 3, 20 and 22 of /proc/<pid>/stat (proc(5)). Field 2 is the
// program's name in parentheses and may itself hold spaces and parentheses.
func parseStat(line string) (stat, error) {
	_, rest, found := cutLast(line, ")")
	fields := strings.Fields(rest)
	if !found || len(fields) < 20 {
		return stat{}, fmt.Errorf("read process state: %q is not a line of /proc/<pid>/stat", line)
	}
	threads, err := strconv.ParseUint(fields[17], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("read number of threads: %w", err)
	}
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("read process start time: %w", err)
	}
	return stat{state: fields[0][0], threads: threads, startTicks: ticks}, nil
}

func cutLast(s, separator string) (before, after string, found bool) {
	at := strings.LastIndex(s, separator)
	if at < 0 {
		return s, "", false
	}
	return s[:at], s[at+len(separator):], true
}

// Strays returns the live processes that were started for the state directory and
// have no record: their starter was killed in between, or the directory was
// deleted under them. Children of a recorded process inherit its mark and are
// strays once it is gone. Processes of other users are not seen.
func Strays(stateDir string) ([]Record, error) {
	stateDir, err := filepath.Abs(stateDir)
	if err != nil {
		return nil, fmt.Errorf("look for stray processes: %w", err)
	}
	recorded, err := List(stateDir)
	if err != nil {
		return nil, err
	}
	known := map[int]bool{os.Getpid(): true}
	for _, record := range recorded {
		known[record.PID] = record.Alive()
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for stray processes: %w", err)
	}
	var strays []Record
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || known[pid] {
			continue
		}
		// A process can end at any moment between these reads.
		environ, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if err != nil {
			continue
		}
		name, marked := markedName(environ, stateDir)
		stat, err := readStat(pid)
		if !marked || err != nil {
			continue
		}
		path, _ := os.Readlink(filepath.Join("/proc", entry.Name(), "exe"))
		stray := Record{Name: name, PID: pid, StartTicks: stat.startTicks, Path: path}
		if stray.Alive() {
			strays = append(strays, stray)
		}
	}
	return strays, nil
}

func markedName(environ []byte, stateDir string) (string, bool) {
	var name string
	var marked bool
	for _, variable := range bytes.Split(environ, []byte{0}) {
		key, value, _ := strings.Cut(string(variable), "=")
		switch key {
		case environState:
			marked = value == stateDir
		case environName:
			name = value
		}
	}
	return name, marked
}

// tailBytes is enough for the last lines of any log of ours.
const tailBytes = 256 << 10

// LogTail returns the last lines that a process wrote, for error messages. A
// log that cannot be read gives a text that says so.
func LogTail(stateDir, name string, lines int) string {
	tail, err := readTail(LogPath(stateDir, name))
	if err != nil {
		return fmt.Sprintf("(no log: %v)", err)
	}
	all := strings.Split(strings.TrimRight(tail, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func readTail(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	content := make([]byte, min(info.Size(), tailBytes))
	read, err := file.ReadAt(content, info.Size()-int64(len(content)))
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return string(content[:read]), nil
}
