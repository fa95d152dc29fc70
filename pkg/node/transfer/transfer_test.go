package transfer

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

const testUID = types.UID("0b1c2d3e-0000-4000-8000-000000000001")

// bench is two sides, with one volume "data" and a copy.
type transferBed struct {
	t                  testing.TB
	from, to, copy     string
	sourceState, state string
	source             *Source
	destination        *Destination
	withCopy           bool
	layer              bool
	served             chan error
	conn               net.Conn
}

func newBed(t testing.TB) *transferBed {
	b := &transferBed{t: t, withCopy: true}
	base := t.TempDir()
	for at, name := range map[*string]string{&b.from: "from", &b.to: "to", &b.copy: "copy", &b.sourceState: "source-state", &b.state: "state"} {
		*at = filepath.Join(base, name)
		must(t, os.Mkdir(*at, 0o700))
	}
	t.Cleanup(b.close)
	return b
}

func (b *transferBed) volume(path string) []Volume {
	return []Volume{{Name: "data", Root: filepath.Dir(path), Path: filepath.Base(path), Layer: b.layer}}
}

func (b *transferBed) destinationConfig() DestinationConfig {
	config := DestinationConfig{Migration: testUID, Volumes: b.volume(b.to), State: b.state}
	if b.withCopy {
		config.Copy = &Copy{Root: filepath.Dir(b.copy), Path: filepath.Base(b.copy)}
	}
	return config
}

func (b *transferBed) openSource() {
	var err error
	b.source, err = OpenSource(SourceConfig{Migration: testUID, Attempt: 1, Volumes: b.volume(b.from), State: b.sourceState})
	must(b.t, err)
}

func (b *transferBed) openDestination() {
	var err error
	b.destination, err = OpenDestination(b.t.Context(), b.destinationConfig())
	must(b.t, err)
}

// connect connects the two, through whatever wrap makes of the sender's end.
func (b *transferBed) connect(wrap func(net.Conn) net.Conn) error {
	if b.source == nil {
		b.openSource()
	}
	if b.destination == nil {
		b.openDestination()
	}
	ours, theirs := net.Pipe()
	if wrap != nil {
		ours = wrap(ours)
	}
	served := make(chan error, 1)
	b.served, b.conn = served, ours
	destination := b.destination
	go func() {
		c, stop := connect(context.Background(), theirs, receiveBuffers, nil)
		defer stop()
		served <- receiveHello(context.Background(), c, func(Hello) (*Destination, error) { return destination, nil })
	}()
	return b.source.Connect(context.Background(), ours)
}

func (b *transferBed) pass(options PassOptions) (PassResult, error) {
	return b.source.Pass(b.t.Context(), options)
}

func (b *transferBed) close() {
	if b.source != nil {
		must(b.t, b.source.Close())
		b.source = nil
	}
	if b.destination != nil {
		must(b.t, b.destination.Close())
		b.destination = nil
	}
}

// restore restores the sealed copy elsewhere, and returns where.
func (b *transferBed) restore(digest string) (string, PassResult, error) {
	third := filepath.Join(b.t.TempDir(), "third")
	must(b.t, os.Mkdir(third, 0o700))
	config := DestinationConfig{Migration: testUID, Volumes: b.volume(third), State: b.t.TempDir()}
	d, err := OpenDestination(b.t.Context(), config)
	must(b.t, err)
	defer d.Close()
	result, err := Restore(b.t.Context(), Copy{Root: filepath.Dir(b.copy), Path: filepath.Base(b.copy)}, digest, b.t.TempDir(), d)
	return third, result, err
}

func TestRandomTreesArriveAsTheyAre(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		b := newBed(t)
		b.withCopy = seed%2 == 0 // the hash of the chunks is another one
		m := newTreeMaker(t, seed, b.from)
		for range 60 {
			m.add()
		}
		other := newTreeMaker(t, seed+1000, b.to) // what is there first does not matter
		for range 10 {
			other.add()
		}
		must(t, b.connect(nil))
		for pass := range 4 {
			if _, err := b.pass(PassOptions{}); err != nil {
				t.Fatalf("seed %d, pass %d: %v", seed, pass, err)
			}
			compareTrees(t, b.from, b.to)
			for range 15 {
				m.change()
			}
		}
		result, err := b.pass(PassOptions{Frozen: true, Last: true})
		if err != nil || !result.Sealed || result.Digest != b.destination.Sealed() {
			t.Fatalf("seed %d: last pass: %+v %v", seed, result, err)
		}
		compareTrees(t, b.from, b.to)
		if b.withCopy {
			third, _, err := b.restore(result.Digest)
			if err != nil {
				t.Fatalf("seed %d: restoring: %v", seed, err)
			}
			compareTrees(t, b.from, third)
		}
		b.close()
	}
}

func TestNothingIsSentTwice(t *testing.T) {
	b := newBed(t)
	must(t, os.WriteFile(b.from+"/small", []byte("small"), 0o644))
	must(t, os.WriteFile(b.from+"/large", make([]byte, 0), 0o644))
	m := newTreeMaker(t, 1, b.from)
	must(t, os.WriteFile(b.from+"/large", m.bytes(3*chunkSize+5), 0o644))
	must(t, b.connect(nil))
	first, err := b.pass(PassOptions{})
	must(t, err)
	if first.Written < 2*chunkSize || first.Files != 3 {
		t.Errorf("the first pass: %+v", first)
	}
	second, err := b.pass(PassOptions{})
	must(t, err)
	if second.Written != 0 || second.Digest != first.Digest {
		t.Errorf("a pass without changes: %+v", second)
	}
	file, err := os.OpenFile(b.from+"/large", os.O_RDWR, 0)
	must(t, err)
	_, err = file.WriteAt([]byte("changed"), chunkSize+10)
	must(t, errors.Join(err, file.Close()))
	third, err := b.pass(PassOptions{})
	must(t, err)
	if third.Written == 0 || third.Written > chunkSize {
		t.Errorf("a pass after a change of one chunk: %+v", third)
	}
	// Both sides restart, with and without what they knew.
	for _, forget := range []func(){func() {}, func() { must(t, os.RemoveAll(b.sourceState)) }, func() { must(t, os.RemoveAll(b.state)) }} {
		b.close()
		forget()
		must(t, b.connect(nil))
		again, err := b.pass(PassOptions{Frozen: true})
		must(t, err)
		if again.Written != 0 || again.Digest != third.Digest {
			t.Errorf("after a restart: %+v", again)
		}
	}
	compareTrees(t, b.from, b.to)
}

func TestUnchangedFilesAreNotRead(t *testing.T) {
	b := newBed(t)
	must(t, os.WriteFile(b.from+"/f", []byte("content"), 0o644))
	old := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(b.from+"/f", old, old))
	time.Sleep(2 * settleTime)
	must(t, b.connect(nil))
	_, err := b.pass(PassOptions{})
	must(t, err)
	r, err := b.source.base.open()
	must(t, err)
	defer r.close()
	for {
		rec, err := r.next()
		must(t, err)
		if rec == nil {
			t.Fatal("the file is not in the manifest")
		}
		if rec.path == "f" {
			break
		}
	}
	if r.sig == (signature{}) {
		t.Error("a file that does not change has no signature: it would be read in each pass")
	}
}
