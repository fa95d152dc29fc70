package transfer

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deadStorage does not answer while it is dead.
type deadStorage struct {
	// reads: it does not answer to reads, otherwise to writes.
	reads bool
	dead  atomic.Bool
	// reached gets a value when a call waits, answer is closed when it answers.
	reached, answer chan struct{}
}

// storage is that of the running test; nil where it answers.
var storage atomic.Pointer[deadStorage]

// Set once: what was abandoned may still use them when its test has ended.
func init() {
	graceTime = 2 * time.Second
	pread = func(fd int, b []byte, offset int64) (int, error) { await(true); return unix.Pread(fd, b, offset) }
	pwrite = func(fd int, b []byte, offset int64) (int, error) { await(false); return unix.Pwrite(fd, b, offset) }
}

// await waits where the storage does not answer to reads, or to writes.
func await(reads bool) {
	s := storage.Load()
	if s == nil || s.reads != reads || !s.dead.Load() {
		return
	}
	select {
	case s.reached <- struct{}{}:
	default:
	}
	<-s.answer
}

// newDeadStorage makes reads or writes of this package wait, once it is dead.
func newDeadStorage(t *testing.T, reads bool) *deadStorage {
	s := &deadStorage{reads: reads, reached: make(chan struct{}, 1), answer: make(chan struct{})}
	storage.Store(s)
	t.Cleanup(func() { storage.Store(nil) })
	return s
}

// contextUntilReached ends when a call waits for the storage, which is dead from now on.
func (s *deadStorage) contextUntilReached(t *testing.T) context.Context {
	s.dead.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-s.reached
		cancel()
	}()
	return ctx
}

func (s *deadStorage) revive() {
	s.dead.Store(false)
	close(s.answer)
}

// within fails where work takes longer than a test waits for a storage that is dead.
func within(t *testing.T, what string, work func() error) error {
	t.Helper()
	began := time.Now()
	err := work()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("%s has taken %s", what, took)
	}
	return err
}

// eventually repeats work until it succeeds.
func eventually(t *testing.T, work func() error) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := work()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// passUntilDead begins a pass, of which the storage dies when it is read from, or written to.
func passUntilDead(t *testing.T, reads bool) (*transferBed, *deadStorage, error) {
	t.Helper()
	b := newBed(t)
	must(t, os.WriteFile(b.from+"/small", []byte("small"), 0o600))
	must(t, os.WriteFile(b.from+"/large", newTreeMaker(t, 1, b.from).bytes(2*chunkSize), 0o600))
	dead := newDeadStorage(t, reads)
	must(t, b.connect(nil))
	ctx := dead.contextUntilReached(t)
	err := within(t, "a pass", func() error { _, err := b.source.Pass(ctx, PassOptions{}); return err })
	return b, dead, err
}

// TestASourceWhoseStorageDoesNotAnswer is left within a bound, and nothing else uses its
// state until it has ended.
func TestASourceWhoseStorageDoesNotAnswer(t *testing.T) {
	b, dead, err := passUntilDead(t, true)
	if !errors.Is(err, errHung) || !errors.Is(err, context.Canceled) {
		t.Errorf("the pass ends with %v", err)
	}
	if _, err := b.source.Pass(t.Context(), PassOptions{}); !errors.Is(err, errHung) {
		t.Errorf("another pass: %v", err)
	}
	if err := within(t, "closing", b.source.Close); !errors.Is(err, errHung) {
		t.Errorf("closing: %v", err)
	}
	config := SourceConfig{Migration: testUID, Attempt: 1, Volumes: b.volume(b.from), State: b.sourceState}
	if _, err := OpenSource(config); err == nil {
		t.Error("its state is used by another source")
	}
	dead.revive()
	eventually(t, func() (err error) { b.source, err = OpenSource(config); return err })
	must(t, b.connect(nil))
	_, err = b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	compareTrees(t, b.from, b.to)
}

// TestADestinationWhoseStorageDoesNotAnswer: neither closing nor serving waits for it,
// and nobody else writes there until it has ended.
func TestADestinationWhoseStorageDoesNotAnswer(t *testing.T) {
	b, dead, err := passUntilDead(t, false)
	if !errors.Is(err, context.Canceled) || errors.Is(err, errHung) {
		t.Errorf("the pass, whose own storage answers, ends with %v", err)
	}
	if err := within(t, "closing", b.destination.Close); !errors.Is(err, errHung) {
		t.Errorf("closing: %v", err)
	}
	other := b.destinationConfig()
	other.State = filepath.Join(t.TempDir(), "other")
	if _, err := OpenDestination(t.Context(), other); err == nil {
		t.Error("its volume is written by another receiver")
	}
	dead.revive()
	eventually(t, func() (err error) { b.destination, err = OpenDestination(t.Context(), other); return err })
	must(t, b.connect(nil))
	_, err = b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	compareTrees(t, b.from, b.to)
}

// TestOpeningEndsWhileAStorageDoesNotAnswer, where what is there has to be read.
func TestOpeningEndsWhileAStorageDoesNotAnswer(t *testing.T) {
	b := newBed(t)
	must(t, os.WriteFile(b.to+"/f", []byte("x"), 0o600))
	dead := newDeadStorage(t, true)
	ctx := dead.contextUntilReached(t)
	err := within(t, "opening", func() error { _, err := OpenDestination(ctx, b.destinationConfig()); return err })
	if !errors.Is(err, errHung) {
		t.Errorf("opening: %v", err)
	}
	dead.revive()
	eventually(t, func() (err error) {
		b.destination, err = OpenDestination(t.Context(), b.destinationConfig())
		return err
	})
}

// TestServingEndsWhileAStorageDoesNotAnswer.
func TestServingEndsWhileAStorageDoesNotAnswer(t *testing.T) {
	b := newBed(t)
	must(t, os.WriteFile(b.from+"/f", []byte("x"), 0o600))
	b.openSource()
	b.openDestination()
	dead := newDeadStorage(t, false)
	ctx := dead.contextUntilReached(t)
	ours, theirs := newIdentity(t), newIdentity(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, listener, theirs, &admission{ours.Fingerprint(), testUID, 1, b.destination}, nil)
	}()
	conn, err := ours.Dial(t.Context(), listener.Addr().String(), theirs.Fingerprint())
	must(t, err)
	must(t, b.source.Connect(t.Context(), conn))
	if _, err := b.pass(PassOptions{}); ReasonOf(err) != ReasonDisconnected {
		t.Errorf("the pass ends with %v", err)
	}
	if err := within(t, "serving", func() error { return <-served }); !errors.Is(err, errHung) {
		t.Errorf("serving ends with %v", err)
	}
	dead.revive()
}

// TestTheManifestOfACopyIsSyncedBeforeTheSeal, also where the last pass wrote nothing.
func TestTheManifestOfACopyIsSyncedBeforeTheSeal(t *testing.T) {
	b := newBed(t)
	must(t, os.WriteFile(b.from+"/f", []byte("x"), 0o600))
	must(t, b.connect(nil))
	for range 2 {
		_, err := b.pass(PassOptions{})
		must(t, err)
	}
	var synced atomic.Bool
	syncfs = func(fd int) error {
		_, manifestErr := os.Lstat(b.copy + "/" + copyManifest)
		_, sealErr := os.Lstat(b.copy + "/" + copySealed)
		if manifestErr == nil && errors.Is(sealErr, os.ErrNotExist) {
			synced.Store(true)
		}
		return unix.Syncfs(fd)
	}
	defer func() { syncfs = unix.Syncfs }()
	_, err := b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	if !synced.Load() {
		t.Error("nothing was synced between the manifest and the seal")
	}
}
