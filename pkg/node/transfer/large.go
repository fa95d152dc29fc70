package transfer

import (
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A large file is read in chunks, by several workers at the same time. The planner finds
// its holes; what is left is read and packed by workers, and closed when all are done.

// openFile is a large file that is being read.
type openFile struct {
	fd     int
	users  atomic.Int32
	sparse bool
	began  time.Time
	stat   unix.Stat_t
	// sealed, for a file of a sealed copy, is what it has to be.
	sealed *record
}

func (f *openFile) hold() *openFile {
	f.users.Add(1)
	return f
}

func (f *openFile) release() {
	if f.users.Add(-1) == 0 {
		unix.Close(f.fd)
	}
}

// large plans a file that is read in chunks.
func (p *planner) large(v *openVolume, d *directory, i *item) error {
	file, err := p.openLarge(v, d, i)
	if err != nil {
		return p.vanished(i, err)
	}
	return p.sendLarge(i, file)
}

// sendLarge plans the content of a file that is open, and closes it.
func (p *planner) sendLarge(i *item, file *openFile) error {
	defer file.release()
	i.op, i.file = opOpen, file.hold()
	if err := p.put(i); err != nil {
		return err
	}
	if err := p.chunks(i, file); err != nil {
		return err
	}
	return p.put(&item{op: opClose, rec: i.rec, base: i.base, volume: i.volume, file: file.hold()})
}

func (p *planner) openLarge(v *openVolume, d *directory, i *item) (*openFile, error) {
	file := &openFile{began: time.Now()}
	fd, err := openRegular(d.fd, i.name, unix.O_RDONLY, &file.stat)
	if err != nil {
		return nil, err
	}
	file.fd = fd
	file.users.Store(1)
	if file.stat.Ino != i.stat.Ino {
		return nil, errors.Join(errKind, unix.Close(fd))
	}
	if err = p.protect(v, fd); err == nil {
		i.rec.xattrs, err = readXattrs(fd, v.Layer)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	if _, err := describe(i.rec, &file.stat, v.Layer); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	file.sparse = file.stat.Blocks*512 < file.stat.Size
	return file, nil
}

// protect makes stores to mapped pages change the time of a file again: they do it
// once, until the pages are written back.
func (p *passage) protect(v *openVolume, fd int) error {
	if p.frozen || v.inMemory || p.still {
		return nil
	}
	err := unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		err = unix.Fsync(fd)
	}
	return err
}

// chunks plans the content of a large file: holes are found, not read.
func (p *planner) chunks(of *item, file *openFile) error {
	have, want := chunkCursor{list: of.base.content()}, chunkCursor{}
	if file.sealed != nil {
		want.list = file.sealed.chunks
	}
	count, data := chunkCount(of.rec.size), 0
	for at := int64(0); at < count; at++ {
		if file.sparse {
			next, err := nextData(file.fd, at*chunkSize)
			if err != nil {
				return err
			}
			if end := min(next/chunkSize, count); end > at {
				if err := p.put(&item{op: opHoles, rec: of.rec, index: at, count: end - at}); err != nil {
					return err
				}
				if at = end; at >= count {
					return nil
				}
			}
		}
		if data++; data > maxChunks {
			return failure(ReasonTooLarge, "the file has more than %d bytes of data, which is as much as can be carried", int64(maxChunks)*chunkSize)
		}
		buffer, err := p.budget.buffer(p.ctx)
		if err != nil {
			return err
		}
		i := &item{op: opChunk, rec: of.rec, file: file.hold(), index: at, ready: make(chan struct{}), buffer: buffer}
		i.haveKind, i.have = have.at(at)
		_, i.digest = want.at(at)
		if err := p.put(i); err != nil {
			return err
		}
	}
	return nil
}
