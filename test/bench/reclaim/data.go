package main

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// step is one container of a pod. A nil amount is not set.
type step struct {
	name                string
	cpu, memory         *int64 // requests: thousandths of a CPU, and MiB
	cpuLimit, memoryMax *int64
	// finishes is false for a container that runs beside the steps to the end.
	finishes bool
}

// task is a kind of pod.
type task struct {
	name  string
	steps []step
}

// instance is a set of tasks that one cluster runs.
type instance struct {
	Name  string
	tasks []task
}

type node struct {
	name        string
	cpu, memory int64 // thousandths of a CPU, and MiB
}

type data struct {
	instances []instance
	nodes     []node
	// files that were read, and what was generated in their place.
	files, generated []string
}

// readData reads every CSV file below a directory whose columns are known.
func readData(directory string) (*data, error) {
	d := &data{}
	if directory == "" {
		return d, nil
	}
	err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".csv" {
			return err
		}
		return d.readFile(directory, path)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	return d, err
}

func (d *data) readFile(directory, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	rows, err := readRows(file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	name, err := filepath.Rel(directory, path)
	if err != nil || len(rows) == 0 {
		return err
	}
	has := func(columns ...string) bool {
		return !slices.ContainsFunc(columns, func(c string) bool { _, is := rows[0][c]; return !is })
	}
	switch {
	case has("sn", "cpu_milli", "memory_mib"):
		err = d.addNodes(rows)
	case has("date", "path", "order", "step", "cpu_request_m", "mem_request_MiB"):
		err = d.addTasks(name, rows, "step", func(r row) (group, task string) { return r["date"], r["path"] })
	case has("task", "kind", "order", "container", "cpu_request_m", "mem_request_MiB"):
		err = d.addTasks(name, rows, "container", func(r row) (group, task string) { return r["source"], r["path"] + " " + r["task"] })
	case has("job", "kind", "order", "container", "cpu_request_m", "mem_request_MiB"):
		// Jobs of one name are distinguished by where they are, and by their line.
		err = d.addTasks(name, rows, "container", func(r row) (group, task string) { return "", r["path"] + " " + r["job"] + " " + r["#job"] })
	default:
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	d.files = append(d.files, name)
	return nil
}

type row map[string]string

// readRows reads a table by its columns. Lines that begin a pod again (order 0)
// are numbered in the column #job.
func readRows(file io.Reader) ([]row, error) {
	reader := csv.NewReader(file)
	reader.FieldsPerRecord = -1
	lines, err := reader.ReadAll()
	if err != nil || len(lines) == 0 {
		return nil, err
	}
	rows, jobs := make([]row, 0, len(lines)), 0
	for _, line := range lines[1:] {
		r := row{}
		for i, column := range lines[0] {
			if i < len(line) {
				r[column] = strings.TrimSpace(line[i])
			}
		}
		if r["order"] == "0" {
			jobs++
		}
		r["#job"] = strconv.Itoa(jobs)
		rows = append(rows, r)
	}
	return rows, nil
}

func (d *data) addNodes(rows []row) error {
	for i, r := range rows {
		cpu, memory, err := amounts(r, "cpu_milli", "memory_mib")
		if err != nil || cpu == nil || memory == nil {
			return fmt.Errorf("line %d has no size of a node: %w", i+2, err)
		}
		d.nodes = append(d.nodes, node{name: r["sn"], cpu: *cpu, memory: *memory})
	}
	return nil
}

// addTasks makes an instance of every group of a file.
func (d *data) addTasks(file string, rows []row, nameColumn string, of func(row) (group, task string)) error {
	groups := map[string]map[string]*task{}
	for i, r := range rows {
		group, name := of(r)
		s, err := stepOf(r, nameColumn)
		if err != nil {
			return fmt.Errorf("line %d: %w", i+2, err)
		}
		if groups[group] == nil {
			groups[group] = map[string]*task{}
		}
		if groups[group][name] == nil {
			groups[group][name] = &task{name: name}
		}
		groups[group][name].steps = append(groups[group][name].steps, s)
	}
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		in := instance{Name: strings.TrimSuffix(file, ".csv")}
		if group != "" {
			in.Name += " " + group
		}
		for _, name := range slices.Sorted(maps.Keys(groups[group])) {
			in.tasks = append(in.tasks, *groups[group][name])
		}
		d.instances = append(d.instances, in)
	}
	return nil
}

func stepOf(r row, nameColumn string) (step, error) {
	s := step{name: r[nameColumn], finishes: r["kind"] != "sidecar"}
	var errRequests, errLimits error
	s.cpu, s.memory, errRequests = amounts(r, "cpu_request_m", "mem_request_MiB")
	s.cpuLimit, s.memoryMax, errLimits = amounts(r, "cpu_limit_m", "mem_limit_MiB")
	// The API server takes a limit for the request where there is none.
	s.cpu, s.memory = cmp.Or(s.cpu, s.cpuLimit), cmp.Or(s.memory, s.memoryMax)
	return s, errors.Join(errRequests, errLimits)
}

func amounts(r row, cpuColumn, memoryColumn string) (cpu, memory *int64, err error) {
	read := func(column string) *int64 {
		if r[column] == "" {
			return nil
		}
		value, parseErr := strconv.ParseFloat(r[column], 64)
		if parseErr != nil || value < 0 {
			err = errors.Join(err, fmt.Errorf("column %s: %q is no amount", column, r[column]))
			return nil
		}
		whole := int64(value)
		return &whole
	}
	return read(cpuColumn), read(memoryColumn), err
}
