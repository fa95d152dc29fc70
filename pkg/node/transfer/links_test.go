package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
