package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

type runOptions struct {
	// MilliCPU is the CPU to use, in thousandths of one.
	MilliCPU int64
	// Memory is in bytes, beside what the program needs for itself.
	Memory int64
	// For is the time to run, zero for ever.
	For time.Duration
	// Until is an address: the work ends when it answers with 200.
	Until string
	// ExitCode is for the end by For or Until, TermExitCode for that by a signal.
	ExitCode, TermExitCode int
	// ProgressFile keeps how long the work has run, over restarts and moves.
	ProgressFile string
	// ReadyFile appears when the memory is in use.
	ReadyFile string
	// HTTP is an address to serve the progress on.
	HTTP string
}

func parseRun(arguments []string, output io.Writer) (runOptions, error) {
	var o runOptions
	flags := flag.NewFlagSet("workload run", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.Func("cpu", "CPU to use, like 250m or 1.5", func(text string) (err error) {
		o.MilliCPU, err = parseCPU(text)
		return err
	})
	flags.Func("memory", "memory to use, like 64Mi", func(text string) (err error) {
		o.Memory, err = parseMemory(text)
		return err
	})
	flags.DurationVar(&o.For, "for", 0, "time to run, like 10s; 0 for ever")
	flags.StringVar(&o.Until, "until", "", "address, like http://10.0.0.1:8080/finished; the work ends when it answers with 200")
	flags.IntVar(&o.ExitCode, "exit-code", 0, "exit code after that")
	flags.IntVar(&o.TermExitCode, "term-exit-code", 0, "exit code after SIGTERM or SIGINT")
	flags.StringVar(&o.ProgressFile, "write", "", "file that holds the time run so far in milliseconds; an existing one is carried on")
	flags.StringVar(&o.ReadyFile, "ready-file", "", "file to create when the memory is in use")
	flags.StringVar(&o.HTTP, "http", "", "address to serve the time run so far on, like :8080; /readyz tells readiness")
	if err := flags.Parse(arguments); err != nil {
		return runOptions{}, err
	}
	if flags.NArg() > 0 {
		return runOptions{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.For < 0 {
		return runOptions{}, fmt.Errorf("--for=%s is negative", o.For)
	}
	for _, code := range []int{o.ExitCode, o.TermExitCode} {
		if code < 0 || code > 255 {
			return runOptions{}, fmt.Errorf("exit code %d is not within 0 to 255", code)
		}
	}
	return o, nil
}

// parseCPU reads a quantity of CPU as Kubernetes writes it, in thousandths.
func parseCPU(text string) (int64, error) {
	number, isMilli := strings.CutSuffix(text, "m")
	scale := 1000.0
	if isMilli {
		scale = 1
	}
	return scaled(text, number, scale)
}

var memoryUnits = []struct {
	suffix string
	bytes  float64
}{
	{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40},
	{"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12},
}

// parseMemory reads a quantity of memory as Kubernetes writes it, in bytes.
func parseMemory(text string) (int64, error) {
	for _, unit := range memoryUnits {
		if number, found := strings.CutSuffix(text, unit.suffix); found {
			return scaled(text, number, unit.bytes)
		}
	}
	return scaled(text, text, 1)
}

func scaled(text, number string, scale float64) (int64, error) {
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(value) || value < 0 || value*scale > 1<<53 {
		return 0, fmt.Errorf("%q is not a quantity", text)
	}
	return int64(math.Round(value * scale)), nil
}
