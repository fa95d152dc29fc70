package beneath

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNothingIsOpenedThroughALinkOrOutside(t *testing.T) {
	root := t.TempDir()
	if err := errors.Join(
		os.MkdirAll(filepath.Join(root, "a/b"), 0o755), os.Symlink("b", filepath.Join(root, "a/link")), os.Symlink("/", filepath.Join(root, "a/out")),
	); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"a/b": nil, ".": nil, "a/link": unix.ENOTDIR, "a/link/.": unix.ELOOP, "a/out/etc": unix.ELOOP, "..": unix.EXDEV, "/etc": unix.EXDEV, "a/none": unix.ENOENT,
	} {
		fd, err := OpenDirectory(root, name)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if err == nil {
			unix.Close(fd)
		}
	}
}
