package transfer

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

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
	return explainState(d.state, err)
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
			err = d.receivePass(ctx, c, f)
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
func (d *Destination) receivePass(ctx context.Context, c *connection, begin frame) error {
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
	if syncErr := d.waitSync(ctx, syncing); err == nil {
		err = syncErr
	}
	if err == nil && last {
		err = d.seal(ctx, a)
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
		return a.applyChunk(&d, f)
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

// applyChunk takes the buffer of the frame, if it has one.
func (a *applier) applyChunk(d *decoder, f *frame) error {
	index := int64(d.uint(1 << 62))
	content := chunk{length: int(d.uint(chunkSize))}
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
