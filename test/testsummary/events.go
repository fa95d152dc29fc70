package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// testName is empty in Test for what belongs to the package.
type testName struct{ Package, Test string }

// event is a line of `go test -json`; see `go doc cmd/test2json`.
type event struct {
	Action  string
	Package string
	Test    string
	Elapsed float64 // seconds
	Output  string
}

// result is how a test ended.
type result struct {
	testName
	Action  string // pass, fail or skip
	Seconds float64
	// Reason is why it was skipped.
	Reason string `json:",omitempty"`
}

// printer prints events as `go test` without -json would: all output when verbose, or
// that of failed tests and of packages.
type printer struct {
	out     io.Writer
	verbose bool
	// output of tests that have not ended.
	output map[testName][]string
}

// read prints all events and returns how the tests ended.
func (p *printer) read(events io.Reader) (results []result, err error) {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			results = p.take(line, results)
		}
		if err == io.EOF {
			return results, nil
		}
		if err != nil {
			return results, err
		}
	}
}

func (p *printer) take(line []byte, results []result) []result {
	var e event
	if json.Unmarshal(line, &e) != nil || e.Action == "" {
		_, _ = p.out.Write(line) // what is not of go test is for the reader
		return results
	}
	name := testName{e.Package, e.Test}
	switch e.Action {
	case "output":
		p.print(name, e.Output)
	case "build-output":
		fmt.Fprint(p.out, e.Output)
	case "pass", "fail", "skip":
		r := result{testName: name, Action: e.Action, Seconds: e.Elapsed}
		if e.Action == "skip" {
			r.Reason = reasonOf(p.output[name])
		}
		if e.Action == "fail" {
			p.show(name)
		}
		delete(p.output, name)
		if e.Test != "" {
			results = append(results, r)
		}
	}
	return results
}

func (p *printer) print(name testName, output string) {
	p.output[name] = append(p.output[name], output)
	if p.verbose {
		fmt.Fprint(p.out, output)
		return
	}
	// A package says ok or FAIL; PASS and the coverage come before.
	if name.Test == "" && output != "PASS\n" {
		fmt.Fprint(p.out, output)
	}
}

// show prints what a failed test said. Its parents failed too: each shows its own. With
// a package that failed come the tests that never ended.
func (p *printer) show(name testName) {
	if p.verbose {
		return
	}
	if name.Test == "" {
		for other := range p.output {
			if other.Package == name.Package && other.Test != "" {
				p.show(other)
			}
		}
		return
	}
	for _, line := range p.output[name] {
		if !strings.HasPrefix(line, "=== ") {
			fmt.Fprint(p.out, line)
		}
	}
}

// reasonOf is what a test said before it was skipped.
func reasonOf(output []string) string {
	reason := ""
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			reason = line
		}
	}
	return reason
}

func write(file io.Writer, results []result) error {
	encoder := json.NewEncoder(file)
	for _, r := range results {
		if err := encoder.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

func load(path string) (results []result, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	for decoder := json.NewDecoder(file); ; {
		var r result
		if err := decoder.Decode(&r); err == io.EOF {
			return results, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		results = append(results, r)
	}
}
