package transfer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
