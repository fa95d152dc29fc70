package transfer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAnotherCopyIsNotRestored: whoever writes the copy changes nothing that is restored.
func TestAnotherCopyIsNotRestored(t *testing.T) {
	tests := map[string]struct {
		change func(t *testing.T, copy string)
		says   string
	}{
		"another content": {func(t *testing.T, c string) {
			must(t, os.WriteFile(c+"/volumes/data/core", []byte("EVIL"), 0o600))
		}, "not what was written"},
		"a longer content": {func(t *testing.T, c string) {
			must(t, os.WriteFile(c+"/volumes/data/core", []byte("GOODGOOD"), 0o600))
		}, "bytes, want"},
		"a large file of another size": {func(t *testing.T, c string) {
			must(t, os.Truncate(c+"/volumes/data/large", 2*chunkSize))
		}, "bytes, want"},
		"one chunk of a large file": {func(t *testing.T, c string) {
			file, err := os.OpenFile(c+"/volumes/data/large", os.O_WRONLY, 0)
			must(t, err)
			_, err = file.WriteAt([]byte{0xEE}, chunkSize+1)
			must(t, err)
			must(t, file.Close())
		}, "not what was written"},
		"a link to a secret": {func(t *testing.T, c string) {
			must(t, os.Remove(c+"/volumes/data/core"))
			must(t, os.Symlink("/etc/hostname", c+"/volumes/data/core"))
		}, "not in the sealed copy"},
		"a FIFO": {func(t *testing.T, c string) {
			must(t, os.Remove(c+"/volumes/data/core"))
			must(t, unix.Mkfifo(c+"/volumes/data/core", 0o600))
		}, "not in the sealed copy"},
		"no content":  {func(t *testing.T, c string) { must(t, os.RemoveAll(c+"/volumes/data/d")) }, "not in the sealed copy"},
		"no manifest": {func(t *testing.T, c string) { must(t, os.Remove(c+"/manifest")) }, "no manifest"},
		"a FIFO as the manifest": {func(t *testing.T, c string) {
			must(t, os.Remove(c+"/manifest"))
			must(t, unix.Mkfifo(c+"/manifest", 0o600))
		}, "no manifest"},
		"a manifest of one byte": {func(t *testing.T, c string) { must(t, os.WriteFile(c+"/manifest", []byte("x"), 0o600)) }, "has digest"},
		"a longer manifest": {func(t *testing.T, c string) {
			file, err := os.OpenFile(c+"/manifest", os.O_APPEND|os.O_WRONLY, 0)
			must(t, err)
			_, err = file.WriteString("x")
			must(t, err)
			must(t, file.Close())
		}, "has digest"},
		"the tree is a link": {func(t *testing.T, c string) {
			must(t, os.Rename(c+"/volumes", c+"/moved"))
			must(t, os.Symlink(c+"/moved", c+"/volumes"))
		}, "not in the sealed copy"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			must(t, os.WriteFile(b.from+"/core", []byte("GOOD"), 0o600))
			must(t, os.MkdirAll(b.from+"/d", 0o700))
			must(t, os.WriteFile(b.from+"/d/f", []byte("x"), 0o600))
			must(t, os.WriteFile(b.from+"/large", newTreeMaker(t, 1, b.from).bytes(2*chunkSize+9), 0o600))
			must(t, b.connect(nil))
			result, err := b.pass(PassOptions{Frozen: true, Last: true})
			must(t, err)
			test.change(t, b.copy)
			third, _, err := b.restore(result.Digest)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("restoring says %v, want %q", err, test.says)
			}
			if content, err := os.ReadFile(third + "/core"); err == nil && string(content) != "GOOD" {
				t.Errorf("%q was restored", content)
			}
		})
	}
}

// TestAnInterruptedRestorationContinues: what is there is not written again.
func TestAnInterruptedRestorationContinues(t *testing.T) {
	b := newBed(t)
	must(t, os.WriteFile(b.from+"/f", []byte("content"), 0o600))
	must(t, os.WriteFile(b.from+"/large", newTreeMaker(t, 1, b.from).bytes(3*chunkSize), 0o600))
	must(t, b.connect(nil))
	result, err := b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	third := filepath.Join(t.TempDir(), "third")
	must(t, os.Mkdir(third, 0o700))
	state, source := t.TempDir(), t.TempDir()
	for round, want := range []bool{true, false} {
		d, err := OpenDestination(t.Context(), DestinationConfig{Migration: testUID, Volumes: b.volume(third), State: state})
		must(t, err)
		restored, err := Restore(t.Context(), Copy{Root: filepath.Dir(b.copy), Path: filepath.Base(b.copy)}, result.Digest, source, d)
		must(t, err)
		if (restored.Written > 0) != want || !restored.Sealed || restored.Digest != result.Digest {
			t.Errorf("round %d: %+v", round, restored)
		}
		must(t, d.Close())
	}
	compareTrees(t, b.from, third)
}

// TestTheCopyIsRecreatedWhenItIsNotKnown: a receiver that crashed copies what is in the
// volumes to a copy that may have anything.
func TestTheCopyIsRecreatedWhenItIsNotKnown(t *testing.T) {
	b := newBed(t)
	m := newTreeMaker(t, 9, b.from)
	for range 30 {
		m.add()
	}
	must(t, b.connect(nil))
	_, err := b.pass(PassOptions{})
	must(t, err)
	b.close()
	must(t, os.Remove(b.copy+"/"+copyOpen))
	must(t, os.RemoveAll(b.copy+"/volumes"))
	must(t, os.Mkdir(b.copy+"/volumes", 0o700))
	must(t, os.WriteFile(b.copy+"/volumes/data", []byte("anything"), 0o600))
	must(t, b.connect(nil))
	result, err := b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	if result.Written > 0 {
		t.Errorf("%d bytes were sent again", result.Written)
	}
	third, _, err := b.restore(result.Digest)
	must(t, err)
	compareTrees(t, b.from, third)
}

// TestARestartAfterTheSeal: a receiver whose process died after it sealed knows that it
// did, and neither writes the volumes nor the copy again.
func TestARestartAfterTheSeal(t *testing.T) {
	b := newBed(t)
	must(t, os.WriteFile(b.from+"/f", []byte("sealed"), 0o600))
	must(t, b.connect(nil))
	result, err := b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	seal, err := os.Stat(b.copy + "/" + copySealed)
	must(t, err)
	b.close()
	b.openDestination()
	if b.destination.Sealed() != result.Digest {
		t.Errorf("after a restart it is sealed with %q, want %s", b.destination.Sealed(), result.Digest)
	}
	must(t, b.connect(nil))
	again, err := b.pass(PassOptions{Frozen: true, Last: true})
	if err != nil || again.Digest != result.Digest {
		t.Errorf("the last pass, repeated: %+v %v", again, err)
	}
	if now, err := os.Stat(b.copy + "/" + copySealed); err != nil || !now.ModTime().Equal(seal.ModTime()) {
		t.Errorf("the copy was sealed again: %v %v", now, err)
	}
	b.close()
	// The pod was released and works: nothing may write there.
	must(t, os.WriteFile(b.to+"/f", []byte("newer"), 0o600))
	if _, err := OpenDestination(t.Context(), b.destinationConfig()); ReasonOf(err) != ReasonChanged {
		t.Errorf("volumes that changed after the seal are opened: %v", err)
	}
}
