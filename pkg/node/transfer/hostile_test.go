package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// socketPair is two ends of a connection, of which one can be ended alone.
func socketPair(t testing.TB) (ours, theirs *net.UnixConn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	ends := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "socket")
		conn, err := net.FileConn(file)
		must(t, errors.Join(err, file.Close()))
		ends[i] = conn.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// play sends frames to a receiver as a sender would that was taken over, and returns
// what the receiver says.
func play(t testing.TB, d *Destination, stream []byte) error {
	t.Helper()
	ours, theirs := socketPair(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		c, stop := connect(ctx, theirs, receiveBuffers, nil)
		defer stop()
		err := receiveHello(ctx, c, func(Hello) (*Destination, error) { return d, nil })
		served <- err
	}()
	go func() { _, _ = io.Copy(io.Discard, ours) }()
	_ = ours.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_, _ = ours.Write(stream)
	_ = ours.CloseWrite()
	defer ours.Close()
	select {
	case err := <-served:
		return err
	case <-time.After(15 * time.Second):
		t.Fatal("the receiver does not end")
		return nil
	}
}

func encodeFrame(t frameType, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	head := append([]byte{byte(t)}, binary.BigEndian.AppendUint32(nil, uint32(len(body)))...)
	return append(head, body...)
}

func helloFrame() []byte {
	return encodeFrame(frameHello, Hello{Migration: testUID, Attempt: 1, volumes: []string{"vdata"}}.encode())
}

func putFrame(r *record, content ...byte) []byte {
	b := appendRecord(nil, r)
	if r.kind != kindFile {
		return encodeFrame(framePut, b, []byte{0})
	}
	c := packed(content)
	return encodeFrame(framePut, b, []byte{1}, appendString(nil, string(c.layout)), c.data)
}

// packed is a chunk with a digest for receivers that have a copy.
func packed(b []byte) chunk {
	c := packChunk(b)
	c.digest = plainHash.sum(&c)
	return c
}

func fileRecord(path, content string) *record {
	c := packed([]byte(content))
	return &record{kind: kindFile, path: path, mode: 0o644, size: int64(len(content)), chunks: c.list()}
}

func rootFrame() []byte { return putFrame(&record{kind: kindDir, mode: 0o755}) }

func begun(frames ...[]byte) []byte {
	return bytes.Join(append([][]byte{helloFrame(), encodeFrame(frameBegin, []byte{1, 0}), encodeFrame(frameVolume, []byte{0}), rootFrame()}, frames...), nil)
}

func TestHostileStreamsAreRefused(t *testing.T) {
	good := fileRecord("f", "x")
	long := strings.Repeat("n", 256)
	deep := strings.TrimSuffix(strings.Repeat("d/", maxDepth+1), "/")
	huge := fileRecord("f", "x")
	huge.xattrs = []xattr{{"user.x", make([]byte, maxXattr+1)}}
	trusted := fileRecord("f", "x")
	trusted.xattrs = []xattr{{"trusted.overlay.redirect", []byte("/x")}}
	opaque := &record{kind: kindDir, path: "d", xattrs: []xattr{{overlayOpaque, []byte("y")}}}
	sparse := &record{kind: kindFile, path: "f", size: 1<<63 - 1, chunks: chunkList{{chunkHole, 1 << 41, nil}}}
	lying := &record{kind: kindFile, path: "f", size: 1<<63 - 1, chunks: chunkList{{chunkData, 1 << 41, nil}}}
	open := func(size int64) []byte {
		r := &record{kind: kindFile, path: "f", size: size}
		r.chunks.add(chunkHole, chunkCount(size), nil)
		return encodeFrame(frameOpen, appendRecord(nil, r))
	}
	c := packed([]byte("data"))
	wrong := c
	wrong.digest[0]++
	tests := map[string]struct {
		stream []byte
		says   string
	}{
		"no hello":           {encodeFrame(frameBegin, []byte{1, 0}), "want 'H'"},
		"another version":    {encodeFrame(frameHello, append([]byte{9}, Hello{Migration: testUID}.encode()[1:]...)), "version 9"},
		"another migration":  {encodeFrame(frameHello, Hello{Migration: "11111111-0000-4000-8000-000000000001", volumes: []string{"vdata"}}.encode()), "are of migration"},
		"a UID that is none": {encodeFrame(frameHello, Hello{Migration: "../../etc", volumes: []string{"vdata"}}.encode()), "no UID"},
		"other volumes":      {encodeFrame(frameHello, Hello{Migration: testUID, volumes: []string{"v..", "vdata"}}.encode()), "want [\"vdata\"]"},
		"a layer":            {encodeFrame(frameHello, Hello{Migration: testUID, volumes: []string{"ldata"}}.encode()), "want [\"vdata\"]"},
		"a frame of 4 GiB":   {append(helloFrame(), byte(framePut), 0xff, 0xff, 0xff, 0xff), "4294967295 bytes, at most"},
		"a ping with data":   {append(helloFrame(), encodeFrame(framePing, []byte{1})...), "ping"},
		"a second volume":    {begun(encodeFrame(frameVolume, []byte{1})), "out of turn"},
		"upwards":            {begun(putFrame(fileRecord("../f", "x"), 'x')), "no name"},
		"absolute":           {begun(putFrame(fileRecord("/f", "x"), 'x')), "no name"},
		"a dot":              {begun(putFrame(fileRecord("./f", "x"), 'x')), "no name"},
		"a NUL":              {begun(putFrame(fileRecord("a\x00b", "x"), 'x')), "no name"},
		"a long name":        {begun(putFrame(fileRecord(long, "x"), 'x')), "256 bytes, at most 255"},
		"too deep":           {begun(putFrame(fileRecord(deep, "x"), 'x')), "more than 512 deep"},
		"no parent":          {begun(putFrame(fileRecord("d/f", "x"), 'x')), "no directory that came before"},
		"below a file":       {begun(putFrame(good, 'x'), putFrame(fileRecord("f/g", "x"), 'x')), "no directory that came before"},
		"below a link":       {begun(putFrame(&record{kind: kindSymlink, path: "a", link: "/etc"}), putFrame(fileRecord("a/g", "x"), 'x')), "no directory that came before"},
		"twice":              {begun(putFrame(good, 'x'), putFrame(good, 'x')), "comes after"},
		"backwards":          {begun(putFrame(good, 'x'), putFrame(fileRecord("e", "x"), 'x')), "comes after"},
		"a wrong digest":     {begun(putFrame(good, 'y')), "not what its digest says"},
		"no content":         {begun(encodeFrame(framePut, appendRecord(nil, good), []byte{0})), "without its content"},
		"a large attribute":  {begun(putFrame(huge, 'x')), "exceeds 65536"},
		"trusted attributes": {begun(putFrame(trusted, 'x')), "not carried"},
		"opaque, no layer":   {begun(putFrame(opaque)), "not carried"},
		"a whiteout":         {begun(putFrame(&record{kind: kindWhiteout, path: "w"})), "no file of this volume"},
		"a partial file":     {begun(putFrame(&record{kind: kindPartial, path: "w"})), "no file of this volume"},
		"a device":           {begun(putFrame(&record{kind: 'c', path: "w"})), "no kind of file"},
		"8 EiB in one frame": {begun(encodeFrame(framePut, appendRecord(nil, sparse), []byte{1, 0})), "at most 131072"},
		"2^41 digests":       {begun(encodeFrame(framePut, appendRecord(nil, lying), []byte{1, 0})), "more than 262144 chunks"},
		"link to the root":   {begun(putFrame(&record{kind: kindLink, path: "l", link: "../../etc/passwd"})), "no name"},
		"link to later":      {begun(putFrame(&record{kind: kindLink, path: "l", link: "m"})), "does not come before"},
		"link to nothing":    {begun(putFrame(&record{kind: kindLink, path: "l", link: "a"})), "was changed while"},
		"link to a link":     {begun(putFrame(&record{kind: kindSymlink, path: "a", link: "/etc/passwd"}), putFrame(&record{kind: kindLink, path: "l", link: "a"})), "was changed while"},
		"remove the root":    {begun(encodeFrame(frameRemove, appendString(nil, ""))), "not there"},
		"remove upwards":     {begun(encodeFrame(frameRemove, appendString(nil, "../x"))), "no name"},
		"remove nothing":     {begun(encodeFrame(frameRemove, appendString(nil, "x"))), "not there"},
		"chunk of no file":   {begun(encodeFrame(frameChunk, chunkHead(0, &c), c.data)), "of no file"},
		"chunk beyond":       {begun(open(10), encodeFrame(frameChunk, chunkHead(1, &c), c.data)), "does not fit"},
		"chunk too long":     {begun(open(3), encodeFrame(frameChunk, chunkHead(0, &c), c.data)), "does not fit"},
		"a forged chunk":     {begun(open(4), encodeFrame(frameChunk, chunkHead(0, &wrong), c.data), encodeFrame(frameClose, []byte{4})), "not what its digest says"},
		"missing chunks":     {begun(open(4), encodeFrame(frameClose, []byte{4})), "missing"},
		"a longer end":       {begun(open(4), encodeFrame(frameChunk, chunkHead(0, &c), c.data), encodeFrame(frameClose, []byte{5})), "announced otherwise"},
		"endless holes":      {begun(open(4), encodeFrame(frameHoles, binary.AppendUvarint([]byte{0}, 1<<62))), "of no file"},
		"a wrong layout":     {begun(open(4), encodeFrame(frameChunk, chunkHead(0, &chunk{length: 4, digest: c.digest, layout: []byte{3, 1}}), c.data)), "layout"},
		"early end":          {append(helloFrame(), append(encodeFrame(frameBegin, []byte{1, 0}), encodeFrame(frameEnd, make([]byte, 32), []byte{1, 0})...)...), "after 0 of 1 volumes"},
		"a wrong end":        {begun(encodeFrame(frameEnd, make([]byte, 32), []byte{1, 2})), "want 2 with 0000"},
		"a frame of ours":    {begun(encodeFrame(frameDone, make([]byte, 32))), "within a pass"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.openDestination()
			err := play(t, b.destination, test.stream)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("the receiver says %v, want %q", err, test.says)
			}
			if b.destination.Sealed() != "" {
				t.Error("and it is sealed")
			}
			// The honest sender is served as before.
			must(t, os.WriteFile(b.from+"/honest", []byte("x"), 0o600))
			must(t, b.connect(nil))
			_, err = b.pass(PassOptions{})
			must(t, err)
			compareTrees(t, b.from, b.to)
		})
	}
}

func TestASealedDestinationIsNotWrittenAgain(t *testing.T) {
	b := newBed(t)
	must(t, os.WriteFile(b.from+"/f", []byte("sealed"), 0o600))
	must(t, b.connect(nil))
	last, err := b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	// The answer was lost: the same pass again.
	must(t, b.connect(nil))
	again, err := b.pass(PassOptions{Frozen: true, Last: true})
	if err != nil || again.Digest != last.Digest {
		t.Errorf("the last pass, repeated: %+v %v", again, err)
	}
	must(t, os.WriteFile(b.from+"/f", []byte("changed"), 0o600))
	if _, err := b.pass(PassOptions{Frozen: true, Last: true}); ReasonOf(err) != ReasonRefused {
		t.Errorf("another content after the seal: %v", err)
	}
	if got, err := os.ReadFile(b.to + "/f"); string(got) != "sealed" {
		t.Errorf("the file has %q, %v", got, err)
	}
	_, _, err = b.restore(last.Digest)
	must(t, err)
}
