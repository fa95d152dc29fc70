package transfer

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/atomicfile"
)

// Destination receives volumes.
type Destination struct {
	config  DestinationConfig
	state   string
	boot    string
	hash    *hasher
	volumes []openVolume
	copy    *sealedCopy

	// turn has a token for the connection that is being served.
	turn chan struct{}
	mu   sync.Mutex
	// supersede ends the connection that is being served; nil when there is none.
	supersede context.CancelCauseFunc
	closed    bool

	// What follows is of whoever has the turn. base is what is in the volumes, nil when
	// that is not known.
	base *manifest
	// unsynced: something was written since the last sync.
	unsynced bool
	sealed   string
	passes   int64
}

// DestinationConfig is what a Destination is made of.
type DestinationConfig struct {
	Migration types.UID
	// Volumes are those of the replacement, or a place where they wait. Nothing else may
	// write them until the Destination is closed.
	Volumes []Volume
	// State is a directory of this attempt of the migration alone that root alone can
	// enter, about 100 bytes for each file and 33 for 4 MiB. Once it says that the volumes
	// are sealed they are not written any more: another attempt needs another directory.
	State string
	// Copy, when set, is where a sealed copy is made.
	Copy *Copy
	// Passed, which may be nil, is called after each complete pass. The sender waits.
	Passed func(PassResult)
	// Progress, which may be nil, is called about once a second during a pass.
	Progress func(Progress)
}

// OpenDestination opens the volumes and finds out what is in them: of an earlier
// Destination with the same state that was closed, or cut off between two frames, what it
// knew is compared by times and inode numbers; all else is read. It leaves nothing open
// after an error.
func OpenDestination(ctx context.Context, config DestinationConfig) (d *Destination, err error) {
	if !v1alpha1.IsUID(string(config.Migration)) {
		return nil, failure(ReasonFailed, "%q is no UID of a migration", config.Migration)
	}
	d = &Destination{config: config, state: config.State, turn: make(chan struct{}, 1)}
	if d.boot, err = prepareState(config.State); err != nil {
		return nil, err
	}
	// Others may be able to write the copy: its digests have no key.
	if d.hash, err = loadHash(config.State, config.Copy != nil); err != nil {
		return nil, err
	}
	if d.volumes, err = openVolumes(config.Volumes); err != nil {
		return nil, err
	}
	if config.Copy != nil {
		if d.copy, err = openCopy(*config.Copy, d.volumes); err != nil {
			closeVolumes(d.volumes)
			return nil, fmt.Errorf("opening the place for the sealed copy: %w", err)
		}
	}
	if err := d.inventory(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// inventory finds out what is in the volumes.
func (d *Destination) inventory(ctx context.Context) error {
	known, err := loadManifest(d.state)
	if err != nil {
		return err
	}
	isKnown := known != nil && known.origin == d.origin()
	copyIsKnown := isKnown && d.copy.isOf(known.digest)
	mark, err := os.ReadFile(d.sealedMark())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !isKnown {
		if known, err = d.emptyManifest(); err != nil {
			return err
		}
	}
	next, err := createManifest(d.state, d.origin())
	if err != nil {
		return err
	}
	p := &passage{still: true, budget: receiveBuffers.share(), hash: d.hash}
	err = p.run(ctx, known, next, func(p *planner) error {
		for i := range d.volumes {
			if err := p.volume(&d.volumes[i]); err != nil {
				return fmt.Errorf("volume %s: %w", d.volumes[i].Name, err)
			}
		}
		return nil
	})
	if err != nil {
		return errors.Join(fmt.Errorf("finding out what is there: %w", err), next.discard())
	}
	base, err := next.finish(d.state)
	if err != nil {
		return err
	}
	if d.copy != nil && len(mark) == 0 && (!copyIsKnown || base.digest != known.digest) {
		if err := d.copy.fill(ctx, base, d.volumes); err != nil {
			return fmt.Errorf("copying what is there: %w", err)
		}
	}
	if len(mark) > 0 {
		if string(mark) != base.digest {
			return failure(ReasonChanged, "the volumes were sealed with digest %s, and have %s now", mark, base.digest)
		}
		d.mu.Lock()
		d.sealed = base.digest
		d.mu.Unlock()
	}
	d.base, d.unsynced = base, true
	return nil
}

func (d *Destination) origin() string { return originOf(d.boot, d.hash) }

// sealedMark is a file of the state directory with the digest that the volumes were
// sealed with.
func (d *Destination) sealedMark() string { return filepath.Join(d.state, "sealed") }

func (d *Destination) emptyManifest() (*manifest, error) {
	w, err := createManifest(d.state, d.origin())
	if err != nil {
		return nil, err
	}
	return w.finish(d.state)
}

// Sealed returns the digest of the sealed manifest; "" until the last pass has ended.
func (d *Destination) Sealed() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sealed
}

var errSuperseded = failure(ReasonDisconnected, "a new connection has taken the place of this one")

// Close ends the connection that is being served, and returns when nothing is written any
// more. What was sealed stays as it is.
func (d *Destination) Close() error {
	d.mu.Lock()
	closed := d.closed
	d.closed = true
	if d.supersede != nil {
		d.supersede(failure(ReasonDisconnected, "the receiver was closed"))
	}
	d.mu.Unlock()
	if closed {
		return nil
	}
	d.turn <- struct{}{}
	err := error(nil)
	if d.base != nil && d.sealed == "" {
		err = d.copy.remember(d.base.digest)
	}
	closeVolumes(d.volumes)
	return errors.Join(err, d.copy.close())
}

// takeTurn ends the connection before and waits for its end.
func (d *Destination) takeTurn(ctx context.Context, cancel context.CancelCauseFunc) (end func(), err error) {
	d.mu.Lock()
	if d.supersede != nil {
		d.supersede(errSuperseded)
	}
	d.mu.Unlock()
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		<-d.turn
		return nil, failure(ReasonRefused, "the receiver is closed")
	}
	d.supersede = cancel
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.supersede = nil
		<-d.turn
	}, nil
}

// serve receives passes until the connection ends. The error is never nil.
func (d *Destination) serve(ctx context.Context, c *connection, hello Hello) error {
	if hello.Migration != d.config.Migration {
		return failure(ReasonRefused, "the volumes are of migration %s, not of %s", d.config.Migration, hello.Migration)
	}
	if want := volumeMarks(d.volumes); !slices.Equal(want, hello.volumes) {
		return failure(ReasonRefused, "the sender has the volumes %q, want %q", hello.volumes, want)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { closeNow(c.conn) })()
	defer c.pinging()()
	end, err := d.takeTurn(ctx, cancel)
	if err != nil {
		return err
	}
	defer end()
	if hello.plain {
		if err := d.usePlainHash(); err != nil {
			return err
		}
	}
	if err = d.serveFrames(ctx, c); ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// usePlainHash makes SHA-256 the hash. What is in the volumes is read again.
func (d *Destination) usePlainHash() error {
	if d.hash.isPlain() {
		return nil
	}
	if d.sealed != "" {
		return failure(ReasonRefused, "the volumes are sealed with digest %s", d.sealed)
	}
	if err := saveHash(d.state, nil); err != nil {
		return err
	}
	d.hash, d.base = plainHash, nil
	return nil
}

func (d *Destination) serveFrames(ctx context.Context, c *connection) error {
	if d.base == nil {
		if err := d.inventory(ctx); err != nil {
			return err
		}
	}
	digest, err := hex.DecodeString(d.base.digest)
	if err != nil {
		return err
	}
	if err := c.sendNow(frameWelcome, []byte{version}, digest, appendString(nil, string(d.hash.key))); err != nil {
		return err
	}
	for {
		f, err := c.receive()
		if err != nil {
			return err
		}
		switch f.kind {
		case frameWant:
			c.discard(&f)
			err = streamManifest(c, d.base)
		case frameBegin:
			err = d.receivePass(c, f)
		default:
			c.discard(&f)
			err = failure(ReasonCorrupt, "a frame %q came between passes", byte(f.kind))
		}
		if err != nil {
			return err
		}
	}
}

// receivePass applies a pass, or as much of it as comes.
func (d *Destination) receivePass(c *connection, begin frame) error {
	content := decoder{rest: begin.content}
	content.uint(1 << 62)
	frozen := content.byte()
	err := content.end()
	c.discard(&begin)
	if err != nil || frozen > 1 {
		return errors.Join(err, failure(ReasonCorrupt, "a pass begins with a wrong frame"))
	}
	a, err := d.newApplier(c)
	if err != nil {
		return err
	}
	d.passes++
	a.result.Pass = d.passes
	// What passes before have written is made durable beside this one: a pod that is
	// frozen later waits for little.
	syncing := d.startSync()
	last, err := a.receive(c)
	if syncErr := <-syncing; err == nil {
		err = syncErr
	}
	if err == nil && last {
		err = d.seal(a)
	}
	if err != nil {
		return err
	}
	if d.config.Passed != nil {
		d.config.Passed(a.result)
	}
	digest, err := hex.DecodeString(d.base.digest)
	if err != nil {
		return err
	}
	return c.sendNow(frameDone, digest)
}

func (d *Destination) newApplier(c *connection) (*applier, error) {
	if d.sealed == "" {
		if err := d.copy.unseal(); err != nil {
			return nil, fmt.Errorf("the sealed copy: %w", err)
		}
	}
	base, err := d.base.open()
	if err != nil {
		return nil, err
	}
	next, err := createManifest(d.state, d.origin())
	if err != nil {
		return nil, errors.Join(err, base.close())
	}
	// If this process dies within the pass, what is in the volumes is not known.
	if d.sealed == "" {
		if err := os.Remove(d.base.path); err != nil {
			return nil, errors.Join(err, base.close(), next.discard())
		}
	}
	return &applier{Destination: d, budget: c.budget, base: base, next: next, copyFD: -1}, nil
}

// receive applies the frames of a pass.
func (a *applier) receive(c *connection) (last bool, err error) {
	defer a.base.close()
	// What was there is not what is there, until the pass has ended or is cut.
	before := a.Destination.base
	a.Destination.base = nil
	seen := time.Now()
	for {
		f, err := c.receive()
		if err != nil {
			base, cutErr := a.cut()
			a.Destination.base = base
			return false, errors.Join(err, cutErr)
		}
		if f.kind == frameEnd {
			content := decoder{rest: f.content}
			digest := hex.EncodeToString(content.bytes(32))
			last = content.byte() == 1
			entries := content.uint(maxEntries)
			if err = content.end(); err == nil {
				err = a.end(digest, int64(entries))
			}
			c.discard(&f)
			a.close()
			return last, err
		}
		if a.sealed != "" {
			err = failure(ReasonRefused, "the volumes are sealed with digest %s, and differ from what is sent now", a.sealed)
			if f.kind == frameVolume {
				err = nil
			}
		}
		if err == nil {
			err = a.apply(&f)
		}
		c.discard(&f)
		if err != nil {
			a.close()
			if a.sealed != "" {
				a.Destination.base = before
			}
			return false, errors.Join(err, a.next.discard())
		}
		if a.config.Progress != nil && time.Since(seen) > time.Second {
			seen = time.Now()
			a.config.Progress(Progress{Bytes: a.result.Bytes, Files: a.result.Files})
		}
	}
}

// apply applies one frame. It takes its buffer where that is written later.
func (a *applier) apply(f *frame) error {
	d := decoder{rest: f.content}
	switch f.kind {
	case frameVolume:
		number := d.uint(maxVolumes)
		if err := d.end(); err != nil {
			return err
		}
		if err := a.begin(number); err != nil {
			return err
		}
		a.copyFD = -1
		if a.sealed == "" {
			a.copyFD = a.copy.volume(int(number))
		}
		return nil
	case framePut:
		return a.applyPut(&d)
	case frameOpen:
		r := d.record()
		if err := d.end(); err != nil {
			return err
		}
		return a.openLarge(r)
	case frameChunk:
		index := int64(d.uint(1 << 62))
		length := int(d.uint(chunkSize))
		content := chunk{length: length}
		copy(content.digest[:], d.bytes(uint64(len(content.digest))))
		content.layout = d.sized(chunkHeader)
		content.data = d.rest
		if d.err != nil {
			return d.err
		}
		if f.buffer == nil {
			content.layout, content.data = slices.Clone(content.layout), slices.Clone(content.data)
		}
		buffer := f.buffer
		f.buffer = nil
		return a.chunk(index, &content, buffer)
	case frameHoles:
		index, count := int64(d.uint(1<<62)), int64(d.uint(1<<62))
		if err := d.end(); err != nil {
			return err
		}
		return a.holes(index, count)
	case frameClose:
		size := int64(d.uint(1<<63 - 1))
		if err := d.end(); err != nil {
			return err
		}
		return a.closeLarge(size)
	case frameRemove:
		path := string(d.sized(maxPath))
		if err := d.end(); err != nil {
			return err
		}
		return a.remove(path)
	}
	return failure(ReasonCorrupt, "a frame %q came within a pass", byte(f.kind))
}

func (a *applier) applyPut(d *decoder) error {
	r := d.record()
	hasContent := d.byte()
	if hasContent != 1 {
		if err := d.end(); err != nil || hasContent != 0 {
			return errors.Join(err, failure(ReasonCorrupt, "a frame has a wrong mark"))
		}
		return a.put(r, nil)
	}
	content := chunk{length: int(min(r.size, chunkSize))}
	content.layout = d.sized(chunkHeader)
	content.data = d.rest
	if d.err != nil {
		return d.err
	}
	return a.put(r, &content)
}

// end completes a pass: both sides must have the same manifest.
func (a *applier) end(digest string, entries int64) error {
	if a.file != nil || a.begun != len(a.volumes) {
		return errors.Join(failure(ReasonCorrupt, "a pass ends after %d of %d volumes", a.begun, len(a.volumes)), a.next.discard())
	}
	if err := a.finish(); err != nil {
		return errors.Join(err, a.next.discard())
	}
	base, err := a.next.finish(a.state)
	if err != nil {
		return err
	}
	if base.digest != digest || base.entries != entries {
		err := failure(ReasonCorrupt, "the volumes have %d entries with digest %s, want %d with %s", base.entries, base.digest, entries, digest)
		return errors.Join(err, os.Remove(base.path))
	}
	a.Destination.base, a.result.Digest = base, digest
	return nil
}

// seal makes everything durable, and after that says so in the sealed copy.
func (d *Destination) seal(a *applier) error {
	if d.sealed == "" {
		if err := d.copy.writeManifest(d.base); err != nil {
			return fmt.Errorf("sealing the copy: %w", err)
		}
		if err := <-d.startSync(); err != nil {
			return err
		}
		if err := d.copy.seal(d.base, d.config.Migration); err != nil {
			return fmt.Errorf("sealing the copy: %w", err)
		}
		if err := atomicfile.Write(d.sealedMark(), strings.NewReader(d.base.digest), 0o600); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sealed, a.result.Sealed = d.base.digest, true
	return nil
}

// startSync begins to make durable what was written so far, all file systems at the same
// time, and returns where the outcome comes.
func (d *Destination) startSync() <-chan error {
	outcome := make(chan error, 1)
	if !d.unsynced {
		outcome <- nil
		return outcome
	}
	d.unsynced = false
	files, err := d.fileSystems()
	if err != nil {
		outcome <- err
		return outcome
	}
	go func() {
		var group errgroup.Group
		for _, file := range files {
			group.Go(func() error {
				err := unix.Syncfs(int(file.Fd()))
				if err != nil {
					err = explainSpace(int(file.Fd()), file.Name(), fmt.Errorf("syncing %s: %w", file.Name(), err))
				}
				return errors.Join(err, file.Close())
			})
		}
		outcome <- group.Wait()
	}()
	return outcome
}

// fileSystems opens a directory of each file system whose content must last, once more:
// a sync that hangs may outlive the Destination.
func (d *Destination) fileSystems() (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, file := range files {
				err = errors.Join(err, file.Close())
			}
			files = nil
		}
	}()
	done := map[uint64]bool{}
	add := func(fd int, name string) error {
		var stat unix.Stat_t
		if err := unix.Fstat(fd, &stat); err != nil || done[stat.Dev] {
			return err
		}
		done[stat.Dev] = true
		own, err := openDirectory(fd, ".")
		if err == nil {
			files = append(files, os.NewFile(uintptr(own), name))
		}
		return err
	}
	for _, v := range d.volumes {
		if v.Transient || v.inMemory {
			continue
		}
		if err := add(v.fd, "volume "+v.Name); err != nil {
			return files, err
		}
	}
	if d.copy != nil {
		return files, add(d.copy.fd, "the sealed copy")
	}
	return files, nil
}
