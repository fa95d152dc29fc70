package ociruntime

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// overlayOpaque hides what lower layers have in a directory
// (Documentation/filesystems/overlayfs.rst).
const overlayOpaque = "trusted.overlay.opaque"

// applyLayer makes in a mounted root what a writable layer says. The layer is
// one that the agent verified; the root is that of a container which has no
// process yet, so nothing changes either meanwhile. All goes through the mounted
// root: to write into a layer that is mounted is undefined.
func applyLayer(layer, root string) error {
	links := map[uint64]string{}
	var directories []string
	err := filepath.WalkDir(layer, func(from string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(layer, from)
		if err != nil {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(from, &stat); err != nil {
			return err
		}
		to := filepath.Join(root, name)
		if stat.Mode&unix.S_IFMT == unix.S_IFDIR {
			directories = append(directories, name)
			return applyDirectory(from, to, name == ".")
		}
		if err := applyFile(from, to, &stat, links); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// Backwards: what is made in a directory changes its time.
	for i := len(directories) - 1; i >= 0; i-- {
		from, to := filepath.Join(layer, directories[i]), filepath.Join(root, directories[i])
		var stat unix.Stat_t
		if err := unix.Lstat(from, &stat); err != nil {
			return err
		}
		if err := copyMetadata(from, to, &stat); err != nil {
			return fmt.Errorf("%s: %w", directories[i], err)
		}
	}
	return nil
}

func applyDirectory(from, to string, isRoot bool) error {
	if isRoot {
		return nil
	}
	value := make([]byte, 1)
	n, err := unix.Lgetxattr(from, overlayOpaque, value)
	opaque := err == nil && n == 1 && value[0] == 'y'
	info, err := os.Lstat(to)
	if err == nil && (!info.IsDir() || opaque) {
		if err := os.RemoveAll(to); err != nil {
			return err
		}
	}
	if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func applyFile(from, to string, stat *unix.Stat_t, links map[uint64]string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	kind := stat.Mode & unix.S_IFMT
	if kind == unix.S_IFCHR && stat.Rdev == 0 {
		return nil // a whiteout: it is removed
	}
	if earlier, linked := links[stat.Ino]; linked {
		return os.Link(earlier, to)
	}
	if stat.Nlink > 1 {
		links[stat.Ino] = to
	}
	var err error
	switch kind {
	case unix.S_IFREG:
		err = copyContent(from, to)
	case unix.S_IFLNK:
		var target string
		if target, err = os.Readlink(from); err == nil {
			err = os.Symlink(target, to)
		}
	case unix.S_IFIFO:
		err = unix.Mkfifo(to, 0o600)
	default:
		err = fmt.Errorf("cannot be carried (mode %#o)", stat.Mode)
	}
	if err != nil {
		return err
	}
	return copyMetadata(from, to, stat)
}

func copyContent(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// copyMetadata gives owner, mode, attributes and times, in this order: a change
// of owner takes set-user-ID bits and capabilities away.
func copyMetadata(from, to string, stat *unix.Stat_t) error {
	if err := unix.Lchown(to, int(stat.Uid), int(stat.Gid)); err != nil {
		return fmt.Errorf("owner: %w", err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, stat.Mode&0o7777); err != nil {
			return fmt.Errorf("mode: %w", err)
		}
		if err := copyAttributes(from, to); err != nil {
			return err
		}
	}
	when := []unix.Timespec{stat.Atim, stat.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, when, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("times: %w", err)
	}
	return nil
}

func copyAttributes(from, to string) error {
	buffer := make([]byte, 64<<10) // the kernel's limit (XATTR_LIST_MAX)
	n, err := unix.Llistxattr(from, buffer)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing extended attributes: %w", err)
	}
	for _, name := range strings.Split(strings.TrimSuffix(string(buffer[:n]), "\x00"), "\x00") {
		// Those of the overlay are its own, and the label is the node's.
		if name == "" || strings.HasPrefix(name, "trusted.") || name == "security.selinux" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(from, name, value)
		if err == nil {
			err = unix.Lsetxattr(to, name, value[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("extended attribute %s: %w", name, err)
		}
	}
	return nil
}
