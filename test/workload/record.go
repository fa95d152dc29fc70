package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type recordOptions struct {
	// File gets one numbered line for each record.
	File string
	// Collector is the base address of a `workload collect`.
	Collector string
	// Writer tells writers of one collector apart.
	Writer string
	// Every is the least time between two records.
	Every time.Duration
	// Records ends the work after that many, with exit code 0; 0 for never.
	Records int64
	// ReadyFile appears when the first record of this run is acknowledged.
	ReadyFile string
}

func parseRecord(arguments []string, output io.Writer) (recordOptions, error) {
	o := recordOptions{}
	flags := flag.NewFlagSet("workload record", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.StringVar(&o.File, "file", "", "file to append records to; an existing one is carried on")
	flags.StringVar(&o.Collector, "collector", "", "address of the collector, like http://10.0.0.1:8080")
	flags.StringVar(&o.Writer, "writer", "", "name of this writer; empty takes the host name")
	flags.DurationVar(&o.Every, "every", time.Millisecond, "least time between two records")
	flags.Int64Var(&o.Records, "records", 0, "number of the last record; 0 for no end")
	flags.StringVar(&o.ReadyFile, "ready-file", "", "file to create when a record was acknowledged")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if o.File == "" || o.Collector == "" {
		return o, errors.New("--file and --collector are required")
	}
	if o.Writer == "" {
		name, err := os.Hostname()
		if err != nil {
			return o, err
		}
		o.Writer = name
	}
	return o, nil
}

// recorder writes a record, makes it durable, and only then acknowledges it.
type recorder struct {
	recordOptions
	file   *os.File
	last   int64
	client *http.Client
}

func record(o recordOptions, output io.Writer) error {
	file, last, err := openRecords(o.File)
	if err != nil {
		return err
	}
	defer file.Close()
	r := &recorder{recordOptions: o, file: file, last: last, client: &http.Client{Timeout: 2 * time.Second}}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	if err := r.resume(signals); err != nil {
		return err
	}
	fmt.Fprintf(output, "writer %s continues after record %d\n", o.Writer, last)
	for o.Records == 0 || r.last < o.Records {
		select {
		case received := <-signals:
			fmt.Fprintf(output, "%s after record %d\n", received, r.last)
			return nil
		case <-time.After(o.Every):
		}
		if err := r.next(signals); err != nil {
			return err
		}
	}
	fmt.Fprintf(output, "finished with record %d\n", r.last)
	return nil
}

// openRecords opens the file, cuts off a record that was never finished, and
// returns the number of the last whole one. Records are numbered from 1 without
// a gap; anything else in the file is an error.
func openRecords(path string) (*os.File, int64, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, 0, err
	}
	content, err := io.ReadAll(file)
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	whole := bytes.LastIndexByte(content, '\n') + 1
	last, err := checkRecords(content[:whole])
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("%s: %w", path, err), file.Close())
	}
	if err := file.Truncate(int64(whole)); err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	_, err = file.Seek(int64(whole), io.SeekStart)
	return file, last, err
}

func checkRecords(content []byte) (last int64, err error) {
	for line := range bytes.Lines(content) {
		number, err := strconv.ParseInt(strings.TrimSuffix(string(line), "\n"), 10, 64)
		if err != nil || number != last+1 {
			return last, fmt.Errorf("after record %d stands %q", last, line)
		}
		last = number
	}
	return last, nil
}

// resume tells the collector which record is the last in the file. The
// collector counts what it had acknowledged beyond it as lost; a record that
// was durable but not acknowledged is acknowledged now.
func (r *recorder) resume(signals <-chan os.Signal) error {
	var acknowledged int64
	err := r.insist(signals, func() error {
		answer, err := r.post("resume")
		if err != nil {
			return err
		}
		acknowledged, err = strconv.ParseInt(strings.TrimSpace(answer), 10, 64)
		return err
	})
	if err != nil || acknowledged >= r.last {
		return err
	}
	return r.insist(signals, func() error { _, err := r.post("acknowledge"); return err })
}

func (r *recorder) next(signals <-chan os.Signal) error {
	if _, err := fmt.Fprintf(r.file, "%d\n", r.last+1); err != nil {
		return err
	}
	if err := r.file.Sync(); err != nil {
		return err
	}
	r.last++
	if err := r.insist(signals, func() error { _, err := r.post("acknowledge"); return err }); err != nil {
		return err
	}
	if r.ReadyFile == "" {
		return nil
	}
	path := r.ReadyFile
	r.ReadyFile = ""
	return os.WriteFile(path, nil, 0o644)
}

// insist tries again until the collector answers: a record is acknowledged
// once, however often the network fails.
func (r *recorder) insist(signals <-chan os.Signal, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case received := <-signals:
			return fmt.Errorf("%s while the collector did not answer: %w", received, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (r *recorder) post(path string) (string, error) {
	name, _ := os.Hostname()
	query := url.Values{"writer": {r.Writer}, "host": {name}, "record": {strconv.FormatInt(r.last, 10)}}
	response, err := r.client.Post(r.Collector+"/"+path+"?"+query.Encode(), "", nil)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}
