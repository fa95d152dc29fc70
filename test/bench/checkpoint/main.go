// Command checkpoint compares the transfer of volumes between two node agents with cp on
// the same disk: the first copy and the restoration of many small files, one large file,
// and the pause of a pod that is frozen for the last pass. Sender and receiver are in this
// process and talk TLS over the loopback interface, so they share the processors of one
// machine. Each round measures all in turn, in alternating order; figures are medians with
// the least and the most, and ratios are medians of the ratios within a round.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
	// Seconds are those of the rounds, Against those of what it is compared with, both also
	// of all processors together.
	Seconds          []float64 `json:"seconds"`
	Processor        []float64 `json:"processorSeconds"`
	Against          []float64 `json:"against,omitempty"`
	AgainstProcessor []float64 `json:"againstProcessorSeconds,omitempty"`
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
	flag.StringVar(&o.only, "only", "", "the one of large, sealed, small and frozen that is measured")
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
	}{{"large", b.large}, {"sealed", b.sealed}, {"small", b.small}, {"frozen", b.frozen}} {
		if o.only != "" && o.only != part.name {
			continue
		}
		b.part = part.name
		if err := os.Mkdir(b.path("from"), 0o700); err != nil {
			return err
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
	part       string
	generation int
	found      map[string]*Measurement
	order      []string
}

// path is where something is in this generation; what is sent is the same for all of a part.
func (b *bench) path(name string) string {
	if name == "from" {
		return filepath.Join(b.place, name+"-"+b.part)
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

// cost is what something takes.
type cost struct {
	// took is by the clock, used by all processors together, but for what the kernel does
	// later for the disk.
	took, used time.Duration
}

func (b *bench) note(name, with string, own, against cost) {
	m := b.found[name]
	if m == nil {
		m = &Measurement{Name: name, With: with}
		b.found[name] = m
		b.order = append(b.order, name)
	}
	m.Seconds = append(m.Seconds, own.took.Seconds())
	m.Processor = append(m.Processor, own.used.Seconds())
	if with != "" {
		m.Against = append(m.Against, against.took.Seconds())
		m.AgainstProcessor = append(m.AgainstProcessor, against.used.Seconds())
	}
	fmt.Fprintf(os.Stderr, "%s: %.3f s (%.2f s of processors); %s %.3f s (%.2f s)\n",
		name, own.took.Seconds(), own.used.Seconds(), with, against.took.Seconds(), against.used.Seconds())
}

// timed measures what begins with a disk at rest.
func (b *bench) timed(work func() error) (cost, error) {
	if err := errors.Join(b.ctx.Err(), b.sync()); err != nil {
		return cost{}, err
	}
	return measured(work)
}

func measured(work func() error) (cost, error) {
	began, before := time.Now(), processorTime()
	err := work()
	return cost{time.Since(began), processorTime() - before}, err
}

// processorTime is what this process has used, and the programs that it has run.
func processorTime() time.Duration {
	var all time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var usage unix.Rusage
		if unix.Getrusage(who, &usage) == nil {
			all += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		}
	}
	return all
}

// copyTree is cp -a, as the programs of the system do it, and a sync of the file system
// where durable.
func (b *bench) copyTree(from string, durable bool, times int) (cost, error) {
	if err := b.fresh(); err != nil {
		return cost{}, err
	}
	return b.timed(func() error {
		for i := range times {
			if out, err := exec.CommandContext(b.ctx, "cp", "-a", from, fmt.Sprint(b.path("cp"), i)).CombinedOutput(); err != nil {
				return fmt.Errorf("cp: %w: %s", err, out)
			}
		}
		if durable {
			return b.sync()
		}
		return nil
	})
}

// both measures two things, the one or the other first.
func both(round int, one, other func() (cost, error)) (first, second cost, err error) {
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
	if err := makeSmallFiles(b.path("from"), b.files, 4000); err != nil {
		return err
	}
	name := fmt.Sprintf("%d files of 4 kB", b.files)
	for round := range b.rounds {
		for _, durable := range []bool{false, true} {
			own, against, err := both(round,
				func() (cost, error) { return b.transfer(durable, false) },
				func() (cost, error) { return b.copyTree(b.path("from"), durable, 1) })
			if err != nil {
				return err
			}
			if durable {
				b.note(name+", first copy and seal", "cp -a, sync", own, against)
			} else {
				b.note(name+", first copy", "cp -a", own, against)
			}
		}
		// The copy is there already when it is restored.
		digest, err := b.sealedCopy()
		if err != nil {
			return err
		}
		sealed := b.path("copy")
		own, against, err := both(round,
			func() (cost, error) { return b.restore(sealed, digest) },
			func() (cost, error) { return b.copyTree(filepath.Join(sealed, "volumes/data"), true, 1) })
		if err != nil {
			return err
		}
		b.note(name+", restored", "cp -a, sync", own, against)
	}
	return nil
}

// large measures one large file, and what TLS alone takes for its bytes.
func (b *bench) large() error {
	if err := b.makeLarge(b.size); err != nil {
		return err
	}
	name := fmt.Sprintf("one file of %d MiB", b.size>>20)
	for round := range b.rounds {
		own, against, err := both(round,
			func() (cost, error) { return b.transfer(true, false) },
			func() (cost, error) { return b.copyTree(b.path("from"), true, 1) })
		if err != nil {
			return err
		}
		b.note(name, "cp -a, sync", own, against)
		if own, err = b.stream(b.size); err != nil {
			return err
		}
		b.note(name+", its bytes through TLS alone", "cp -a, sync", own, against)
		if err := b.forget(); err != nil {
			return err
		}
	}
	return os.RemoveAll(b.path("from"))
}

// sealed measures one large file of which a sealed copy is made too: it is written twice,
// and its digests are those of SHA-256.
func (b *bench) sealed() error {
	size := b.size / 4
	if err := b.makeLarge(size); err != nil {
		return err
	}
	for round := range b.rounds {
		own, against, err := both(round,
			func() (cost, error) { return b.transfer(true, true) },
			func() (cost, error) { return b.copyTree(b.path("from"), true, 2) })
		if err != nil {
			return err
		}
		b.note(fmt.Sprintf("one file of %d MiB and a sealed copy", size>>20), "cp -a twice, sync", own, against)
		if err := b.forget(); err != nil {
			return err
		}
	}
	return os.RemoveAll(b.path("from"))
}

func (b *bench) makeLarge(size int64) error {
	return makeLargeFile(filepath.Join(b.path("from"), "large"), size)
}

// forget removes what was made of large files: the disk is not large enough for all.
func (b *bench) forget() error {
	for ; b.generation > 0; b.generation-- {
		if err := os.RemoveAll(filepath.Dir(b.path("to"))); err != nil {
			return err
		}
	}
	return nil
}

// frozen measures the last pass: 256 MiB in small files, of which 1 % change in the second
// before.
func (b *bench) frozen() error {
	if err := makeSmallFiles(b.path("from"), b.files, 256<<20/b.files); err != nil {
		return err
	}
	for range b.rounds {
		own, err := b.lastPass()
		if err != nil {
			return err
		}
		b.note(fmt.Sprintf("frozen window, 256 MiB in %d files, 1 %% changed", b.files), "", own, cost{})
	}
	return nil
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
