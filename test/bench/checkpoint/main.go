// Command checkpoint compares the transfer of volumes between two node agents with cp on
// the same disk: the first copy and the restoration of many small files, one large file,
// and the pause of a pod that is frozen for the last pass. Sender and receiver are in this
// process and talk TLS over the loopback interface, so they share the processors of one
// machine. Each round measures all in turn, in alternating order; figures are medians, and
// ratios are medians of the ratios within a round.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ai-storage/orchestrator/test/bench/machine"
)

type options struct {
	rounds, files int
	size          int64
	directory     string
	out, profile  string
	only          string
}

// Measurement is what came of one comparison.
type Measurement struct {
	Name string `json:"name"`
	// Seconds are those of the rounds, Against those of what it is compared with.
	Seconds []float64 `json:"seconds"`
	Against []float64 `json:"against,omitempty"`
	// With is what it is compared with.
	With string `json:"with,omitempty"`
}

// Report is what is written to OUT.
type Report struct {
	Machine      string        `json:"machine"`
	Go           string        `json:"go"`
	Files        int           `json:"files"`
	Size         int64         `json:"size"`
	Measurements []Measurement `json:"measurements"`
}

func main() {
	o := options{}
	flag.IntVar(&o.rounds, "rounds", 10, "rounds of each comparison")
	flag.IntVar(&o.files, "files", 20000, "small files")
	flag.Int64Var(&o.size, "size", 4<<30, "bytes of the large file")
	flag.StringVar(&o.directory, "directory", os.TempDir(), "a directory of the disk")
	flag.StringVar(&o.out, "out", "", "directory for checkpoint.json")
	flag.StringVar(&o.profile, "cpuprofile", "", "file for a profile of the processor time")
	flag.StringVar(&o.only, "only", "", "the one of small, large and frozen that is measured")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	place, err := os.MkdirTemp(o.directory, "bench-checkpoint-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(place)
	if o.profile != "" {
		file, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	b := &bench{ctx: ctx, options: o, place: place, found: map[string]*Measurement{}}
	for _, part := range []struct {
		name    string
		measure func() error
	}{{"large", b.large}, {"small", b.small}, {"frozen", b.frozen}} {
		if o.only != "" && o.only != part.name {
			continue
		}
		if err := part.measure(); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return b.report(out)
}

// bench measures.
type bench struct {
	options
	ctx        context.Context
	place      string
	generation int
	found      map[string]*Measurement
	order      []string
}

// path is where something is in this generation; what is sent is the same for all.
func (b *bench) path(name string) string {
	if name == "from" {
		return filepath.Join(b.place, name)
	}
	return filepath.Join(b.place, fmt.Sprint(b.generation), name)
}

// fresh makes empty directories of a new generation, and waits for the disk. Those before
// stay until the end: ext4 searches long for inodes where many were freed in the last minute.
func (b *bench) fresh() error {
	b.generation++
	for _, name := range []string{"to", "state", "copy"} {
		if err := os.MkdirAll(b.path(name), 0o700); err != nil {
			return err
		}
	}
	return b.sync()
}

// sync waits until all of the file system is on the disk.
func (b *bench) sync() error {
	directory, err := os.Open(b.place)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(directory.Fd())), directory.Close())
}

func (b *bench) note(name, with string, took, against time.Duration) {
	m := b.found[name]
	if m == nil {
		m = &Measurement{Name: name, With: with}
		b.found[name] = m
		b.order = append(b.order, name)
	}
	m.Seconds = append(m.Seconds, took.Seconds())
	if against > 0 {
		m.Against = append(m.Against, against.Seconds())
	}
	fmt.Fprintf(os.Stderr, "%s: %.3f s; %s %.3f s\n", name, took.Seconds(), with, against.Seconds())
}

// timed measures what begins with a disk at rest.
func (b *bench) timed(work func() error) (time.Duration, error) {
	if err := errors.Join(b.ctx.Err(), b.sync()); err != nil {
		return 0, err
	}
	began := time.Now()
	err := work()
	return time.Since(began), err
}

// copyTree is cp -a, as the programs of the system do it, and a sync of the file system
// where durable.
func (b *bench) copyTree(from string, durable bool) (time.Duration, error) {
	if err := b.fresh(); err != nil {
		return 0, err
	}
	return b.timed(func() error {
		if out, err := exec.CommandContext(b.ctx, "cp", "-a", from, b.path("cp")).CombinedOutput(); err != nil {
			return fmt.Errorf("cp: %w: %s", err, out)
		}
		if durable {
			return b.sync()
		}
		return nil
	})
}

// both measures two things, the one or the other first.
func both(round int, one, other func() (time.Duration, error)) (first, second time.Duration, err error) {
	if round%2 == 0 {
		first, err = one()
		if err == nil {
			second, err = other()
		}
		return first, second, err
	}
	second, err = other()
	if err == nil {
		first, err = one()
	}
	return first, second, err
}

// small measures many small files: the first pass, one that is durable, and a
// restoration.
func (b *bench) small() error {
	if err := errors.Join(os.RemoveAll(b.path("from")), os.Mkdir(b.path("from"), 0o700)); err != nil {
		return err
	}
	if err := makeSmallFiles(b.path("from"), b.files, 4000); err != nil {
		return err
	}
	name := fmt.Sprintf("%d files of 4 kB", b.files)
	for round := range b.rounds {
		for _, durable := range []bool{false, true} {
			took, against, err := both(round,
				func() (time.Duration, error) { return b.transfer(durable, false) },
				func() (time.Duration, error) { return b.copyTree(b.path("from"), durable) })
			if err != nil {
				return err
			}
			if durable {
				b.note(name+", first copy and seal", "cp -a, sync", took, against)
			} else {
				b.note(name+", first copy", "cp -a", took, against)
			}
		}
		// The copy is there already when it is restored.
		digest, err := b.sealedCopy()
		if err != nil {
			return err
		}
		sealed := b.path("copy")
		took, against, err := both(round,
			func() (time.Duration, error) { return b.restore(sealed, digest) },
			func() (time.Duration, error) { return b.copyTree(filepath.Join(sealed, "volumes/data"), true) })
		if err != nil {
			return err
		}
		b.note(name+", restored", "cp -a, sync", took, against)
	}
	return nil
}

// large measures one large file.
func (b *bench) large() error {
	if err := errors.Join(os.RemoveAll(b.path("from")), os.Mkdir(b.path("from"), 0o700)); err != nil {
		return err
	}
	if err := makeLargeFile(filepath.Join(b.path("from"), "large"), b.size); err != nil {
		return err
	}
	name := fmt.Sprintf("one file of %d MiB", b.size>>20)
	for round := range b.rounds {
		took, against, err := both(round,
			func() (time.Duration, error) { return b.transfer(true, false) },
			func() (time.Duration, error) { return b.copyTree(b.path("from"), true) })
		if err != nil {
			return err
		}
		b.note(name, "cp -a, sync", took, against)
		if took, err = b.stream(b.size); err != nil {
			return err
		}
		b.note(name+", its bytes through TLS alone", "cp -a, sync", took, against)
		for ; b.generation > 0; b.generation-- { // the disk is not large enough for all
			if err := os.RemoveAll(filepath.Dir(b.path("to"))); err != nil {
				return err
			}
		}
	}
	return nil
}

// frozen measures the last pass: 256 MiB in small files, of which 1 % change in the second
// before.
func (b *bench) frozen() error {
	if err := errors.Join(os.RemoveAll(b.path("from")), os.Mkdir(b.path("from"), 0o700)); err != nil {
		return err
	}
	if err := makeSmallFiles(b.path("from"), b.files, 256<<20/b.files); err != nil {
		return err
	}
	for range b.rounds {
		took, err := b.lastPass()
		if err != nil {
			return err
		}
		b.note(fmt.Sprintf("frozen window, 256 MiB in %d files, 1 %% changed", b.files), "", took, 0)
	}
	return nil
}

func (b *bench) report(out io.Writer) error {
	r := Report{Machine: fmt.Sprintf("%s, %d processors, %s", machine.Processor(), runtime.NumCPU(), machine.Memory()), Go: runtime.Version(), Files: b.files, Size: b.size}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "%s, %s, medians of %d rounds\n", r.Machine, r.Go, b.rounds)
	fmt.Fprintln(w, "what\tseconds\tagainst\tseconds\tratio")
	for _, name := range b.order {
		m := *b.found[name]
		r.Measurements = append(r.Measurements, m)
		if m.With == "" {
			fmt.Fprintf(w, "%s\t%.3f\t\t\t\n", name, median(m.Seconds))
			continue
		}
		ratios := make([]float64, len(m.Seconds))
		for i := range ratios {
			ratios[i] = m.Seconds[i] / m.Against[i]
		}
		fmt.Fprintf(w, "%s\t%.3f\t%s\t%.3f\t%.2f\n", name, median(m.Seconds), m.With, median(m.Against), median(ratios))
	}
	if err := w.Flush(); err != nil || b.out == "" {
		return err
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.out, "checkpoint.json"), content, 0o644)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func makeSmallFiles(root string, files, size int) error {
	content := []byte(strings.Repeat("a line of a log, or a sample\n", size/29+1)[:size])
	for i := range files {
		directory := filepath.Join(root, fmt.Sprintf("d%03d", i/200))
		if i%200 == 0 {
			if err := os.Mkdir(directory, 0o755); err != nil {
				return err
			}
		}
		copy(content, fmt.Sprint(i))
		if err := os.WriteFile(filepath.Join(directory, fmt.Sprintf("file-%06d", i)), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func makeLargeFile(path string, size int64) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i*131 + i>>8)
	}
	for at := int64(0); at < size; at += int64(len(block)) {
		copy(block, fmt.Sprint(at))
		if _, err := file.Write(block[:min(int64(len(block)), size-at)]); err != nil {
			return err
		}
	}
	return nil
}
