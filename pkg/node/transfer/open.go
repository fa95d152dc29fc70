package transfer

import (
	"errors"
	"fmt"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ai-storage/orchestrator/pkg/node/beneath"
)

// Containers can put anything under any name of their volumes, at every moment. So each
// name is opened by itself, in a directory that is open already, and the kernel refuses
// links, magic links and mounts (openat2(2), Linux 5.6). What is no file or directory is
// never opened: that waits for the other end of a FIFO, and does something to a device.

const resolve = beneath.Resolve | unix.RESOLVE_NO_XDEV

func openBeneath(parent int, name string, flags int) (int, error) {
	fd, err := beneath.Open(parent, name, flags, 0, resolve)
	return fd, explainMount(name, err)
}

// explainMount says of a name that leads to another file system that it does.
func explainMount(name string, err error) error {
	if errors.Is(err, unix.EXDEV) {
		return failure(ReasonUnsupportedFile, "%q is a mount of its own within the volume, which cannot be carried", name)
	}
	return err
}

// openRoot opens a directory beneath a trusted one. The directory itself may be a mount.
func openRoot(root, path string) (int, error) {
	fd, err := beneath.OpenDirectory(root, path)
	return fd, explainMount(path, err)
}

// openDirectory opens a directory in another.
func openDirectory(parent int, name string) (int, error) {
	return openBeneath(parent, name, unix.O_RDONLY|unix.O_DIRECTORY)
}

// openHandle opens whatever has the name, not to be used but to be looked at.
func openHandle(parent int, name string, stat *unix.Stat_t) (int, error) {
	fd, err := openBeneath(parent, name, unix.O_PATH)
	if err != nil {
		return -1, err
	}
	if err := unix.Fstat(fd, stat); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// errKind says that a name is no regular file, or no longer.
var errKind = errors.New("it is no regular file")

// openRegular opens a regular file that exists. The error is errKind for anything else,
// unix.ENOENT where nothing has the name.
func openRegular(parent int, name string, flags int, stat *unix.Stat_t) (int, error) {
	handle, err := openHandle(parent, name, stat)
	if err != nil {
		return -1, err
	}
	defer unix.Close(handle)
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, errKind
	}
	own, err := descriptors()
	if err != nil {
		return -1, err
	}
	return openat(own, strconv.Itoa(handle), flags|unix.O_NONBLOCK, 0)
}

// descriptors is the directory in which the kernel has what this process has open.
var descriptors = sync.OnceValues(func() (int, error) {
	return unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
})

// createRegular creates a regular file that root alone can read. The error is
// unix.EEXIST where anything has the name.
func createRegular(parent int, name string) (int, error) {
	return openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_NOFOLLOW, 0o600)
}

func openat(parent int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(parent, name, flags|unix.O_CLOEXEC, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// procPath names what a descriptor of this process is open to.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// isGone reports whether an error says that a name has vanished, or is something else by
// now than it was when it was looked at.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, errKind) || errors.Is(err, unix.ESTALE)
}

// removeAll removes a name and, where it is a directory, what is in it. That there is
// none is no error.
func removeAll(parent int, name string) error { return removeTree(parent, name, 0) }

func removeTree(parent int, name string, depth int) error {
	err := unix.Unlinkat(parent, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("removing %q: %w", name, err)
	}
	if depth > 2*maxDepth {
		return failure(ReasonTooLarge, "removing %q: directories are more than %d deep", name, 2*maxDepth)
	}
	directory, err := openDirectory(parent, name)
	if err != nil {
		return fmt.Errorf("removing %q: %w", name, err)
	}
	defer unix.Close(directory)
	names, err := readNames(directory, maxHeldNames)
	if err != nil {
		return err
	}
	for i := range names.len() {
		if err := removeTree(directory, names.at(i), depth+1); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing %q: %w", name, err)
	}
	return nil
}
