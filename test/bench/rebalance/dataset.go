package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// amounts of the resources that the benchmark looks at. A whole GPU is 1000.
type amounts struct {
	milliCPU, memoryMiB, gpuMilli int64
}

func (a amounts) plus(b amounts) amounts {
	return amounts{a.milliCPU + b.milliCPU, a.memoryMiB + b.memoryMiB, a.gpuMilli + b.gpuMilli}
}

func (a amounts) fitsIn(b amounts) bool {
	return a.milliCPU <= b.milliCPU && a.memoryMiB <= b.memoryMiB && a.gpuMilli <= b.gpuMilli
}

func (a amounts) share(of float64) amounts {
	return amounts{int64(float64(a.milliCPU) * of), int64(float64(a.memoryMiB) * of), int64(float64(a.gpuMilli) * of)}
}

// shape is the size of a node or of a pod in the data.
type shape struct {
	name string
	size amounts
}

// trace is the CPU use of a virtual machine, in percent, in steps of equal length.
type trace []float64

// dataset is what scenarios are drawn from.
type dataset struct {
	// source tells a reader where the data comes from.
	source string
	nodes  []shape
	pods   []shape
	traces []trace
}

// loadDataset reads <directory>/openb/*node*.csv, <directory>/openb/*pod*.csv and
// <directory>/usage/*.tgz. A directory that does not exist gives generated data.
func loadDataset(directory string) (*dataset, error) {
	if _, err := os.Stat(directory); directory == "" || errors.Is(err, fs.ErrNotExist) {
		return generateDataset(), nil
	}
	data := &dataset{}
	var sources []string
	for _, part := range []struct {
		pattern string
		read    func(io.Reader) error
	}{
		{"openb/*node*.csv", func(r io.Reader) (err error) { data.nodes, err = readNodes(r); return err }},
		{"openb/*pod*.csv", func(r io.Reader) (err error) { data.pods, err = readPods(r); return err }},
		{"usage/*.tgz", func(r io.Reader) (err error) { data.traces, err = readTraces(r); return err }},
	} {
		path, err := readOne(directory, part.pattern, part.read)
		if err != nil {
			return nil, err
		}
		sources = append(sources, path)
	}
	data.source = strings.Join(sources, ", ")
	return data, nil
}

// readOne reads the first file by name that matches, and returns its name.
func readOne(directory, pattern string, read func(io.Reader) error) (string, error) {
	paths, err := filepath.Glob(filepath.Join(directory, pattern))
	if err != nil || len(paths) == 0 {
		return "", errors.Join(fmt.Errorf("benchmark data: no file %s in %s", pattern, directory), err)
	}
	slices.Sort(paths)
	file, err := os.Open(paths[0])
	if err != nil {
		return "", fmt.Errorf("benchmark data: %w", err)
	}
	defer file.Close()
	if err := read(bufio.NewReader(file)); err != nil {
		return "", fmt.Errorf("benchmark data: %s: %w", paths[0], err)
	}
	return filepath.Base(paths[0]), nil
}

// readNodes reads openb's list of nodes: sn, cpu_milli, memory_mib, gpu.
func readNodes(r io.Reader) ([]shape, error) {
	return readShapes(r, "sn", []string{"cpu_milli", "memory_mib", "gpu"}, func(n []int64) amounts {
		return amounts{milliCPU: n[0], memoryMiB: n[1], gpuMilli: 1000 * n[2]}
	})
}

// readPods reads openb's list of pods: name, cpu_milli, memory_mib, num_gpu, and
// gpu_milli, which is the share of each GPU.
func readPods(r io.Reader) ([]shape, error) {
	return readShapes(r, "name", []string{"cpu_milli", "memory_mib", "num_gpu", "gpu_milli"}, func(n []int64) amounts {
		return amounts{milliCPU: n[0], memoryMiB: n[1], gpuMilli: n[2] * n[3]}
	})
}

// readShapes finds its columns by their names in the first line.
func readShapes(r io.Reader, name string, numbers []string, size func([]int64) amounts) ([]shape, error) {
	rows, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) < 2 {
		return nil, errors.New("it has no rows")
	}
	columns := make([]int, len(numbers))
	for i, number := range numbers {
		if columns[i] = slices.Index(rows[0], number); columns[i] < 0 {
			return nil, fmt.Errorf("it has no column %s", number)
		}
	}
	nameColumn := slices.Index(rows[0], name)
	if nameColumn < 0 {
		return nil, fmt.Errorf("it has no column %s", name)
	}
	var shapes []shape
	for i, row := range rows[1:] {
		values := make([]int64, len(columns))
		for j, column := range columns {
			if values[j], err = strconv.ParseInt(row[column], 10, 64); err != nil || values[j] < 0 {
				return nil, fmt.Errorf("line %d: %s is %q, want a number of at least 0", i+2, numbers[j], row[column])
			}
		}
		shapes = append(shapes, shape{name: row[nameColumn], size: size(values)})
	}
	return shapes, nil
}

// readTraces reads a .tar.gz in which every file is a trace, a percentage a line.
// The traces are in order of their paths.
func readTraces(r io.Reader) ([]trace, error) {
	unzipped, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	traces := map[string]trace{}
	var names []string
	for archive := tar.NewReader(unzipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if traces[header.Name], err = readTrace(archive); err != nil {
			return nil, fmt.Errorf("%s: %w", header.Name, err)
		}
		names = append(names, header.Name)
	}
	slices.Sort(names)
	sorted := make([]trace, len(names))
	for i, name := range names {
		sorted[i] = traces[name]
	}
	return sorted, nil
}

func readTrace(r io.Reader) (trace, error) {
	var t trace
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		text := strings.TrimSpace(lines.Text())
		if text == "" {
			continue
		}
		percent, err := strconv.ParseFloat(text, 64)
		if err != nil || percent < 0 || percent > 100 {
			return nil, fmt.Errorf("sample %q, want a percentage", text)
		}
		t = append(t, percent)
	}
	return t, lines.Err()
}
