package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// openAt opens a file or directory, and nothing that a symbolic link in its place points
// at (os.Root follows links within itself, whatever flags it is given). Containers can put
// anything under any name: what is no file or directory is not opened at all, since that
// waits for the other end of a FIFO, and does something to a device. The error is
// unix.ELOOP for a link, unix.ENXIO for the others.
func openAt(root *os.Root, name string, flags int) (file *os.File, err error) {
	err = inParent(root, name, func(parent int, base string) error {
		fd, err := openFound(parent, base, flags)
		if errors.Is(err, unix.ENOENT) && flags&os.O_CREATE != 0 {
			fd, err = openat(parent, base, flags|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
		}
		if err == nil {
			file = os.NewFile(uintptr(fd), filepath.Join(root.Name(), name))
		}
		return err
	})
	return file, err
}

// openFound opens what there is, by a handle that shows what it is before it is opened.
func openFound(parent int, base string, flags int) (int, error) {
	handle, err := openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(handle) }()
	var stat unix.Stat_t
	if err := unix.Fstat(handle, &stat); err != nil {
		return 0, err
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		return openat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", handle), flags&^os.O_CREATE, 0)
	case unix.S_IFLNK:
		return 0, unix.ELOOP
	}
	return 0, unix.ENXIO
}

func openat(parent int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(parent, name, flags|unix.O_CLOEXEC, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// openPlain opens a file or directory itself to read it.
func openPlain(root *os.Root, name string) (*os.File, error) {
	return openAt(root, name, os.O_RDONLY)
}

// openRegular opens a regular file, or creates one where the flags say so. Whatever
// else has the name is ReasonCorrupt.
func openRegular(root *os.Root, name string, flags int) (*os.File, *unix.Stat_t, error) {
	file, err := openAt(root, name, flags)
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
