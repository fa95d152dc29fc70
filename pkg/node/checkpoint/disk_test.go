package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// syncs records every sync of a writer: what was synced, how many bytes of it were
// there, and what the manifest of the claim was at that moment.
type syncs struct {
	*carry
	mu   sync.Mutex
	seen []synced
	// fails is the name whose sync fails, when the manifest is so.
	fails synced
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
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, synced{name, s.manifest()})
	if s.seen[len(s.seen)-1] == s.fails {
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
	// Directories are synced together, in no order.
	slices.SortFunc(s.seen[1:5], func(a, b synced) int { return strings.Compare(a.name, b.name) })
	want := []synced{
		{"volumes/data/f", "none"},
		{".", "none"}, {"..", "none"}, {"volumes", "none"}, {"volumes/data", "none"},
		{"manifest.json.unfinished", "none"}, {".", "complete"},
		{"manifest.json.unfinished", "complete"}, {".", "sealed"},
	}
	if diff := cmp.Diff(want, s.seen, cmp.AllowUnexported(synced{})); diff != "" {
		t.Errorf("synced in another order (-want +got):\n%s", diff)
	}
}

func TestAFailedSyncFailsThePass(t *testing.T) {
	for _, fails := range []synced{
		{"volumes/data/f", "none"}, {"..", "none"}, {"volumes", "none"}, {"volumes/data", "none"}, {"manifest.json.unfinished", "none"}, {".", "complete"},
	} {
		t.Run(fails.name, func(t *testing.T) {
			c := newCarry(t)
			s := newSyncs(c)
			s.fails = fails
			write(t, c.source+"/f", []byte("precious"), 0o600)
			if _, err := c.writer.Pass(t.Context(), true, nil); !errors.Is(err, errDisk) {
				t.Errorf("the pass ended with %v, want the error of the disk", err)
			}
			if _, err := c.writer.Seal(t.Context()); ReasonOf(err) != ReasonNoManifest {
				t.Errorf("sealing ended with %v, want %s", err, ReasonNoManifest)
			}
			if got := s.manifest(); got != fails.manifest {
				t.Errorf("the manifest on the claim: %s, want %s", got, fails.manifest)
			}
		})
	}
}

// What a pass did not change is not synced again, whatever has no content is.
func TestAPassSyncsWhatItChanged(t *testing.T) {
	for name, test := range map[string]struct {
		change func(t *testing.T, source string)
		want   []string
	}{
		"nothing":              {func(*testing.T, string) {}, nil},
		"an empty file":        {func(t *testing.T, source string) { write(t, source+"/new", nil, 0o600) }, []string{"volumes/data", "volumes/data/new (still empty)"}},
		"cut at a chunk's end": {func(t *testing.T, source string) { must(t, os.Truncate(source+"/large", chunkSize)) }, []string{"volumes/data/large"}},
		"a directory":          {func(t *testing.T, source string) { must(t, os.Mkdir(source+"/d/e", 0o700)) }, []string{"volumes/data/d"}},
		"removed":              {func(t *testing.T, source string) { must(t, os.Remove(source+"/d/f")) }, []string{"volumes/data/d"}},
		"content":              {func(t *testing.T, source string) { write(t, source+"/d/f", []byte("second"), 0o600) }, []string{"volumes/data/d/f"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCarry(t)
			must(t, os.Mkdir(c.source+"/d", 0o700))
			write(t, c.source+"/d/f", []byte("first"), 0o600)
			write(t, c.source+"/large", make([]byte, chunkSize+10), 0o600)
			c.pass(true)
			s := newSyncs(c)
			test.change(t, c.source)
			c.pass(true)
			var got []string
			for _, one := range s.seen {
				if strings.HasPrefix(one.name, "volumes") {
					got = append(got, one.name)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, test.want) {
				t.Errorf("synced %v, want %v", got, test.want)
			}
		})
	}
}

// The original ends once its volumes are restored: they are on the disk by then.
func TestARestorationIsDurable(t *testing.T) {
	c := newCarry(t)
	must(t, os.Mkdir(c.source+"/d", 0o700))
	write(t, c.source+"/d/f", []byte("first"), 0o600)
	must(t, os.Link(c.source+"/d/f", c.source+"/linked"))
	var mu sync.Mutex
	var seen []string
	var fails string
	c.reader.disk.sync = func(file *os.File) error {
		mu.Lock()
		defer mu.Unlock()
		name, err := filepath.Rel(c.end, file.Name())
		must(t, err)
		seen = append(seen, name)
		if name == fails {
			return errDisk
		}
		return nil
	}
	restore := func() error {
		seen = nil
		c.pass(true)
		digest, err := c.writer.Seal(t.Context())
		must(t, err)
		_, err = c.reader.RestoreSealed(t.Context(), digest, nil)
		slices.Sort(seen)
		return err
	}
	wants := func(want ...string) {
		t.Helper()
		if !slices.Equal(seen, want) {
			t.Errorf("synced %v, want %v", seen, want)
		}
	}
	must(t, restore())
	wants(".", "d", "d/f")
	must(t, os.Remove(c.source+"/linked"))
	must(t, restore())
	must(t, restore())
	wants()
	must(t, os.Chmod(c.source+"/d", 0o711))
	must(t, restore())
	wants("d")
	write(t, c.source+"/d/f", []byte("second"), 0o600)
	must(t, restore())
	wants("d/f")
	for _, name := range []string{"d/new", "d"} {
		fails = name
		write(t, c.source+"/d/new", []byte(fails), 0o600)
		if err := restore(); !errors.Is(err, errDisk) {
			t.Errorf("%s is not synced, and the restoration ended with %v", name, err)
		}
		fails = ""
		must(t, restore())
		if !slices.Contains(seen, name) {
			t.Errorf("%s is not synced after that failed", name)
		}
		must(t, os.Remove(c.source+"/d/new"))
		must(t, restore())
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
