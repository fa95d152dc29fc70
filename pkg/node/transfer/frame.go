package transfer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// frameType is the first byte of a frame. Four bytes with the length of what follows come
// after it, most significant first.
type frameType byte

// Frames of the sender.
const (
	frameHello  frameType = 'H' // version, migration, attempt, volumes, 1 where the hash must be SHA-256
	frameWant   frameType = 'W' // the manifest of the receiver
	frameBegin  frameType = 'B' // a pass: its number, 1 where the pod is frozen
	frameVolume frameType = 'V' // its number; what follows is of it
	framePut    frameType = 'P' // a whole record, 1 and content where that differs
	frameOpen   frameType = 'O' // the record of a large file, as if it were one hole
	frameChunk  frameType = 'C' // a chunk of it: number, length, digest, layout, data
	frameHoles  frameType = 'Z' // chunks of it that are holes: first, how many
	frameClose  frameType = 'X' // its size, which is smaller where it became shorter
	frameRemove frameType = 'R' // a path: it, and all in it, is gone
	frameEnd    frameType = 'E' // of a pass: digest and number of all records, 1 for the last pass
)

// Frames of the receiver.
const (
	frameWelcome  frameType = 'w' // version, digest of its manifest, key of the hash or none
	frameManifest frameType = 'm' // a part of its manifest; an empty one is the end
	frameDone     frameType = 'd' // digest of its manifest after a pass
	frameFail     frameType = 'f' // reason and message
)

// framePing, of either side, says that it is at work.
const framePing frameType = '.'

const (
	frameHeader = 5
	// inlineFrame is the size up to which a frame needs no buffer of the budget.
	inlineFrame = 64 << 10
	// writeSize is how much is written at once, and what a rate limit counts.
	writeSize = 256 << 10
	// maxMessage bounds the message of a failure of the other side.
	maxMessage = 4 << 10
)

// timedConn ends reads and writes that take longer than idleTimeout.
type timedConn struct {
	net.Conn
	ctx context.Context
	// limit, when set, is waited for before bytes are sent.
	limit   *rate.Limiter
	limited atomic.Bool
	idle    time.Duration
}

func (c *timedConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *timedConn) Write(b []byte) (written int, err error) {
	for len(b) > 0 {
		part := b[:min(len(b), writeSize)]
		if c.limit != nil && c.limited.Load() {
			part = part[:min(len(part), max(1, c.limit.Burst()))]
			if err := c.limit.WaitN(c.ctx, len(part)); err != nil {
				return written, err
			}
		}
		if err := c.SetWriteDeadline(time.Now().Add(c.idle)); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(part)
		written += n
		if err != nil {
			return written, err
		}
		b = b[n:]
	}
	return written, nil
}

// connection sends and receives frames. Frames are sent by several goroutines, received
// by one.
type connection struct {
	conn *timedConn
	in   *bufio.Reader
	mu   sync.Mutex
	out  *bufio.Writer
	// inline holds the last frame that was received, if it is small.
	inline []byte
	budget *streamBudget
	// received counts bytes.
	received atomic.Int64
}

// connect makes a connection of a net.Conn, whose buffers are those of a pool. It is closed
// when the context ends.
func connect(ctx context.Context, conn net.Conn, buffers *bufferPool, limit *rate.Limiter) (*connection, func()) {
	timed := &timedConn{Conn: conn, ctx: ctx, limit: limit, idle: idleTimeout}
	stop := context.AfterFunc(ctx, func() { closeNow(conn) })
	budget := buffers.share()
	end := sync.OnceFunc(budget.close)
	return &connection{
		conn: timed, in: bufio.NewReaderSize(timed, writeSize), out: bufio.NewWriterSize(timed, writeSize), budget: budget,
	}, func() { stop(); closeNow(conn); end() }
}

// closeNow closes a connection without a word to the other side, which may not read.
func closeNow(conn net.Conn) {
	if timed, ok := conn.(*timedConn); ok {
		conn = timed.Conn
	}
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	_ = conn.Close()
}

// send appends a frame to what is sent next.
func (c *connection) send(t frameType, parts ...[]byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	var head [frameHeader]byte
	head[0] = byte(t)
	binary.BigEndian.PutUint32(head[1:], uint32(size))
	if _, err := c.out.Write(head[:]); err != nil {
		return disconnected(err)
	}
	for _, p := range parts {
		if _, err := c.out.Write(p); err != nil {
			return disconnected(err)
		}
	}
	return nil
}

func (c *connection) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return disconnected(c.out.Flush())
}

// sendNow sends a frame and all before it.
func (c *connection) sendNow(t frameType, parts ...[]byte) error {
	return errors.Join(c.send(t, parts...), c.flush())
}

func disconnected(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return failure(ReasonDisconnected, "the connection was silent for %s: %w", idleTimeout, err)
	}
	return failure(ReasonDisconnected, "the connection ended: %w", err)
}

// frame is one that was received. Its content is valid until the next one is received,
// or, with a buffer, until that is given back.
type frame struct {
	kind    frameType
	content []byte
	buffer  []byte
}

// receive waits for the next frame but pings. Whoever gets a buffer gives it back.
func (c *connection) receive() (frame, error) {
	for {
		f, err := c.receiveAny()
		if err != nil || f.kind != framePing {
			return f, err
		}
	}
}

func (c *connection) receiveAny() (frame, error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return frame{}, disconnected(err)
	}
	f, size := frame{kind: frameType(head[0])}, binary.BigEndian.Uint32(head[1:])
	c.received.Add(frameHeader + int64(size))
	switch {
	case f.kind == framePing && size != 0:
		return f, failure(ReasonCorrupt, "a ping has content")
	case size <= inlineFrame:
		if cap(c.inline) < int(size) {
			c.inline = make([]byte, inlineFrame)
		}
		f.content = c.inline[:size]
	case size <= bufferSize:
		var err error
		if f.buffer, err = c.budget.buffer(c.conn.ctx); err != nil {
			return f, disconnected(err)
		}
		f.content = f.buffer[:size]
	default:
		return f, failure(ReasonTooLarge, "a frame has %d bytes, at most %d are accepted", size, bufferSize)
	}
	if _, err := io.ReadFull(c.in, f.content); err != nil {
		c.discard(&f)
		return f, disconnected(err)
	}
	return f, nil
}

func (c *connection) discard(f *frame) {
	if f.buffer != nil {
		c.budget.giveBack(f.buffer)
		f.buffer = nil
	}
}

// expect waits for a frame of a kind. A failure of the other side is an error.
func (c *connection) expect(t frameType) (frame, error) {
	f, err := c.receive()
	if err != nil {
		return f, err
	}
	if f.kind == t {
		return f, nil
	}
	defer c.discard(&f)
	if f.kind == frameFail {
		return f, remoteFailure(f.content)
	}
	return f, failure(ReasonCorrupt, "a frame %q came, want %q", byte(f.kind), byte(t))
}

// pinging sends pings until it is stopped.
func (c *connection) pinging() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		every := time.NewTicker(keepAlive)
		defer every.Stop()
		for {
			select {
			case <-done:
				return
			case <-every.C:
				if c.sendNow(framePing) != nil {
					return
				}
			}
		}
	}()
	return sync.OnceFunc(func() { close(done); <-ended })
}

// remoteReasons are those that the other side may give. What it says is shown, not
// believed.
var remoteReasons = map[string]bool{
	ReasonNoSpace: true, ReasonCorrupt: true, ReasonUnsupportedFile: true, ReasonTooLarge: true, ReasonChanged: true, ReasonRefused: true, ReasonFailed: true,
}

func remoteFailure(content []byte) error {
	d := decoder{rest: content}
	reason, message := string(d.sized(64)), string(d.sized(maxMessage))
	if err := d.end(); err != nil {
		return err
	}
	if !remoteReasons[reason] {
		reason = ReasonFailed
	}
	return failure(reason, "the other side says: %q", message)
}

func (c *connection) sendFailure(err error) error {
	message := err.Error()
	return c.sendNow(frameFail, appendString(appendString(nil, ReasonOf(err)), message[:min(len(message), maxMessage)]))
}

// manifestStream reads the content of manifest frames.
type manifestStream struct {
	from  *connection
	rest  frame
	ended bool
}

func (s *manifestStream) Read(b []byte) (int, error) {
	for len(s.rest.content) == 0 {
		if s.ended {
			return 0, io.EOF
		}
		s.from.discard(&s.rest)
		f, err := s.from.expect(frameManifest)
		if err != nil {
			return 0, err
		}
		s.rest, s.ended = f, len(f.content) == 0
	}
	n := copy(b, s.rest.content)
	s.rest.content = s.rest.content[n:]
	return n, nil
}

func (s *manifestStream) close() { s.from.discard(&s.rest) }

// streamManifest sends the records of a manifest.
func streamManifest(to *connection, m *manifest) error {
	r, err := m.open()
	if err != nil {
		return err
	}
	defer r.close()
	var b bytes.Buffer
	for {
		rec, err := r.next()
		if err != nil {
			return err
		}
		if rec != nil {
			var head [binary.MaxVarintLen64]byte
			b.Write(head[:binary.PutUvarint(head[:], uint64(len(r.raw)))])
			b.Write(r.raw)
		}
		for b.Len() >= inlineFrame || rec == nil && b.Len() > 0 {
			if err := to.send(frameManifest, b.Next(inlineFrame)); err != nil {
				return err
			}
		}
		if rec == nil {
			return to.sendNow(frameManifest)
		}
	}
}
