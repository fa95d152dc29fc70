// Package atomicfile puts a file in its place in one step: whoever reads it finds
// what was there before or what is there now, never a part.
//
// Whether a file is synced is decided by the function that is called, once:
//
//   - WriteDurably is for what must be remembered when the power has gone, since
//     something on the node outlives it: what the installer made, what is frozen.
//   - Write is for what is recreated after a restart of the node, and is waited
//     for: the outcome of a restoration, the program of a gate.
package atomicfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Write writes a file with exactly this mode. After an error the old file is there
// as it was. A writer that is killed leaves a file ".<name>.<digits>" beside it.
func Write(path string, content io.Reader, mode fs.FileMode) error {
	return write(path, content, mode, func(*os.File) error { return nil })
}

// WriteDurably is Write, and returns when content and name are on the disk. After
// an error the old file is there, or the new one that the disk may still lose.
func WriteDurably(path string, content io.Reader, mode fs.FileMode) error {
	return write(path, content, mode, (*os.File).Sync)
}

func write(path string, content io.Reader, mode fs.FileMode, sync func(*os.File) error) error {
	next, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	if _, err = io.Copy(next, content); err == nil {
		// CreateTemp gives its own mode, and the mask of a container may take rights away.
		err = errors.Join(next.Chmod(mode), sync(next))
	}
	if err = errors.Join(err, next.Close()); err == nil {
		err = os.Rename(next.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next.Name()))
	}
	return syncParent(path, sync)
}

func syncParent(path string, sync func(*os.File) error) error {
	directory, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(sync(directory), directory.Close())
}

// RemoveDurably removes a file or a directory with all that is in it, and returns when
// it does not come back with the power. That there is none is no error. After an error
// parts of it may be gone.
func RemoveDurably(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return syncParent(path, (*os.File).Sync)
}
