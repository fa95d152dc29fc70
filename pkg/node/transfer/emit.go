package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

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

// emitter sends what differs, and writes the next manifest.
type emitter struct {
	*passage
	next *manifestWriter
	// file is the large file that is being sent.
	file *outgoing
	// missing are first names of files with several that vanished meanwhile.
	missing map[string]bool
	volumes uint64
	scratch []byte
	seen    time.Time
}

// outgoing is a large file that is being sent.
type outgoing struct {
	rec, base *record
	chunks    chunkList
	have      chunkCursor
	opened    bool
	// cut: it became shorter, and ends at size.
	cut  bool
	size int64
}

func (e *emitter) emit(i *item) error {
	if i.ready != nil {
		<-i.ready
		if i.err != nil {
			return i.err
		}
	}
	switch i.op {
	case opVolume:
		e.missing = nil
		e.volumes++
		if err := e.next.add(i.rec, signature{}); err != nil {
			return err
		}
		return e.send(frameVolume, binary.AppendUvarint(nil, e.volumes-1))
	case opSame:
		return e.add(i, i.rec, i.sig)
	case opPut:
		return e.put(i)
	case opSmall:
		return e.small(i)
	case opOpen:
		e.file = &outgoing{rec: i.rec, base: i.base, have: chunkCursor{list: i.base.content()}, size: i.rec.size}
		return nil
	case opHoles:
		return e.holes(i)
	case opChunk:
		return e.chunk(i)
	case opClose:
		return e.close(i)
	case opRemove:
		return e.remove(i.rec.path)
	}
	return nil
}

func (e *emitter) send(t frameType, parts ...[]byte) error {
	if e.to == nil {
		return nil
	}
	return e.to.send(t, parts...)
}

// add writes a record to the next manifest.
func (e *emitter) add(i *item, r *record, s signature) error {
	if err := e.next.add(r, s); err != nil {
		return err
	}
	e.result.Files++
	if r.kind != kindLink {
		e.result.Bytes += i.stat.Blocks * 512
	}
	if now := e.result.Files; e.progress != nil && now%64 == 0 && time.Since(e.seen) > time.Second {
		e.seen = time.Now()
		e.progress(Progress{Bytes: e.result.Bytes, Files: now})
	}
	return nil
}

func (e *emitter) remove(path string) error {
	e.result.Removed++
	return e.send(frameRemove, appendString(nil, path))
}

// put sends what has no content.
func (e *emitter) put(i *item) error {
	if i.rec.kind == kindLink && e.missing[i.rec.link] {
		return e.gone(i)
	}
	if i.base == nil || !i.rec.equal(i.base) {
		e.scratch = appendRecord(e.scratch[:0], i.rec)
		if err := e.send(framePut, e.scratch, []byte{0}); err != nil {
			return err
		}
	}
	return e.add(i, i.rec, i.sig)
}

// gone sends that a name vanished between plan and reading.
func (e *emitter) gone(i *item) error {
	if i.stat.Nlink > 1 {
		if e.missing == nil {
			e.missing = map[string]bool{}
		}
		e.missing[i.rec.path] = true
	}
	if i.base == nil {
		return nil
	}
	return e.remove(i.rec.path)
}

func (e *emitter) small(i *item) error {
	if i.gone {
		return e.gone(i)
	}
	base := i.base
	same := base != nil && base.kind.hasContent() && base.size == i.rec.size && base.chunks.equal(i.rec.chunks)
	if same && i.rec.equal(base) {
		return e.add(i, i.rec, i.sig)
	}
	e.scratch = appendRecord(e.scratch[:0], i.rec)
	var err error
	if same {
		err = e.send(framePut, e.scratch, []byte{0})
	} else {
		e.result.Written += int64(len(i.chunk.data))
		n := len(e.scratch)
		e.scratch = append(e.scratch, 1)
		e.scratch = appendString(e.scratch, string(i.chunk.layout))
		err = e.send(framePut, e.scratch[:n], e.scratch[n:], i.chunk.data)
	}
	if err != nil {
		return err
	}
	return e.add(i, i.rec, i.sig)
}

// open sends the begin of a large file, once.
func (e *emitter) open() error {
	if e.file.opened {
		return nil
	}
	e.file.opened = true
	announced := *e.file.rec
	announced.chunks = nil
	announced.chunks.add(chunkHole, chunkCount(announced.size), nil)
	e.scratch = appendRecord(e.scratch[:0], &announced)
	return e.send(frameOpen, e.scratch)
}

func (e *emitter) holes(i *item) error {
	f := e.file
	if f.cut {
		return nil
	}
	f.chunks.add(chunkHole, i.count, nil)
	var has chunkList
	f.have.next = i.index
	f.have.copyTo(&has, i.index+i.count)
	if len(has) == 1 && has[0].kind == chunkHole {
		return nil
	}
	return e.sendHoles(i.index, i.count)
}

func (e *emitter) sendHoles(index, count int64) error {
	if err := e.open(); err != nil {
		return err
	}
	b := binary.AppendUvarint(nil, uint64(index))
	return e.send(frameHoles, binary.AppendUvarint(b, uint64(count)))
}

func (e *emitter) chunk(i *item) error {
	f := e.file
	if f.cut {
		return nil
	}
	offset := i.index * chunkSize
	if int64(i.read) < min(chunkSize, i.rec.size-offset) {
		f.cut, f.size = true, offset+int64(i.read)
		e.disturbed.Store(true)
		if i.read == 0 {
			return nil
		}
	}
	if i.chunk.isHole() {
		f.chunks.add(chunkHole, 1, nil)
		if i.haveKind == chunkHole {
			return nil
		}
		return e.sendHoles(i.index, 1)
	}
	f.chunks.add(chunkData, 1, i.chunk.digest[:])
	if i.haveKind == chunkData && string(i.have) == string(i.chunk.digest[:]) {
		return nil
	}
	if err := e.open(); err != nil {
		return err
	}
	e.result.Written += int64(len(i.chunk.data))
	return e.send(frameChunk, chunkHead(i.index, &i.chunk), i.chunk.data)
}

func chunkHead(index int64, c *chunk) []byte {
	b := binary.AppendUvarint(nil, uint64(index))
	b = binary.AppendUvarint(b, uint64(c.length))
	b = append(b, c.digest[:]...)
	return appendString(b, string(c.layout))
}

// close sends the end of a large file, and nothing where nothing differs.
func (e *emitter) close(i *item) error {
	f := e.file
	e.file = nil
	sig, err := signature{}, error(nil)
	if i.file.sealed == nil {
		if sig, err = e.afterRead(i.volume, i.file.fd, &i.file.stat, i.file.began); err != nil {
			return err
		}
	}
	announced := f.rec
	final := *announced
	final.size, final.chunks = f.size, f.chunks
	i.stat = i.file.stat
	if f.opened || f.base == nil || !final.equal(f.base) {
		e.file = f
		err := errors.Join(e.open(), e.send(frameClose, binary.AppendUvarint(nil, uint64(f.size))))
		e.file = nil
		if err != nil {
			return err
		}
	}
	return e.add(i, &final, sig)
}
