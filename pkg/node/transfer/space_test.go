package transfer

import (
	"fmt"
	"os"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

// mountSmall mounts an in-memory file system over a directory, and returns what changes
// its limits.
func mountSmall(t *testing.T, path, limits string) (change func(limits string)) {
	if err := unix.Mount("small", path, "tmpfs", 0, limits); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	return func(limits string) { must(t, unix.Mount("small", path, "tmpfs", unix.MS_REMOUNT, limits)) }
}

// TestWhatIsFullIsSaid: which of the places, how much is free there, and how much is
// needed, on both sides; and with more space the next connection continues.
func TestWhatIsFullIsSaid(t *testing.T) {
	const large = 3*chunkSize + 100
	tests := map[string]struct {
		place            func(b *transferBed) string
		limits, more     string
		receiver, sender string
		files, size      int
		isFrozen         bool
	}{
		"a volume, by a large file": {
			place: func(b *transferBed) string { return b.to }, limits: "size=8m", more: "size=64m", files: 1, size: large,
			receiver: `writing "file-0000", which needs 12583012 bytes, after \d+ bytes of this pass: volume data is full: 0 of 8388608 bytes and \d+ of \d+ names are free`,
			sender:   `the other side says: .*volume data is full: .*; the volumes hold 125\d+ bytes in 2 files and directories$`,
		},
		"a volume, by small files": {
			place: func(b *transferBed) string { return b.to }, limits: "size=256k", more: "size=64m", files: 100, size: 8000,
			receiver: `writing "file-00\d\d", which needs 8000 bytes, after \d+ bytes of this pass: volume data is full: 0 of 262144 bytes`,
			sender:   `volume data is full: .*; the volumes hold \d+ bytes in 101 files and directories$`,
		},
		"a volume, by names": {
			place: func(b *transferBed) string { return b.to }, limits: "size=8m,nr_inodes=20", more: "size=8m,nr_inodes=1000", files: 100, size: 1,
			receiver: `writing "file-00\d\d", .*: volume data is full: \d+ of 8388608 bytes and 0 of 20 names are free`,
			sender:   `volume data is full`,
		},
		"the sealed copy": {
			place: func(b *transferBed) string { return b.copy }, limits: "size=8m", more: "size=64m", files: 1, size: large,
			receiver: `writing "file-0000", which needs 12583012 bytes, .*: the place for the sealed copy is full: 0 of 8388608 bytes`,
			sender:   `the place for the sealed copy is full: .*; the volumes hold 125\d+ bytes`,
		},
		"the sealed copy, of a frozen pod": {
			place: func(b *transferBed) string { return b.copy }, limits: "size=256k", more: "size=64m", files: 100, size: 8000, isFrozen: true,
			receiver: `the place for the sealed copy is full: 0 of 262144 bytes`,
			sender:   `the place for the sealed copy is full: [^;]*$`,
		},
		"the state directory of the receiver": {
			place: func(b *transferBed) string { return b.state }, limits: "size=64k", more: "size=64m", files: 1500, size: 1,
			receiver: `the state directory /.*/state is full: 0 of 65536 bytes`,
			sender:   `the state directory /.*/state is full`,
		},
		"the state directory of the sender": {
			place: func(b *transferBed) string { return b.sourceState }, limits: "size=64k", more: "size=64m", files: 1500, size: 1,
			receiver: `connection`,
			sender:   `the state directory /.*/source-state is full: 0 of 65536 bytes`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			change := mountSmall(t, test.place(b), test.limits)
			t.Cleanup(b.close) // before the file system is unmounted
			content := newTreeMaker(t, 1, b.from).bytes(int64(test.size))
			content[len(content)-1] = 1
			for i := range test.files {
				must(t, os.WriteFile(fmt.Sprintf("%s/file-%04d", b.from, i), content, 0o600))
			}
			must(t, b.connect(nil))
			_, err := b.pass(PassOptions{Frozen: test.isFrozen})
			said := <-b.served
			if ReasonOf(err) != ReasonNoSpace || !regexp.MustCompile(test.sender).MatchString(err.Error()) {
				t.Errorf("the sender says %v, reason %s, want %q", err, ReasonOf(err), test.sender)
			}
			if !regexp.MustCompile(test.receiver).MatchString(said.Error()) {
				t.Errorf("the receiver says %v, want %q", said, test.receiver)
			}
			change(test.more)
			must(t, b.connect(nil))
			last, err := b.pass(PassOptions{Frozen: true, Last: true})
			must(t, err)
			compareTrees(t, b.from, b.to)
			third, _, err := b.restore(last.Digest)
			must(t, err)
			compareTrees(t, b.from, third)
		})
	}
}
