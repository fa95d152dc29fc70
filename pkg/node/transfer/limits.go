package transfer

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// What is larger is refused, and the error has the limit. Limits of names are those of
// Linux where Linux has one.
const (
	// maxName is NAME_MAX, maxLink PATH_MAX without its end.
	maxName = 255
	maxLink = 4095
	// maxPath bounds the path of a name within its volume, in bytes. It is longer than
	// PATH_MAX: directories are entered one by one.
	maxPath = 64 << 10
	// maxDepth bounds the directories that are open at the same time.
	maxDepth = 512
	// maxXattrs bounds names and values of the extended attributes of one file together,
	// in bytes, maxXattr one value (XATTR_SIZE_MAX).
	maxXattrs = 256 << 10
	maxXattr  = 64 << 10
	// maxChunks bounds the chunks of one file that are no holes: 1 TiB of data. Their
	// digests are in memory, 8 MiB of them.
	maxChunks = 1 << 18
	// maxHeldNames bounds the names of the directories that are being read at the same
	// time, a directory and its parents, in bytes.
	maxHeldNames = 32 << 20
	// maxHeldLinks bounds the paths of files of which more names are to come, in bytes.
	maxHeldLinks = 32 << 20
	// maxEntries bounds the names of all volumes together.
	maxEntries = 10_000_000
	// maxVolumes bounds the volumes of one transfer.
	maxVolumes = 256
	// maxManifest bounds a manifest on its way, in bytes.
	maxManifest = 4 << 30
)

const (
	// chunkSize is the unit in which changes are found and sent.
	chunkSize = 4 << 20
	// blockSize is the unit in which holes are kept.
	blockSize = 4 << 10
	// smallFile is the size up to which a file is sent in one frame.
	smallFile = 128 << 10
)

const (
	// workers read files of a sender, or write chunks of a receiver, at the same time.
	// Their number does not follow that of the processors: memory does not either.
	workers = 4
	// idleTimeout is how long a connection may be silent. Whoever works for longer
	// without a word says so every keepAlive.
	idleTimeout = 60 * time.Second
	keepAlive   = 5 * time.Second
	// handshakeTimeout bounds everything until the hello frame was read.
	handshakeTimeout = 10 * time.Second
	// openTimeout bounds the opening of volumes.
	openTimeout = 30 * time.Second
	// settleTime is how long after its last change a file can be distinguished from
	// one that has changed again: the clock of file systems ticks every 4 to 10 ms.
	settleTime = 50 * time.Millisecond
)

const (
	// directionBuffers is what all senders of the process hold in buffers, and all
	// receivers, in bytes; streamBuffers is what one of them does: one that hangs takes no
	// more from the others.
	directionBuffers = 32 << 20
	streamBuffers    = 3 * bufferSize
	// bufferSize is a chunk with its frame.
	bufferSize = chunkSize + chunkHeader
)

// The budgets of the process. A sender waits for a receiver, of another process or of
// this one, and must not have taken the buffers that it needs: a receiver waits for
// nothing but its disk.
var (
	sendBuffers    = &bufferPool{bytes: semaphore.NewWeighted(directionBuffers)}
	receiveBuffers = &bufferPool{bytes: semaphore.NewWeighted(directionBuffers)}
)

// bufferPool keeps buffers of bufferSize as long as there is any stream. sync.Pool would
// keep one for each processor.
type bufferPool struct {
	bytes *semaphore.Weighted
	mu    sync.Mutex
	// streams counts those that use the pool.
	streams int
	free    [][]byte
}

func (p *bufferPool) get() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		return b
	}
	return make([]byte, bufferSize)
}

func (p *bufferPool) put(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.streams > 0 {
		p.free = append(p.free, b[:bufferSize])
	}
}

// streamBudget is the share of one stream. Buffers must be acquired in the order in
// which they are released: two that wait for each other would not end.
type streamBudget struct {
	pool *bufferPool
	own  *semaphore.Weighted
}

func (p *bufferPool) share() *streamBudget {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.streams++
	return &streamBudget{pool: p, own: semaphore.NewWeighted(streamBuffers)}
}

// close ends a stream: it takes no more buffers.
func (b *streamBudget) close() {
	b.pool.mu.Lock()
	defer b.pool.mu.Unlock()
	if b.pool.streams--; b.pool.streams == 0 {
		b.pool.free = nil
	}
}

// acquire waits until n bytes, at most streamBuffers, are free.
func (b *streamBudget) acquire(ctx context.Context, n int64) error {
	if err := b.own.Acquire(ctx, n); err != nil {
		return err
	}
	if err := b.pool.bytes.Acquire(ctx, n); err != nil {
		b.own.Release(n)
		return err
	}
	return nil
}

func (b *streamBudget) release(n int64) {
	b.pool.bytes.Release(n)
	b.own.Release(n)
}

// buffer acquires a buffer of bufferSize.
func (b *streamBudget) buffer(ctx context.Context) ([]byte, error) {
	if err := b.acquire(ctx, bufferSize); err != nil {
		return nil, err
	}
	return b.pool.get(), nil
}

func (b *streamBudget) giveBack(buffer []byte) {
	b.pool.put(buffer)
	b.release(bufferSize)
}
