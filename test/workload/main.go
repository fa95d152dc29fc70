package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
)

func main() {
	os.Exit(dispatch(os.Args[1:]))
}

func dispatch(arguments []string) int {
	if len(arguments) == 0 {
		fmt.Fprintln(os.Stderr, "usage: workload run|get|pause")
		return 2
	}
	switch arguments[0] {
	case "run":
		options, err := parseRun(arguments[1:], os.Stderr)
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "workload run:", err)
			return 2
		}
		code, err := run(options, os.Stdout)
		if err != nil {
			fmt.Fprintln(os.Stderr, "workload run:", err)
		}
		return code
	case "get":
		if err := get(arguments[1:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "workload get:", err)
			return 1
		}
		return 0
	case "pause":
		return pause()
	default:
		fmt.Fprintf(os.Stderr, "workload: no command %q: run, get or pause\n", arguments[0])
		return 2
	}
}
