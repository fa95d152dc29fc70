package transfer

import (
	"encoding/binary"
	"errors"
	"time"
)

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
