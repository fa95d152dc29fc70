package transfer

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

const (
	blocksInChunk = chunkSize / blockSize
	// chunkHeader is what a frame with a chunk has beside its data at most: every second
	// block with data.
	chunkHeader = 8 << 10
)

// chunk is a chunk that was read: its blocks that are not zero, without the others.
type chunk struct {
	length int
	// layout has the numbers of holes and of blocks with data in turn, data that of the
	// blocks.
	layout []byte
	data   []byte
	digest [sha256.Size]byte
}

// isHole reports whether the chunk has nothing but zeros.
func (c *chunk) isHole() bool { return len(c.data) == 0 }

// readChunk fills the buffer from a file, as far as that has data. sparse says that it has
// holes, which are then not read.
func readChunk(fd int, offset int64, buffer []byte, sparse bool, hash *hasher) (c chunk, n int, err error) {
	if sparse {
		n, err = readSegments(fd, offset, buffer)
	} else {
		n, err = readFull(fd, offset, buffer)
	}
	if err != nil {
		return chunk{}, 0, err
	}
	c = packChunk(buffer[:n])
	if !c.isHole() {
		c.digest = hash.sum(&c)
	}
	return c, n, nil
}

// packChunk removes blocks of zeros from data, in place. It makes no digest.
func packChunk(b []byte) chunk {
	c := chunk{length: len(b)}
	var runs [2 * binary.MaxVarintLen32]byte
	layout, packed := runs[:0], 0
	for start := 0; start < len(b); {
		holes := 0
		for start < len(b) && isZero(b[start:min(start+blockSize, len(b))]) {
			start += blockSize
			holes++
		}
		end := start
		for end < len(b) && !isZero(b[end:min(end+blockSize, len(b))]) {
			end += blockSize
		}
		if end > start {
			layout = binary.AppendUvarint(layout, uint64(holes))
			layout = binary.AppendUvarint(layout, uint64((end-start)/blockSize))
			packed += copy(b[packed:], b[start:min(end, len(b))])
		}
		start = end
	}
	c.layout, c.data = layout, b[:packed]
	return c
}

// span is a part of a chunk with data.
type span struct{ begin, end int }

// spans returns where data is, and checks that it is as long as the layout says.
func (c *chunk) spans() ([]span, error) {
	d := decoder{rest: c.layout}
	var all []span
	at, total := 0, 0
	for len(d.rest) > 0 {
		holes, blocks := d.uint(blocksInChunk), d.uint(blocksInChunk)
		at += int(holes) * blockSize
		if d.err != nil || blocks == 0 || holes == 0 && len(all) > 0 || at >= c.length || at+(int(blocks)-1)*blockSize >= c.length {
			return nil, failure(ReasonCorrupt, "a chunk of %d bytes has a layout that no sender writes", c.length)
		}
		end := min(at+int(blocks)*blockSize, c.length)
		all = append(all, span{at, end})
		total += end - at
		at = end
	}
	if total != len(c.data) {
		return nil, failure(ReasonCorrupt, "a chunk has %d bytes of data, want %d", len(c.data), total)
	}
	return all, nil
}

// writeChunk makes a part of a file equal to a chunk. fresh says that it is a hole.
func writeChunk(fd int, offset int64, c *chunk, fresh bool) (written int64, err error) {
	spans, err := c.spans()
	if err != nil {
		return 0, err
	}
	data, at := c.data, 0
	for _, s := range spans {
		if !fresh && s.begin > at {
			if err := punch(fd, offset+int64(at), int64(s.begin-at)); err != nil {
				return written, err
			}
		}
		if err := writeFull(fd, offset+int64(s.begin), data[:s.end-s.begin]); err != nil {
			return written, err
		}
		written += int64(s.end - s.begin)
		data, at = data[s.end-s.begin:], s.end
	}
	if !fresh && at < c.length {
		err = punch(fd, offset+int64(at), int64(c.length-at))
	}
	return written, err
}

// verifyChunk reads back what a part of a file has by now where a chunk has data, into the
// memory of the chunk, and compares its digest.
func verifyChunk(fd int, offset int64, c *chunk, hash *hasher) (bool, error) {
	if c.isHole() {
		return true, nil
	}
	spans, err := c.spans()
	if err != nil {
		return false, err
	}
	data := c.data
	for _, s := range spans {
		n, err := readFull(fd, offset+int64(s.begin), data[:s.end-s.begin])
		if err != nil || n < s.end-s.begin {
			return false, err
		}
		data = data[n:]
	}
	return hash.sum(c) == c.digest, nil
}

// The calls that wait for a storage longest. Tests replace them by one that does not answer.
var pread, pwrite = unix.Pread, unix.Pwrite

func readFull(fd int, offset int64, b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := pread(fd, b[done:], offset+int64(done))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return done, err
		}
		if n == 0 {
			break
		}
		done += n
	}
	return done, nil
}

// writeUnit is what one call writes at most, in bytes. For a larger write the page cache
// takes larger pieces of memory, and a virtual machine may have given those back to its host:
// 4 MiB at a time take eight times as much of a processor there as 256 KiB.
const writeUnit = 64 << 10

func writeFull(fd int, offset int64, b []byte) error {
	for len(b) > 0 {
		n, err := pwrite(fd, b[:min(len(b), writeUnit)], offset)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b, offset = b[n:], offset+int64(n)
	}
	return nil
}

// readSegments reads what is data. n is less than the buffer where the file ends.
func readSegments(fd int, offset int64, b []byte) (n int, err error) {
	clear(b)
	end := offset + int64(len(b))
	for at := offset; at < end; {
		data, err := nextData(fd, at)
		if err != nil {
			return 0, err
		}
		if data >= end {
			break
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil || hole <= data {
			hole = end
		}
		hole = min(hole, end)
		if _, err := readFull(fd, data, b[data-offset:hole-offset]); err != nil {
			return 0, err
		}
		at = hole
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return 0, err
	}
	return int(max(0, min(end, stat.Size)-offset)), nil
}

// nextData returns where data is next; the largest offset where there is none. A file
// system that knows no holes says that it is all data.
func nextData(fd int, offset int64) (int64, error) {
	data, err := unix.Seek(fd, offset, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return 1<<63 - 1, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return offset, nil
	}
	return data, err
}

var zeros [blockSize]byte

func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

// punch makes a hole; a file system without holes gets zeros.
func punch(fd int, offset, length int64) error {
	err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	for length > 0 {
		n := min(length, blockSize)
		if err := writeFull(fd, offset, zeros[:n]); err != nil {
			return err
		}
		offset, length = offset+n, length-n
	}
	return nil
}
