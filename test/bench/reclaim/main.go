package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

func main() {
	o := options{}
	flag.StringVar(&o.data, "data", "", "directory with the data; empty, or without files of a known format, uses generated data")
	flag.StringVar(&o.out, "out", "", "directory for the results; empty writes none")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the packing, the arrivals and the generated data")
	flag.IntVar(&o.podsPerNode, "pods-per-node", 110, "most pods of a node, as the kubelet's default")
	flag.StringVar(&o.version, "version", "unknown", "version of this project, for the record")
	flag.Parse()
	o.command = strings.Join(os.Args, " ")
	if err := run(o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "reclaim benchmark:", err)
		os.Exit(1)
	}
}

type options struct {
	data, out, version, command string
	seed                        uint64
	podsPerNode                 int
}

func run(o options, w io.Writer) error {
	d, err := readData(o.data)
	if err != nil {
		return err
	}
	d.complete(o.seed)
	report := newReport(o, d)
	report.writeHeading(w)
	for _, instance := range d.instances {
		began := time.Now()
		result, err := measure(instance, d.nodes, o)
		if err != nil {
			return fmt.Errorf("%s: %w", instance.Name, err)
		}
		result.Seconds = time.Since(began).Seconds()
		report.Results = append(report.Results, result)
		result.write(w)
	}
	if err := report.save(o.out); err != nil {
		return err
	}
	return errors.Join(report.problems()...)
}
