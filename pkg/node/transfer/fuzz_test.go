package transfer

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzRecord: a record that is accepted has one form.
func FuzzRecord(f *testing.F) {
	sparse := &record{kind: kindFile, path: "s", size: 1<<63 - 1, chunks: chunkList{{chunkHole, 1 << 41, nil}}}
	for _, r := range []*record{
		{kind: kindDir, mode: 0o755, xattrs: []xattr{{"user.a", []byte("v")}}}, fileRecord("d/f", "x"), sparse,
		{kind: kindSymlink, path: "l", link: "../x"}, {kind: kindLink, path: "b", link: "a"}, {kind: kindVolume, path: "data"},
	} {
		f.Add(appendRecord(nil, r))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		if again := appendRecord(nil, r); !bytes.Equal(again, b) {
			t.Errorf("%x is accepted, and written as %x", b, again)
		}
	})
}

// FuzzReceiver: whatever comes after the hello, a receiver neither panics nor blocks,
// writes nothing outside of its volume, and is not sealed but by an honest end.
func FuzzReceiver(f *testing.F) {
	c := packed([]byte("data"))
	open := &record{kind: kindFile, path: "g", size: 4, chunks: chunkList{{chunkHole, 1, nil}}}
	f.Add(begun()[len(helloFrame()):])
	f.Add(begun(putFrame(fileRecord("f", "x"), 'x'), encodeFrame(frameOpen, appendRecord(nil, open)), encodeFrame(frameChunk, chunkHead(0, &c), c.data), encodeFrame(frameClose, []byte{4}))[len(helloFrame()):])
	f.Add(begun(putFrame(&record{kind: kindSymlink, path: "a", link: "/etc"}), encodeFrame(frameRemove, appendString(nil, "z")))[len(helloFrame()):])
	f.Add(encodeFrame(frameWant))
	f.Fuzz(func(t *testing.T, stream []byte) {
		if len(stream) > 1<<16 {
			return
		}
		b := newBed(t)
		must(t, os.WriteFile(b.to+"/z", []byte("there"), 0o600))
		b.openDestination()
		if err := play(t, b.destination, append(helloFrame(), stream...)); err == nil {
			t.Error("serving ends without an error")
		}
		if names, err := os.ReadDir(b.to + "/.."); err != nil || len(names) != 5 {
			t.Errorf("beside the volume there are %v, %v", names, err)
		}
	})
}

// FuzzManifest: whatever a copy has as its manifest, reading it neither panics nor takes
// more memory than comes.
func FuzzManifest(f *testing.F) {
	var good []byte
	for _, r := range []*record{{kind: kindVolume, path: "data"}, {kind: kindDir}, fileRecord("f", "x")} {
		encoded := appendRecord(nil, r)
		good = append(append(good, byte(len(encoded))), encoded...)
	}
	f.Add(good)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 'd'})
	directory := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := importManifest(bytes.NewReader(b), directory, "boot", nil)
		if err != nil {
			return
		}
		again, err := loadManifest(directory)
		if err != nil || again == nil || again.digest != m.digest || again.entries != m.entries {
			t.Errorf("the manifest is read as %+v, %v, want %+v", again, err, m)
		}
	})
}

// FuzzTree: whatever a pod makes of its volume between passes arrives, or is refused.
func FuzzTree(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})
	f.Add([]byte{0x10, 0x21, 0x32, 0x43, 0xff, 0x54, 0x65, 0xff, 0x76, 0x87})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 200 {
			return
		}
		b := newBed(t)
		must(t, b.connect(nil))
		for _, step := range program {
			if step == 0xff {
				if _, err := b.pass(PassOptions{}); err != nil {
					t.Fatal(err)
				}
				continue
			}
			changeByNumber(b.from, step)
		}
		result, err := b.pass(PassOptions{Frozen: true, Last: true})
		if err != nil {
			t.Fatal(err)
		}
		compareTrees(t, b.from, b.to)
		third, _, err := b.restore(result.Digest)
		if err != nil {
			t.Fatal(err)
		}
		compareTrees(t, b.from, third)
	})
}

// changeByNumber makes one of a few changes to one of a few names. It may fail.
func changeByNumber(root string, step byte) {
	names := []string{"a", "b", "a/x", "a/y", "b/x", "a/x/z", "a-", "c"}
	path, other := root+"/"+names[step&7], root+"/"+names[(step+3)&7]
	switch step >> 4 {
	case 0, 1:
		_ = os.Mkdir(path, 0o700+os.FileMode(step))
	case 2, 3:
		_ = os.WriteFile(path, bytes.Repeat([]byte{step}, int(step)*40), 0o600)
	case 4:
		_ = os.RemoveAll(path)
	case 5:
		_ = os.Rename(path, other)
	case 6, 7:
		_ = os.Link(path, other)
	case 8:
		_ = os.Symlink(other, path)
	case 9:
		_ = unix.Mkfifo(path, 0o600)
	case 10:
		_ = os.Truncate(path, int64(step)*5000)
	case 11:
		_ = unix.Setxattr(path, "user.x", []byte{step}, 0)
	case 12:
		_ = os.Chmod(path, os.FileMode(step)<<1)
	case 13:
		if file, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0); err == nil {
			_, _ = file.WriteAt([]byte{step, step}, int64(step)*30000)
			_ = file.Close()
		}
	case 14:
		_ = os.Rename(path, root+"/a/new")
	}
}
