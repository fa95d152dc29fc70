package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// attack runs passes while a change happens to the volume of the sender or the receiver
// at every moment.
func attack(t *testing.T, b *transferBed, swap func(i int)) (passes, failures int) {
	t.Helper()
	var stop atomic.Bool
	var attacker sync.WaitGroup
	attacker.Go(func() {
		for i := 0; !stop.Load(); i++ {
			swap(i)
		}
	})
	end := time.Now().Add(1500 * time.Millisecond)
	for time.Now().Before(end) {
		err := b.connect(nil)
		if err == nil {
			_, err = b.pass(PassOptions{})
		}
		passes++
		if err != nil {
			failures++
			if r := ReasonOf(err); r != ReasonChanged && r != ReasonFailed && r != ReasonDisconnected && r != ReasonCorrupt && r != ReasonUnsupportedFile {
				t.Errorf("%v", err)
			}
		}
	}
	stop.Store(true)
	attacker.Wait()
	return passes, failures
}

// secretPlace is what links of an attacker point to.
func secretPlace(t *testing.T) string {
	place := t.TempDir()
	must(t, os.WriteFile(place+"/f", []byte("SECRET of another tenant"), 0o600))
	must(t, os.Mkdir(place+"/d", 0o700))
	must(t, os.WriteFile(place+"/d/f", []byte("SECRET of another tenant"), 0o600))
	return place
}

// TestLinksInTheSourceLeadNowhere swaps files and directories of the source for links to
// secrets, FIFOs and devices, all the time.
func TestLinksInTheSourceLeadNowhere(t *testing.T) {
	b := newBed(t)
	secret := secretPlace(t)
	before := describeTree(t, secret)
	attack(t, b, func(i int) {
		f, d := b.from+"/f", b.from+"/d"
		_ = os.RemoveAll(f)
		_ = os.RemoveAll(d)
		switch i % 5 {
		case 0:
			_ = os.Symlink(secret+"/f", f)
			_ = os.Symlink(secret+"/d", d)
		case 1:
			_ = unix.Mkfifo(f, 0o666)
			_ = unix.Mkfifo(d, 0o666)
		case 2:
			_ = unix.Mknod(f, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 130)))
		default:
			_ = os.WriteFile(f, []byte("own"), 0o600)
			_ = os.Mkdir(d, 0o700)
			_ = os.WriteFile(d+"/f", []byte("own"), 0o600)
		}
	})
	for path := range describeTree(t, b.to) {
		if content, err := readPlain(b.to + path); err == nil && bytes.Contains(content, []byte("SECRET")) {
			t.Errorf("%s was carried out of the node", path)
		}
	}
	if fmt.Sprint(before) != fmt.Sprint(describeTree(t, secret)) {
		t.Error("what links point to was changed")
	}
}

func readPlain(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errKind)
	}
	return os.ReadFile(path)
}

// TestLinksInTheDestinationLeadNowhere swaps files and directories of the destination,
// and of the copy, for links to the files of another tenant.
func TestLinksInTheDestinationLeadNowhere(t *testing.T) {
	b := newBed(t)
	secret := secretPlace(t)
	before := describeTree(t, secret)
	must(t, os.MkdirAll(b.from+"/d", 0o700))
	var n atomic.Int64
	attack(t, b, func(i int) {
		_ = os.WriteFile(b.from+"/f", fmt.Appendf(nil, "own %d", n.Add(1)), 0o600)
		_ = os.WriteFile(b.from+"/d/f", fmt.Appendf(nil, "own %d", n.Add(1)), 0o600)
		for _, root := range []string{b.to, b.copy + "/volumes/data"} {
			f, d := root+"/f", root+"/d"
			switch i % 4 {
			case 0:
				_ = os.RemoveAll(f)
				_ = os.Symlink(secret+"/f", f)
			case 1:
				_ = os.Rename(d, fmt.Sprintf("%s/moved%d", root, i))
				_ = os.Symlink(secret+"/d", d)
			case 2:
				_ = os.RemoveAll(f)
				_ = unix.Mkfifo(f, 0o666)
			case 3:
				_ = os.RemoveAll(f)
				_ = os.RemoveAll(d)
			}
		}
	})
	if fmt.Sprint(before) != fmt.Sprint(describeTree(t, secret)) {
		t.Errorf("the files of another tenant were changed:\n%v\n%v", before, describeTree(t, secret))
	}
	// Left in peace, it arrives.
	b.close()
	must(t, b.connect(nil))
	last, err := b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	compareTrees(t, b.from, b.to)
	_, _, err = b.restore(last.Digest)
	must(t, err)
}

func TestWhatCannotBeCarriedIsRefusedWithTheNumber(t *testing.T) {
	tests := map[string]struct {
		make         func(t *testing.T, root string)
		reason, says string
	}{
		"a device": {func(t *testing.T, root string) {
			must(t, unix.Mknod(root+"/dev", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
		}, ReasonUnsupportedFile, "is a device"},
		"3,000 directories deep": {func(t *testing.T, root string) { makeDeep(t, root, "d", 3000) }, ReasonTooLarge, "more than 512 deep"},
		"a mount": {func(t *testing.T, root string) {
			must(t, os.Mkdir(root+"/m", 0o700))
			must(t, unix.Mount("none", root+"/m", "tmpfs", 0, ""))
			t.Cleanup(func() { must(t, unix.Unmount(root+"/m", 0)) })
		}, ReasonUnsupportedFile, "a mount of its own"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			must(t, os.WriteFile(b.from+"/f", []byte("x"), 0o600))
			must(t, b.connect(nil))
			_, err := b.pass(PassOptions{})
			must(t, err)
			test.make(t, b.from)
			if _, err := Measure(t.Context(), b.volume(b.from)); ReasonOf(err) != test.reason || !strings.Contains(err.Error(), test.says) {
				t.Errorf("measuring it says %v, want reason %s and %q", err, test.reason, test.says)
			}
			if _, err = b.pass(PassOptions{}); ReasonOf(err) != test.reason || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want reason %s and %q", err, test.reason, test.says)
			}
		})
	}
}

func makeDeep(t *testing.T, root, name string, depth int) {
	fd, err := unix.Open(root, unix.O_DIRECTORY, 0)
	must(t, err)
	for range depth {
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY, 0)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	t.Cleanup(func() {
		parent, err := unix.Open(root, unix.O_DIRECTORY, 0)
		must(t, err)
		defer unix.Close(parent)
		for removeAll(parent, name) != nil { // deeper than removeAll goes: from below
			fd := parent
			for range 900 {
				next, err := unix.Openat(fd, name, unix.O_DIRECTORY, 0)
				if err != nil {
					break
				}
				if fd != parent {
					unix.Close(fd)
				}
				fd = next
			}
			must(t, unix.Renameat(fd, name, parent, "below"))
			unix.Close(fd)
			must(t, removeAll(parent, name))
			must(t, unix.Renameat(parent, "below", parent, name))
		}
	})
}

func TestUnusualContentIsCarried(t *testing.T) {
	b := newBed(t)
	b.layer = true
	makeDeep(t, b.from, "d", 500)
	must(t, unix.Mknod(b.from+"/whiteout", unix.S_IFCHR, 0))
	must(t, os.Mkdir(b.from+"/opaque", 0o755))
	must(t, unix.Setxattr(b.from+"/opaque", overlayOpaque, []byte("y"), 0))
	listener, err := net.Listen("unix", filepath.Join(os.TempDir(), fmt.Sprint("socket", time.Now().UnixNano())))
	must(t, err)
	defer listener.Close()
	must(t, os.Rename(listener.Addr().String(), b.from+"/socket"))
	file, err := os.Create(b.from + "/sparse")
	must(t, err)
	must(t, file.Truncate(15<<40)) // ext4 holds 16 TiB
	_, err = file.WriteAt([]byte("end"), 14<<40)
	must(t, errors.Join(err, file.Close()))
	must(t, b.connect(nil))
	result, err := b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	size, err := Measure(t.Context(), b.volume(b.from))
	if err != nil || size.Files != result.Files || size.Bytes != result.Bytes {
		t.Errorf("measured are %+v, %v, want what the pass found", size, err)
	}
	if result.Skipped != 1 || result.Written > 1<<20 {
		t.Errorf("%+v, want one socket skipped and little written", result)
	}
	compareTrees(t, b.from, b.to)
	if got, want := allocated(t, b.to), allocated(t, b.from); got > want+want/10+1<<20 {
		t.Errorf("it takes %d bytes, of %d", got, want)
	}
}

// TestPathsLongerThanPATHMAX: 60 directories of 250 bytes are 15,000.
func TestPathsLongerThanPATHMAX(t *testing.T) {
	b := newBed(t)
	name := strings.Repeat("n", 250)
	makeDeep(t, b.from, name, 60)
	must(t, b.connect(nil))
	result, err := b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	third, _, err := b.restore(result.Digest)
	must(t, err)
	for _, root := range []string{b.to, b.copy + "/volumes/data", third} {
		fd, err := unix.Open(root, unix.O_DIRECTORY, 0)
		must(t, err)
		for depth := range 60 {
			next, err := unix.Openat(fd, name, unix.O_DIRECTORY, 0)
			if err != nil {
				t.Fatalf("%s: at depth %d: %v", root, depth, err)
			}
			unix.Close(fd)
			fd = next
		}
		unix.Close(fd)
	}
}

// TestASparseFileOf8EiB: a tmpfs holds one, ext4 does not.
func TestASparseFileOf8EiB(t *testing.T) {
	shm, err := os.MkdirTemp("/dev/shm", "transfer")
	if err != nil {
		t.Skip("there is no /dev/shm")
	}
	defer os.RemoveAll(shm)
	b := newBed(t)
	b.withCopy = false
	b.from = shm + "/from"
	must(t, os.Mkdir(b.from, 0o700))
	file, err := os.Create(b.from + "/sparse")
	must(t, err)
	must(t, errors.Join(file.Truncate(1<<63-4096-1), file.Close()))
	must(t, b.connect(nil))
	if _, err := b.pass(PassOptions{}); ReasonOf(err) != ReasonTooLarge || !strings.Contains(err.Error(), "larger than the file system can hold") {
		t.Errorf("on ext4: %v", err)
	}
	b.close()
	b.to = shm + "/to"
	must(t, os.Mkdir(b.to, 0o700))
	must(t, os.RemoveAll(b.state))
	must(t, os.RemoveAll(b.sourceState))
	must(t, b.connect(nil))
	_, err = b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	compareTrees(t, b.from, b.to)
}
