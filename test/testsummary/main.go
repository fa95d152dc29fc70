// Testsummary runs `go test` for .ci/run: it prints what go test prints, keeps its exit
// code, and records every test, so that a summary of several runs can name the slowest
// tests and those that were skipped.
//
//	testsummary run --record=tests.jsonl go test -v ./...
//	testsummary report --record=tests.jsonl --expected=expected-skips.txt
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(arguments []string) (code int, err error) {
	if len(arguments) == 0 {
		return 2, errors.New("want run or report")
	}
	flags := flag.NewFlagSet("testsummary "+arguments[0], flag.ContinueOnError)
	record := flags.String("record", "tests.jsonl", "file of the results, one line for each test")
	expected := flags.String("expected", "", "file of the skips that are expected")
	slowest := flags.Int("slowest", 10, "how many of the slowest tests to print")
	if err := flags.Parse(arguments[1:]); err != nil {
		return 2, err
	}
	switch arguments[0] {
	case "run":
		return runTests(*record, flags.Args())
	case "report":
		return report(*record, *expected, *slowest)
	default:
		return 2, fmt.Errorf("unknown command %q: want run or report", arguments[0])
	}
}

// runTests runs `go test` with -json, and returns its exit code.
func runTests(record string, command []string) (code int, err error) {
	at := slices.Index(command, "test")
	if at < 1 {
		return 2, fmt.Errorf("want a command like go test, not %q", command)
	}
	file, err := os.OpenFile(record, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 1, err
	}
	defer file.Close()
	test := exec.Command(command[0], slices.Insert(slices.Clone(command[1:]), at, "-json")...)
	test.Stderr = os.Stderr
	events, err := test.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := test.Start(); err != nil {
		return 1, err
	}
	p := &printer{out: os.Stdout, verbose: slices.Contains(command, "-v"), output: map[testName][]string{}}
	results, readErr := p.read(events)
	waitErr := test.Wait()
	var exit *exec.ExitError
	if waitErr != nil && !errors.As(waitErr, &exit) {
		return 1, waitErr
	}
	return test.ProcessState.ExitCode(), errors.Join(readErr, write(file, results))
}

// report prints what was recorded; a skip that is not expected is an error.
func report(record, expectedFile string, slowest int) (code int, err error) {
	results, err := load(record)
	if err != nil {
		return 1, err
	}
	var expected []skip
	if expectedFile != "" {
		if expected, err = loadSkips(expectedFile); err != nil {
			return 1, err
		}
	}
	summary := summarize(results, expected, slowest)
	fmt.Print(summary.text)
	if len(summary.unexpected) > 0 {
		return 1, fmt.Errorf("%d tests were skipped that %s does not name: %q", len(summary.unexpected), expectedFile, summary.unexpected)
	}
	return 0, nil
}
