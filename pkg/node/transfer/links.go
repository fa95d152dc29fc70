package transfer

import (
	"golang.org/x/sys/unix"
)

// linkTable knows the first names of files that have several.
type linkTable struct {
	files map[uint64]*linkedFile
	held  int
}

type linkedFile struct {
	path string
	left uint64
}

// first returns the first name of a file that the walk met, "" if this is it. What has
// no further names is not kept.
func (t *linkTable) first(stat *unix.Stat_t, path string) (string, error) {
	if known := t.files[stat.Ino]; known != nil {
		if known.left--; known.left == 0 {
			t.held -= len(known.path) + linkedFileSize
			delete(t.files, stat.Ino)
		}
		return known.path, nil
	}
	if t.files == nil {
		t.files = map[uint64]*linkedFile{}
	}
	if t.held += len(path) + linkedFileSize; t.held > maxHeldLinks {
		return "", failure(ReasonTooLarge, "the paths of files with several names have more than %d bytes, which is as many as can be carried", maxHeldLinks)
	}
	t.files[stat.Ino] = &linkedFile{path, stat.Nlink - 1}
	return "", nil
}

// linkedFileSize is what a linkedFile takes beside its path, in bytes.
const linkedFileSize = 96
