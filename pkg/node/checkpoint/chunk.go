package checkpoint

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// chunkSize is the unit in which changes are found and written.
	chunkSize = 4 << 20
	// blockSize is the unit in which holes are kept.
	blockSize = 4 << 10
)

// buffers are one chunk long.
var buffers = sync.Pool{New: func() any { b := make([]byte, chunkSize); return &b }}

// content copies the content of a file, chunk by chunk.
type content struct {
	from, to *os.File
	size     int64
	// known are the digests of what `to` holds; an unknown one is missing.
	known []knownChunk
	// want, when set, are the digests that `from` must have.
	want [][]byte
}

// knownChunk tells apart a hole from a chunk of which nothing is known.
type knownChunk struct {
	digest []byte
	known  bool
}

func allKnown(chunks [][]byte) []knownChunk {
	known := make([]knownChunk, len(chunks))
	for i, digest := range chunks {
		known[i] = knownChunk{digest: digest, known: true}
	}
	return known
}

// copied is what came of copying a file.
type copied struct {
	chunks  [][]byte
	written int64
	// changed are the numbers of the chunks that were written.
	changed []int64
}

func chunkCount(size int64) int64 { return (size + chunkSize - 1) / chunkSize }

// run makes `to` equal to `from`. Only chunks that differ are written.
func (c *content) run(ctx context.Context) (copied, error) {
	if err := c.to.Truncate(c.size); err != nil {
		return copied{}, err
	}
	count := chunkCount(c.size)
	done := copied{chunks: make([][]byte, count)}
	differs := make([]bool, count)
	var written atomic.Int64
	err := eachChunk(ctx, count, func(i int64, buffer []byte) error {
		data, err := readChunk(c.from, i*chunkSize, buffer[:c.length(i)])
		if err != nil {
			return err
		}
		digest := digestOfChunk(data)
		if c.want != nil && !bytes.Equal(digest, c.want[i]) {
			return failure(ReasonCorrupt, "bytes from %d on are not what was written", i*chunkSize)
		}
		done.chunks[i] = digest
		if i < int64(len(c.known)) && c.known[i].known && bytes.Equal(digest, c.known[i].digest) {
			return nil
		}
		// Reading may have hung for long: whoever waited has given up.
		if err := ctx.Err(); err != nil {
			return err
		}
		differs[i] = true
		n, err := c.write(i*chunkSize, c.length(i), data)
		written.Add(n)
		return err
	})
	done.written = written.Load()
	for i, changed := range differs {
		if changed {
			done.changed = append(done.changed, int64(i))
		}
	}
	return done, err
}

func (c *content) length(chunk int64) int64 { return min(chunkSize, c.size-chunk*chunkSize) }

// eachChunk works on count chunks on all processors, each with a buffer.
func eachChunk(ctx context.Context, count int64, work func(i int64, buffer []byte) error) error {
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range min(count, int64(runtime.GOMAXPROCS(0))) {
		group.Go(func() error {
			buffer := buffers.Get().(*[]byte)
			defer buffers.Put(buffer)
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= count {
					return nil
				}
				if err := work(i, *buffer); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	return group.Wait()
}

// readChunk returns nil for a hole, and for nothing but zeros.
func readChunk(file *os.File, offset int64, buffer []byte) ([]byte, error) {
	data, err := unix.Seek(int(file.Fd()), offset, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) || err == nil && data >= offset+int64(len(buffer)) {
		return nil, nil
	}
	// A file system that knows no holes answers with an error: it is all data.
	if _, err := io.ReadFull(io.NewSectionReader(file, offset, int64(len(buffer))), buffer); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, failure(ReasonChanged, "it became shorter while it was read")
		}
		return nil, err
	}
	if isZero(buffer) {
		return nil, nil
	}
	return buffer, nil
}

func digestOfChunk(data []byte) []byte {
	if data == nil {
		return nil
	}
	sum := sha256.Sum256(data)
	return sum[:]
}

var zeros [blockSize]byte

func isZero(data []byte) bool {
	for len(data) > 0 {
		n := min(len(data), blockSize)
		if !bytes.Equal(data[:n], zeros[:n]) {
			return false
		}
		data = data[n:]
	}
	return true
}

// write makes a chunk equal to data, with a hole for every block of zeros.
func (c *content) write(offset, length int64, data []byte) (written int64, err error) {
	if data == nil {
		return 0, punch(c.to, offset, length)
	}
	punched := false
	for start := int64(0); start < length; {
		end := start
		for end < length && !isZero(data[end:min(end+blockSize, length)]) {
			end = min(end+blockSize, length)
		}
		if end > start {
			if _, err := c.to.WriteAt(data[start:end], offset+start); err != nil {
				return written, err
			}
			written += end - start
		}
		if end < length {
			// A block of zeros: whatever was there before must go, once.
			if !punched {
				if err := punch(c.to, offset+end, length-end); err != nil {
					return written, err
				}
				punched = true
			}
			end = min(end+blockSize, length)
		}
		start = end
	}
	return written, nil
}

// punch makes a hole; a file system without holes gets zeros.
func punch(file *os.File, offset, length int64) error {
	err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	for length > 0 {
		n := min(length, blockSize)
		if _, err := file.WriteAt(zeros[:n], offset); err != nil {
			return err
		}
		offset, length = offset+n, length-n
	}
	return nil
}

// verify reads chunks back, from the disk where the page cache can be dropped.
func (d disk) verify(ctx context.Context, file *os.File, size int64, done copied) error {
	if len(done.changed) == 0 {
		return nil
	}
	d.drop(file)
	return eachChunk(ctx, int64(len(done.changed)), func(n int64, buffer []byte) error {
		i := done.changed[n]
		data, err := readChunk(file, i*chunkSize, buffer[:min(chunkSize, size-i*chunkSize)])
		if err != nil {
			return fmt.Errorf("reading back: %w", err)
		}
		if !bytes.Equal(digestOfChunk(data), done.chunks[i]) {
			return failure(ReasonCorrupt, "bytes from %d on read back differently", i*chunkSize)
		}
		return nil
	})
}
