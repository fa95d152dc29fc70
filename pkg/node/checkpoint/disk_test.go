package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// syncs records every sync of a writer: what was synced, how many bytes of it were
// there, and what the manifest of the claim was at that moment.
type syncs struct {
	*carry
	seen []synced
	// fails is the name whose sync fails.
	fails string
}

type synced struct {
	name     string
	manifest string
}

var errDisk = errors.New("the disk does not answer")

func newSyncs(c *carry) *syncs {
	s := &syncs{carry: c}
	c.writer.disk.sync = s.sync
	return s
}

func (s *syncs) sync(file *os.File) error {
	name, err := filepath.Rel(filepath.Join(s.claim, testUID), file.Name())
	if err != nil {
		return err
	}
	if info, err := file.Stat(); err == nil && !info.IsDir() && info.Size() == 0 {
		name += " (still empty)"
	}
	s.seen = append(s.seen, synced{name, s.manifest()})
	if name == s.fails {
		return errDisk
	}
	return file.Sync()
}

// manifest says what a reader would find now.
func (s *syncs) manifest() string {
	s.t.Helper()
	content, err := os.ReadFile(filepath.Join(s.claim, testUID, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return "none"
	}
	must(s.t, err)
	m := &manifest{}
	must(s.t, json.Unmarshal(content, m))
	if m.Sealed {
		return "sealed"
	}
	return "complete"
}

// A manifest never names what could be lost with the power: the content is on the
// disk before the manifest, the manifest before it gets its name, and its name
// before Pass or Seal returns.
func TestContentIsDurableBeforeTheManifestNamesIt(t *testing.T) {
	c := newCarry(t)
	s := newSyncs(c)
	write(t, c.source+"/f", []byte("precious"), 0o600)
	c.pass(true)
	_, err := c.writer.Seal(t.Context())
	must(t, err)
	want := []synced{
		{"volumes/data/f", "none"}, {"manifest.json.unfinished", "none"}, {".", "complete"},
		{"manifest.json.unfinished", "complete"}, {".", "sealed"},
	}
	if diff := cmp.Diff(want, s.seen, cmp.AllowUnexported(synced{})); diff != "" {
		t.Errorf("synced in another order (-want +got):\n%s", diff)
	}
}

func TestAFailedSyncFailsThePass(t *testing.T) {
	for name, manifest := range map[string]string{"volumes/data/f": "none", "manifest.json.unfinished": "none", ".": "complete"} {
		t.Run(name, func(t *testing.T) {
			c := newCarry(t)
			s := newSyncs(c)
			s.fails = name
			write(t, c.source+"/f", []byte("precious"), 0o600)
			if _, err := c.writer.Pass(t.Context(), true, nil); !errors.Is(err, errDisk) {
				t.Errorf("the pass ended with %v, want the error of the disk", err)
			}
			if _, err := c.writer.Seal(t.Context()); ReasonOf(err) != ReasonNoManifest {
				t.Errorf("sealing ended with %v, want %s", err, ReasonNoManifest)
			}
			if got := s.manifest(); got != manifest {
				t.Errorf("the manifest on the claim: %s, want %s", got, manifest)
			}
		})
	}
}

// flip is a disk that keeps another byte than it was given.
func flip(t *testing.T) func(*os.File) {
	return func(file *os.File) {
		kept := make([]byte, 1)
		_, err := file.ReadAt(kept, 3)
		must(t, err)
		kept[0] ^= 1
		_, err = file.WriteAt(kept, 3)
		must(t, err)
	}
}

func TestWhatReadsBackDifferentlyIsFound(t *testing.T) {
	for name, broken := range map[string]func(*carry, func(*os.File)) error{
		"the claim": func(c *carry, flip func(*os.File)) error {
			c.writer.disk.drop = flip
			_, err := c.writer.Pass(c.t.Context(), true, nil)
			return err
		},
		"the restored volume": func(c *carry, flip func(*os.File)) error {
			c.reader.disk.drop = flip
			c.pass(true)
			digest, err := c.writer.Seal(c.t.Context())
			must(c.t, err)
			_, err = c.reader.RestoreSealed(c.t.Context(), digest, nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCarry(t)
			write(t, c.source+"/f", []byte("precious"), 0o600)
			if err := broken(c, flip(t)); ReasonOf(err) != ReasonCorrupt {
				t.Errorf("error %v, want %s", err, ReasonCorrupt)
			}
		})
	}
}

// Work that is not wanted any more does not end as if it were done.
func TestACancelledCopyIsNoCopy(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := eachChunk(ctx, 1000, func(int64, []byte) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}
