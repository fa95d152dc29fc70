package checkpoint

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/internal/skip"
)

// within fails a test whose work does not end.
func within(t *testing.T, work func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- work() }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for the other end of a FIFO")
		return nil
	}
}

// Containers see the claim. Whatever they put in the place of a file, nobody waits for
// it, nor writes into it.
func TestNothingWaitsForWhatIsNoFile(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	kinds := map[string]func(t *testing.T, path string){
		"a FIFO": func(t *testing.T, path string) { must(t, unix.Mkfifo(path, 0o600)) },
		"a device": func(t *testing.T, path string) {
			if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))); err != nil {
				skip.Because(t, "devices cannot be made here: %v", err)
			}
		},
		"a socket":        func(t *testing.T, path string) { must(t, unix.Mknod(path, unix.S_IFSOCK|0o600, 0)) },
		"a directory":     func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) },
		"a symbolic link": func(t *testing.T, path string) { must(t, os.Symlink("volumes/data/other", path)) },
		"a link outside":  func(t *testing.T, path string) { must(t, os.Symlink(outside, path)) },
	}
	for name, put := range kinds {
		t.Run(name, func(t *testing.T) {
			instead := func(t *testing.T, c *carry, name string) {
				path := filepath.Join(c.claim, testUID, name)
				must(t, os.RemoveAll(path))
				put(t, path)
			}
			begin := func(t *testing.T) *carry {
				c := newCarry(t)
				write(t, c.source+"/f", []byte("precious"), 0o600)
				write(t, c.source+"/other", []byte("other"), 0o600)
				c.pass(true)
				return c
			}
			t.Run("writing", func(t *testing.T) {
				c := begin(t)
				for _, name := range []string{manifestName, manifestName + ".unfinished", "volumes/data/f"} {
					instead(t, c, name)
				}
				write(t, c.source+"/f", []byte("changed!"), 0o600)
				must(t, within(t, func() error { _, err := c.writer.Pass(t.Context(), true, nil); return err }))
				got, err := os.ReadFile(filepath.Join(c.claim, testUID, "volumes/data/f"))
				if err != nil || string(got) != "changed!" {
					t.Errorf("the claim has %q, error %v", got, err)
				}
				if got, err := os.ReadFile(filepath.Join(c.claim, testUID, "volumes/data/other")); err != nil || string(got) != "other" {
					t.Errorf("another file became %q, error %v", got, err)
				}
			})
			for _, name := range []string{manifestName, "volumes/data/f"} {
				t.Run("reading "+name, func(t *testing.T) {
					c := begin(t)
					digest, err := c.writer.Seal(t.Context())
					must(t, err)
					instead(t, c, name)
					err = within(t, func() error { _, err := c.reader.RestoreSealed(t.Context(), digest, nil); return err })
					if ReasonOf(err) != ReasonCorrupt {
						t.Errorf("the restoration ended with %v, want %s", err, ReasonCorrupt)
					}
				})
			}
			t.Run("opening", func(t *testing.T) {
				c := begin(t)
				instead(t, c, manifestName)
				must(t, within(t, func() error {
					w, err := OpenWriter(c.claim, testUID, []Volume{{Name: "data", Dir: c.source}})
					if err == nil {
						err = w.Close()
					}
					return err
				}))
			})
		})
	}
	if _, err := os.Lstat(outside); err == nil {
		t.Error("a file was made outside of the claim")
	}
}

// Whatever is missing is an error that can be reported, and nothing stays open.
func TestAWriterThatCannotBeOpenedSaysSo(t *testing.T) {
	source, claim, file := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "file")
	write(t, file, nil, 0o600)
	volume := func(dir string) []Volume { return []Volume{{Name: "data", Dir: dir}} }
	before := openFiles(t)
	for name, test := range map[string]struct {
		claim     string
		migration types.UID
		volumes   []Volume
	}{
		"no claim":                  {claim + "/missing", testUID, volume(source)},
		"the claim is a file":       {file, testUID, volume(source)},
		"the claim is read-only":    {"/proc", testUID, volume(source)},
		"no volume":                 {claim, testUID, volume(source + "/missing")},
		"the second volume is gone": {claim, testUID, append(volume(source), volume(source+"/missing")...)},
		"the volume is a file":      {claim, testUID, volume(file)},
		"the migration has no UID":  {claim, "..", volume(source)},
	} {
		if w, err := OpenWriter(test.claim, test.migration, test.volumes); err == nil || w != nil {
			t.Errorf("%s: writer %v, error %v", name, w, err)
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files are open, before %d", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}
