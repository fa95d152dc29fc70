package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	os.Exit(dispatch(os.Args[1:]))
}

func dispatch(arguments []string) int {
	if len(arguments) == 0 {
		fmt.Fprintln(os.Stderr, "usage: workload run|record|collect|fill|get|pause")
		return 2
	}
	command, arguments := arguments[0], arguments[1:]
	switch command {
	case "run":
		return withOptions(command, arguments, parseRun, func(o runOptions) (int, error) { return run(o, os.Stdout) })
	case "record":
		return withOptions(command, arguments, parseRecord, func(o recordOptions) (int, error) { return codeOf(record(o, os.Stdout)) })
	case "fill":
		return withOptions(command, arguments, parseFill, func(o fillOptions) (int, error) { return codeOf(fill(o)) })
	case "collect":
		return report(command)(codeOf(collect(arguments, os.Stderr)))
	case "get":
		return report(command)(codeOf(get(arguments, os.Stdout)))
	case "pause":
		return pause()
	default:
		fmt.Fprintf(os.Stderr, "workload: no command %q: run, record, collect, fill, get or pause\n", command)
		return 2
	}
}

// withOptions does the work of a command; bad options end with code 2.
func withOptions[O any](command string, arguments []string, parse func([]string, io.Writer) (O, error), work func(O) (int, error)) int {
	options, err := parse(arguments, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return report(command)(2, err)
	}
	return report(command)(work(options))
}

func report(command string) func(int, error) int {
	return func(code int, err error) int {
		if err != nil {
			fmt.Fprintf(os.Stderr, "workload %s: %v\n", command, err)
		}
		return code
	}
}

func codeOf(err error) (int, error) {
	if err != nil {
		return 1, err
	}
	return 0, nil
}
