package atomicfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
)

// onlyFile returns the content of a file that must be alone in its directory.
func onlyFile(t *testing.T, path string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("the directory holds %v", entries)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestTheModeIsExact(t *testing.T) {
	mask := syscall.Umask(0o077)
	defer syscall.Umask(mask)
	path := filepath.Join(t.TempDir(), "file")
	for _, mode := range []os.FileMode{0o755, 0o600} {
		if err := Write(path, strings.NewReader(mode.String()), mode); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != mode || onlyFile(t, path) != mode.String() {
			t.Errorf("%v, %v, want mode %v", info, err, mode)
		}
	}
}

func TestTheOldFileStaysAfterAFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := WriteDurably(path, strings.NewReader("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	half := io.MultiReader(strings.NewReader("ne"), iotest.ErrReader(broken))
	if err := WriteDurably(path, half, 0o600); !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the reader", err)
	}
	if err := write(path, strings.NewReader("new"), 0o600, func(*os.File) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the disk", err)
	}
	if got := onlyFile(t, path); got != "old" {
		t.Errorf("it holds %q", got)
	}
}

// The content is on the disk before it gets the name, and the name before the return.
func TestTheOrderOfSyncs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Write(path, strings.NewReader("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	var synced []string
	err := write(path, strings.NewReader("new"), 0o600, func(file *os.File) error {
		named, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		what := "directory"
		if content, err := os.ReadFile(file.Name()); err == nil {
			what = string(content)
		}
		synced = append(synced, what+" while the name has "+string(named))
		return nil
	})
	if want := []string{"new while the name has old", "directory while the name has new"}; err != nil || !slices.Equal(synced, want) {
		t.Errorf("%q, %v, want %q", synced, err, want)
	}
}
