package transfer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A pass is a pipeline. One goroutine plans: it walks the volumes beside the manifest of
// what the other side has, and decides what has to be read. Workers read. One goroutine
// emits, in the order of the plan: it sends what differs, and writes the next manifest.
// The planner acquires the budget for what is read, in the same order.

// Progress is how far a pass is.
type Progress struct {
	// Bytes are those that files take, Files are names of every kind.
	Bytes, Files int64
}

// PassResult is what a pass found and did.
type PassResult struct {
	// Pass counts from 1 for each side of a connection.
	Pass int64
	// Bytes (allocated) and Files (names of every kind) are what the volumes hold.
	Bytes, Files int64
	// Written are bytes of content that were sent, Removed names that were gone.
	Written, Removed int64
	// Skipped are sockets, which cannot be carried.
	Skipped int64
	// Digest is the SHA-256 of the manifest, in hexadecimal digits. Both sides have
	// compared it.
	Digest string
	// Sealed says that this was the last pass.
	Sealed bool
}

// passage is one pass.
type passage struct {
	// frozen: the pod does not run. still: nobody writes what is read.
	frozen, still bool
	budget        *streamBudget
	hash          *hasher
	// to is where frames go; nil for an inventory, which only makes a manifest.
	to       *connection
	progress func(Progress)
	result   PassResult
	// disturbed: something changed while it was read.
	disturbed atomic.Bool
}

// planFunc makes the plan of all volumes.
type planFunc func(*planner) error

// run makes a pass beside the manifest of what the other side has, and returns the
// manifest that it has then. After an error the manifest, if there is one, is what was
// sent so far.
func (p *passage) run(ctx context.Context, base *manifest, next *manifestWriter, plan planFunc) error {
	reader, err := base.open()
	if err != nil {
		return err
	}
	defer reader.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue, work := make(chan *item, 256), make(chan *item, workers)
	var all sync.WaitGroup
	all.Go(func() {
		defer close(queue)
		defer close(work)
		if err := plan(&planner{passage: p, ctx: ctx, queue: queue, work: work, base: reader}); err != nil {
			cancel(err)
		}
	})
	for range workers {
		all.Go(func() {
			for i := range work {
				if i.err = ctx.Err(); i.err == nil {
					i.err = p.read(i)
				}
				close(i.ready)
			}
		})
	}
	e := emitter{passage: p, next: next}
	for i := range queue {
		if ctx.Err() == nil {
			if err := e.emit(i); err != nil {
				cancel(fmt.Errorf("%q: %w", i.rec.path, err))
			}
		}
		i.free(p.budget)
	}
	all.Wait()
	return context.Cause(ctx)
}

// read reads a small file or a chunk.
func (p *passage) read(i *item) error {
	if i.op == opSmall {
		err := p.readSmall(i)
		if !isGone(err) {
			return err
		}
		if i.sealed != nil {
			return notSealed(err)
		}
		i.gone = true
		p.disturbed.Store(true)
		return nil
	}
	offset := i.index * chunkSize
	length := int(min(chunkSize, i.rec.size-offset))
	var err error
	i.chunk, i.read, err = readChunk(i.file.fd, offset, i.buffer[:length], i.file.sparse, p.hash)
	if err == nil && i.file.sealed != nil {
		err = checkSealed(&i.chunk, i.read, length, i.digest)
	}
	return err
}

func checkSealed(c *chunk, read, length int, digest []byte) error {
	if read == length && (digest == nil && c.isHole() || digest != nil && string(digest) == string(c.digest[:])) {
		return nil
	}
	return failure(ReasonCorrupt, "its content in the sealed copy is not what was written there")
}

// readSmall reads a file with its metadata.
func (p *passage) readSmall(i *item) error {
	began := time.Now()
	var stat unix.Stat_t
	fd, err := openRegular(i.directory.fd, i.name, unix.O_RDONLY, &stat)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if i.sealed != nil {
		return p.readSealed(fd, i, &stat)
	}
	if stat.Ino != i.stat.Ino {
		return errKind // another file
	}
	v := i.volume
	if err := p.protect(v, fd); err != nil {
		return err
	}
	if i.rec.xattrs, err = readXattrs(fd, v.Layer); err != nil {
		return err
	}
	if _, err := describe(i.rec, &stat, v.Layer); err != nil {
		return err
	}
	i.buffer = make([]byte, min(i.rec.size, smallFile))
	if i.chunk, i.read, err = readChunk(fd, 0, i.buffer, false, p.hash); err != nil {
		return err
	}
	i.rec.size = int64(i.read)
	i.rec.chunks = i.chunk.list()
	if stat.Size > smallFile {
		p.disturbed.Store(true) // it has grown: the next pass takes the rest
		return nil
	}
	i.sig, err = p.afterRead(v, fd, &stat, began)
	return err
}

func (p *passage) readSealed(fd int, i *item, stat *unix.Stat_t) error {
	if stat.Size != i.sealed.size {
		return failure(ReasonCorrupt, "its content in the sealed copy has %d bytes, want %d", stat.Size, i.sealed.size)
	}
	i.buffer = make([]byte, i.sealed.size)
	var err error
	if i.chunk, i.read, err = readChunk(fd, 0, i.buffer, false, p.hash); err != nil {
		return err
	}
	_, digest := (&chunkCursor{list: i.sealed.chunks}).at(0)
	return checkSealed(&i.chunk, i.read, len(i.buffer), digest)
}

// list is that of a file of one chunk.
func (c *chunk) list() chunkList {
	var l chunkList
	switch {
	case c.length == 0:
	case c.isHole():
		l.add(chunkHole, 1, nil)
	default:
		l.add(chunkData, 1, c.digest[:])
	}
	return l
}

// afterRead returns the signature of a file that was read since a moment, and nothing
// where it changed meanwhile.
func (p *passage) afterRead(v *openVolume, fd int, before *unix.Stat_t, began time.Time) (signature, error) {
	var after unix.Stat_t
	if err := unix.Fstat(fd, &after); err != nil {
		return signature{}, err
	}
	if signatureOf(&after) != signatureOf(before) || after.Size != before.Size || after.Mtim != before.Mtim {
		p.disturbed.Store(true)
		return signature{}, nil
	}
	if v.inMemory || !isSettled(before, began) {
		return signature{}, nil
	}
	return signatureOf(before), nil
}
