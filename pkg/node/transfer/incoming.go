package transfer

import (
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// incoming is a large file that is being received.
type incoming struct {
	rec        *record
	fd, copyFD int
	// have is what was there, oldSize how long it was.
	have    chunkCursor
	oldSize int64
	// chunks are those that are known, up to next.
	chunks chunkList
	next   int64
	// lastLength is the length of the chunk before next, where it came.
	lastLength int64
	writes     writers
	written    atomic.Int64
}

// openLarge begins a large file.
func (a *applier) openLarge(r *record) error {
	if r.kind != kindFile {
		return failure(ReasonCorrupt, "%q is no file", r.path)
	}
	parent, base, err := a.place(r.path)
	if err != nil {
		return err
	}
	if err := checkAttributes(r, a.volume.Layer); err != nil {
		return err
	}
	if err := a.next.check.next(r); err != nil {
		return err
	}
	fd, copyFD, err := a.openFile(parent, base, r)
	if err != nil {
		return a.spoiled(r, err)
	}
	f := &incoming{rec: r, fd: fd, copyFD: copyFD, have: chunkCursor{list: base.content()}}
	if base != nil && base.kind.hasContent() {
		f.oldSize = base.size
	}
	a.file = f
	return a.truncate(f, r.size)
}

func (a *applier) truncate(f *incoming, size int64) error {
	for _, fd := range []int{f.fd, f.copyFD} {
		if fd < 0 {
			continue
		}
		if err := unix.Ftruncate(fd, size); err != nil {
			return a.spoiled(f.rec, a.onEither(fd, f.copyFD, err))
		}
	}
	return nil
}

// take takes over chunks that were there, up to before end. size is that of the file.
func (f *incoming) take(end, size int64) error {
	begin := f.next
	var taken chunkList
	f.have.next = begin
	f.have.copyTo(&taken, end)
	for _, r := range taken {
		if r.kind == chunkUnknown {
			return failure(ReasonCorrupt, "chunks of %q are missing between %d and %d", f.rec.path, begin, end)
		}
	}
	// The last chunk is another one where its length is another.
	if last := min(chunkCount(f.oldSize), chunkCount(size)) - 1; last >= begin && last < end && lengthAt(last, f.oldSize) != lengthAt(last, size) {
		if kind, _ := (&chunkCursor{list: f.have.list}).at(last); kind == chunkData {
			return failure(ReasonCorrupt, "chunk %d of %q is missing", last, f.rec.path)
		}
	}
	f.chunks = appendChunks(f.chunks, taken)
	if end > begin {
		f.next, f.lastLength = end, lengthAt(end-1, size)
	}
	return nil
}

// isFresh reports whether a chunk is a hole so far.
func (f *incoming) isFresh(chunk int64) bool {
	if chunk*chunkSize >= f.oldSize {
		return true
	}
	kind, _ := f.have.at(chunk)
	return kind == chunkHole
}

// chunk writes a chunk, in the background. It owns the buffer that the chunk is in, if
// there is one.
func (a *applier) chunk(index int64, c *chunk, buffer []byte) error {
	f := a.file
	err := f.acceptChunk(index, c)
	if err == nil {
		if err = f.writes.failed(); err != nil {
			err = a.spoiled(f.rec, err)
		}
	}
	if err != nil {
		if buffer != nil {
			a.budget.giveBack(buffer)
		}
		return err
	}
	fresh := f.isFresh(index)
	f.chunks.add(chunkData, 1, c.digest[:])
	f.next, f.lastLength = index+1, int64(c.length)
	f.writes.run(func() error {
		if buffer != nil {
			defer a.budget.giveBack(buffer)
		}
		for _, fd := range []int{f.fd, f.copyFD} {
			if fd < 0 {
				continue
			}
			n, err := writeChunk(fd, index*chunkSize, c, fresh)
			if err != nil {
				return a.onEither(fd, f.copyFD, err)
			}
			if fd == f.fd {
				f.written.Add(n)
			}
		}
		// The connection has vouched for what came: what counts is what is in its place now.
		same, err := verifyChunk(f.fd, index*chunkSize, c, a.hash)
		if err == nil && !same {
			err = failure(ReasonCorrupt, "chunk %d of %q is not what its digest says", index, f.rec.path)
		}
		return err
	})
	return nil
}

func (f *incoming) acceptChunk(index int64, c *chunk) error {
	if f == nil {
		return failure(ReasonCorrupt, "a chunk is of no file")
	}
	if index < f.next || index >= chunkCount(f.rec.size) || c.length < 1 || int64(c.length) > lengthAt(index, f.rec.size) {
		return failure(ReasonCorrupt, "chunk %d of %d bytes does not fit into %q with %d bytes", index, c.length, f.rec.path, f.rec.size)
	}
	if len(c.data) == 0 {
		return failure(ReasonCorrupt, "chunk %d of %q has no data", index, f.rec.path)
	}
	if _, err := c.spans(); err != nil {
		return err
	}
	return f.take(index, f.rec.size)
}

// holes makes chunks holes.
func (a *applier) holes(index, count int64) error {
	f := a.file
	if f == nil || index < f.next || count < 1 || index >= chunkCount(f.rec.size) || count > chunkCount(f.rec.size)-index {
		return failure(ReasonCorrupt, "%d chunks from %d on are of no file", count, index)
	}
	if err := f.take(index, f.rec.size); err != nil {
		return err
	}
	begin, end := index*chunkSize, f.rec.size
	if index+count < chunkCount(f.rec.size) {
		end = (index + count) * chunkSize
	}
	for _, fd := range []int{f.fd, f.copyFD} {
		if fd < 0 || begin >= f.oldSize {
			continue
		}
		if err := punch(fd, begin, min(end, f.oldSize)-begin); err != nil {
			return a.spoiled(f.rec, a.onEither(fd, f.copyFD, err))
		}
	}
	f.chunks.add(chunkHole, count, nil)
	f.next, f.lastLength = index+count, lengthAt(index+count-1, f.rec.size)
	return nil
}

// closeLarge completes a large file. It is smaller than it was announced where it became
// shorter while it was read.
func (a *applier) closeLarge(size int64) error {
	f := a.file
	if f == nil || size > f.rec.size || f.next > chunkCount(size) {
		return failure(ReasonCorrupt, "a file ends at %d bytes, which is none or was announced otherwise", size)
	}
	if err := f.take(chunkCount(size), size); err != nil {
		return err
	}
	if n := chunkCount(size); n > 0 && f.lastLength != lengthAt(n-1, size) {
		if last := f.chunks[len(f.chunks)-1]; last.kind == chunkData {
			return failure(ReasonCorrupt, "the last chunk of %q has %d bytes, want %d", f.rec.path, f.lastLength, lengthAt(n-1, size))
		}
	}
	if err := f.writes.wait(); err != nil {
		return a.spoiled(f.rec, err)
	}
	if size < f.rec.size {
		if err := a.truncate(f, size); err != nil {
			return err
		}
	}
	final := *f.rec
	final.size, final.chunks = size, f.chunks
	if final.chunks.dataCount() > maxChunks {
		return failure(ReasonTooLarge, "%q has more than %d bytes of data, which is as much as can be carried", final.path, int64(maxChunks)*chunkSize)
	}
	a.result.Written += f.written.Load()
	err := a.complete(f.fd, &final)
	closeBoth(f.fd, f.copyFD)
	a.file = nil
	return err
}

// cutFile writes down what has come of a large file.
func (a *applier) cutFile() error {
	f := a.file
	if f == nil {
		return nil
	}
	if err := f.writes.wait(); err != nil {
		return a.spoiled(f.rec, err)
	}
	partial := *f.rec
	partial.kind, partial.chunks = kindPartial, f.partial()
	err := a.done(&partial, signature{})
	closeBoth(f.fd, f.copyFD)
	a.file = nil
	return err
}

// partial lists the chunks of a file of which a part has come.
func (f *incoming) partial() chunkList {
	size, count := f.rec.size, chunkCount(f.rec.size)
	known := appendChunks(nil, f.chunks)
	if f.next > 0 && f.lastLength != lengthAt(f.next-1, size) {
		known = forgetLast(known) // it came shorter than the file is
	}
	kept := max(f.next, min(chunkCount(f.oldSize), count))
	var rest chunkList
	f.have.next = f.next
	f.have.copyTo(&rest, kept)
	if kept > f.next && lengthAt(kept-1, f.oldSize) != lengthAt(kept-1, size) {
		rest = forgetLast(rest) // it was cut or extended
	}
	known = appendChunks(known, rest)
	// What is beyond was never written.
	known.add(chunkHole, count-kept, nil)
	return known
}

// writers write chunks at the same time.
type writers struct {
	all   sync.WaitGroup
	slots chan struct{}
	mu    sync.Mutex
	err   error
}

func (w *writers) run(work func() error) {
	if w.slots == nil {
		w.slots = make(chan struct{}, workers)
	}
	w.slots <- struct{}{}
	w.all.Go(func() {
		defer func() { <-w.slots }()
		if err := work(); err != nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.err = errors.Join(w.err, err)
		}
	})
}

func (w *writers) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *writers) wait() error {
	w.all.Wait()
	return w.failed()
}
