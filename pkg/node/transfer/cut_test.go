package transfer

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// cutConn ends a connection after a number of frames of the sender have been written.
type cutConn struct {
	net.Conn
	left int
	head []byte
	body int
}

var errCut = errors.New("cut")

// Write lets bytes through up to the end of the last frame that is left.
func (c *cutConn) Write(b []byte) (int, error) {
	pass := 0
	for pass < len(b) {
		if c.body > 0 {
			n := min(c.body, len(b)-pass)
			c.body -= n
			pass += n
			continue
		}
		if len(c.head) == 0 && c.left == 0 {
			break
		}
		c.head = append(c.head, b[pass])
		pass++
		if len(c.head) == frameHeader {
			if frameType(c.head[0]) != framePing {
				c.left--
			}
			c.body = int(binary.BigEndian.Uint32(c.head[1:]))
			c.head = c.head[:0]
		}
	}
	n, err := c.Conn.Write(b[:pass])
	if err == nil && pass < len(b) {
		_ = c.Close()
		return n, errCut
	}
	return n, err
}

func TestACutConnectionIsContinuedAtEveryFrame(t *testing.T) {
	b := newBed(t)
	m := newTreeMaker(t, 7, b.from)
	for range 15 {
		m.add()
	}
	must(t, os.WriteFile(b.from+"/large", m.bytes(2*chunkSize+77), 0o640))
	must(t, os.WriteFile(b.from+"/m", m.bytes(300), 0o640))
	sent := int64(0)
	for frames := 1; ; frames++ {
		if frames > 400 {
			t.Fatal("it never ends")
		}
		if frames%2 == 0 {
			m.change() // the pod runs
		}
		if frames%5 == 0 {
			b.close() // both agents restart
		}
		if frames%15 == 0 {
			must(t, os.RemoveAll(b.state)) // that of the receiver crashed: its state is void
			b.close()
			_ = os.Remove(filepath.Join(b.state, stateFile))
		}
		err := b.connect(func(c net.Conn) net.Conn { return &cutConn{Conn: c, left: frames} })
		var result PassResult
		if err == nil {
			result, err = b.pass(PassOptions{})
		}
		sent += result.Written
		if err == nil {
			break
		}
		if ReasonOf(err) != ReasonDisconnected {
			t.Fatalf("after %d frames: %v", frames, err)
		}
		<-b.served
	}
	last, err := b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	compareTrees(t, b.from, b.to)
	third, _, err := b.restore(last.Digest)
	must(t, err)
	compareTrees(t, b.from, third)
}

// TestPartsOfALargeFileAreNotSentAgain: what arrived of a file before the cut is there.
func TestPartsOfALargeFileAreNotSentAgain(t *testing.T) {
	b := newBed(t)
	content := make([]byte, 6*chunkSize+100)
	for i := range content {
		content[i] = byte(i*7 + i>>12)
	}
	must(t, os.WriteFile(b.from+"/large", content, 0o640))
	// hello, want, begin, volume, root, open, four chunks
	_ = b.connect(func(c net.Conn) net.Conn { return &cutConn{Conn: c, left: 10} })
	if _, err := b.pass(PassOptions{}); ReasonOf(err) != ReasonDisconnected {
		t.Fatalf("the connection was cut: %v", err)
	}
	<-b.served
	must(t, b.connect(nil))
	result, err := b.pass(PassOptions{})
	must(t, err)
	if result.Written != 2*chunkSize+100 {
		t.Errorf("%d bytes were sent after a cut that left 4 of 7 chunks", result.Written)
	}
	compareTrees(t, b.from, b.to)
}
