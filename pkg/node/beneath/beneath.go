// Package beneath opens names beneath a directory that is open, or that only programs of
// the node write, through no link (openat2(2), Linux 5.6). What lies there may belong to
// containers, which can change it at every moment.
package beneath

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Resolve is what the kernel refuses: to leave the directory, and to follow links.
const Resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// Open opens a name in a directory. mode is that of a file that flags create, resolve is
// Resolve or more. The error is that of the kernel: unix.ELOOP for a link, unix.EXDEV for a
// way out, or for a mount where RESOLVE_NO_XDEV refuses it.
func Open(directory int, name string, flags int, mode, resolve uint64) (int, error) {
	how := &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW), Mode: mode, Resolve: resolve}
	for {
		fd, err := unix.Openat2(directory, name, how)
		// EAGAIN: something was renamed or mounted meanwhile.
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// OpenDirectory opens a directory, which may be a mount, beneath root. That is opened as it
// is named: only programs of the node may write it.
func OpenDirectory(root, name string) (int, error) {
	base, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening %s: %w", root, err)
	}
	defer unix.Close(base)
	fd, err := Open(base, name, unix.O_RDONLY|unix.O_DIRECTORY, 0, Resolve)
	if err != nil {
		return -1, fmt.Errorf("opening %s beneath %s: %w", name, root, err)
	}
	return fd, nil
}
