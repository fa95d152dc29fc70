package checkpoint

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// openAt opens what has a name, and nothing that a symbolic link there points at. It
// never waits: containers can put a FIFO or a device under any name, and opening those
// to read or write waits for the other end. (os.Root follows links within itself,
// whatever flags it is given.)
func openAt(root *os.Root, name string, flags int) (file *os.File, err error) {
	err = inParent(root, name, func(parent int, base string) error {
		for {
			fd, err := unix.Openat(parent, base, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err == nil {
				file = os.NewFile(uintptr(fd), filepath.Join(root.Name(), name))
			}
			return err
		}
	})
	return file, err
}

// openPlain opens a file or directory itself to read it.
func openPlain(root *os.Root, name string) (*os.File, error) {
	return openAt(root, name, os.O_RDONLY)
}

// openRegular opens a regular file, or creates one where the flags say so. Whatever
// else has the name is ReasonCorrupt.
func openRegular(root *os.Root, name string, flags int) (*os.File, *unix.Stat_t, error) {
	file, err := openAt(root, name, flags)
	// Without a reader a FIFO cannot be opened to write, a socket not at all.
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EISDIR) {
		return nil, nil, failure(ReasonCorrupt, "it is no regular file: %w", err)
	}
	if err != nil {
		return nil, nil, err
	}
	stat := &unix.Stat_t{}
	err = unix.Fstat(int(file.Fd()), stat)
	if err == nil && stat.Mode&unix.S_IFMT != unix.S_IFREG {
		err = failure(ReasonCorrupt, "it is no regular file")
	}
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, stat, nil
}
