package checkpoint

import (
	"os"

	"golang.org/x/sys/unix"
)

// disk is what makes a checkpoint durable. A test puts one that fails in its place.
type disk struct {
	// sync returns once a file or directory is on stable storage (fsync(2)).
	sync func(*os.File) error
	// drop removes a file from the page cache, so that it is read back from the
	// disk. It is a hint: what cannot be dropped is read from memory.
	drop func(*os.File)
}

func realDisk() disk {
	return disk{
		sync: (*os.File).Sync,
		drop: func(file *os.File) { _ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED) },
	}
}
