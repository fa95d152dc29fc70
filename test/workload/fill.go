package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

type fillOptions struct {
	// Dir gets the files.
	Dir string
	// Bytes in all, over Files files.
	Bytes int64
	Files int
	// For is the least time to spend, as real preparation would.
	For time.Duration
}

func parseFill(arguments []string, output io.Writer) (fillOptions, error) {
	o := fillOptions{}
	flags := flag.NewFlagSet("workload fill", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.StringVar(&o.Dir, "dir", "", "directory to fill")
	flags.IntVar(&o.Files, "files", 1, "number of files")
	flags.DurationVar(&o.For, "for", 0, "least time to spend")
	flags.Func("bytes", "data to write, like 256Mi", func(text string) (err error) {
		o.Bytes, err = parseMemory(text)
		return err
	})
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if o.Dir == "" || o.Files < 1 {
		return o, errors.New("--dir is required, and --files is at least 1")
	}
	return o, nil
}

// fill writes data that does not compress, the same for the same options, and
// one line to the file "fills" for each time that it ran.
func fill(o fillOptions) error {
	end := time.Now().Add(o.For)
	for i := range o.Files {
		size := o.Bytes / int64(o.Files)
		if int64(i) < o.Bytes%int64(o.Files) {
			size++
		}
		if err := fillFile(filepath.Join(o.Dir, fmt.Sprintf("data-%05d", i)), uint64(i), size); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(filepath.Join(o.Dir, "fills"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(log, "filled"); err != nil {
		return errors.Join(err, log.Close())
	}
	if err := log.Close(); err != nil {
		return err
	}
	time.Sleep(time.Until(end))
	return nil
}

func fillFile(path string, seed uint64, size int64) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	if _, err := io.CopyN(file, rand.NewChaCha8(key), size); err != nil {
		return errors.Join(err, file.Close())
	}
	return file.Close()
}
