package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Volume is the root directory of a volume on this node.
type Volume struct {
	Name string
	Dir  string
	// Layer is true for the writable layer of an overlay: whiteouts and opaque directories
	// belong to its content (Documentation/filesystems/overlayfs.rst).
	Layer bool
	// Transient is true for content that is read from the claim once, while its source
	// still has it, and is of no use after: images of processes. It is neither made
	// durable on the claim nor read back there. A Reader finds what is wrong with it,
	// as with all else.
	Transient bool
}

// Size is what volumes hold.
type Size struct {
	// Bytes counts allocated data, not holes.
	Bytes int64
	// Files counts names of every kind, directories too.
	Files int64
}

// Measure sizes volumes up. What vanishes meanwhile is not counted. The error is that of
// the context or of the file system.
func Measure(ctx context.Context, volumes []Volume) (Size, error) {
	var size Size
	for _, v := range volumes {
		root, err := os.OpenRoot(v.Dir)
		if err != nil {
			return size, fmt.Errorf("opening volume %s: %w", v.Name, err)
		}
		seen := map[uint64]bool{}
		err = walk(ctx, root, ".", func(_ string, stat *unix.Stat_t) error {
			size.Files++
			if !seen[stat.Ino] {
				size.Bytes += stat.Blocks * 512
			}
			seen[stat.Ino] = true
			return nil
		})
		if err = errors.Join(err, root.Close()); err != nil {
			return size, fmt.Errorf("measuring volume %s: %w", v.Name, err)
		}
	}
	return size, nil
}

// walk visits a directory and everything below it, in the order of names, directories
// before what is in them. What vanishes meanwhile is left out.
func walk(ctx context.Context, root *os.Root, name string, visit func(name string, stat *unix.Stat_t) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	stat, err := lstat(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := visit(name, stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	names, err := list(root, name)
	if err != nil {
		return err
	}
	for _, child := range names {
		if err := walk(ctx, root, path.Join(name, child), visit); err != nil {
			return err
		}
	}
	return nil
}

func list(root *os.Root, name string) ([]string, error) {
	directory, err := root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil // it was replaced meanwhile
	}
	if err != nil {
		return nil, err
	}
	names, err := directory.Readdirnames(-1)
	if err = errors.Join(err, directory.Close()); err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// lstat returns more of a name than os.FileInfo does. The error is fs.ErrNotExist where
// there is none.
func lstat(root *os.Root, name string) (*unix.Stat_t, error) {
	stat := &unix.Stat_t{}
	err := inParent(root, name, func(parent int, base string) error {
		return unix.Fstatat(parent, base, stat, unix.AT_SYMLINK_NOFOLLOW)
	})
	return stat, err
}

// inParent opens the directory of a name, within the root, for what os.Root has no
// method for.
func inParent(root *os.Root, name string, do func(parent int, base string) error) error {
	dir, base := path.Split(name)
	if dir = strings.TrimSuffix(dir, "/"); dir == "" {
		dir = "."
	}
	directory, err := root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer directory.Close()
	if err := do(int(directory.Fd()), base); err != nil {
		return &fs.PathError{Op: "access", Path: name, Err: err}
	}
	return nil
}

// describe reads everything about a name but its content and links. It returns
// nil for what is not carried: sockets, which only a running process gives sense.
func describe(root *os.Root, name string, stat *unix.Stat_t, layer bool) (*entry, error) {
	e := &entry{
		Path: []byte(name), Mode: stat.Mode & 0o7777, UID: stat.Uid, GID: stat.Gid,
		Seconds: stat.Mtim.Sec, Nanos: stat.Mtim.Nsec,
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Type = typeDir
	case unix.S_IFREG:
		e.Type, e.Size = typeFile, stat.Size
	case unix.S_IFLNK:
		e.Type = typeSymlink
		target, err := root.Readlink(name)
		e.Link = []byte(target)
		return e, err
	case unix.S_IFIFO:
		e.Type = typeFIFO
		return e, nil
	case unix.S_IFSOCK:
		return nil, nil
	case unix.S_IFCHR:
		if layer && stat.Rdev == 0 {
			e.Type = typeWhiteout
			return e, nil
		}
		fallthrough
	default:
		return nil, failure(ReasonUnsupportedFile, "%q is a device, which cannot be carried to another node", name)
	}
	var err error
	e.Xattrs, err = xattrsOf(root, name, layer)
	return e, err
}
