package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// overlayOpaque marks a directory of a layer that hides what lower layers have in it.
const overlayOpaque = "trusted.overlay.opaque"

// isCarried reports whether an attribute moves. Those of a security module or of an
// overlay belong to the node, but for what is content of a layer.
func isCarried(attribute string, layer bool) bool {
	if layer && attribute == overlayOpaque {
		return true
	}
	return attribute != "security.selinux" && !strings.HasPrefix(attribute, "trusted.")
}

// isElsewhere reports whether an attribute says that content is in another layer:
// containerd asks overlay for neither.
func isElsewhere(attribute string) bool {
	return attribute == "trusted.overlay.redirect" || attribute == "trusted.overlay.metacopy"
}

// describe fills in what a stat says of a name. It returns false for what is not carried:
// sockets, which only a running process gives sense.
func describe(r *record, stat *unix.Stat_t, layer bool) (carried bool, err error) {
	r.uid, r.gid = stat.Uid, stat.Gid
	r.sec, r.nsec = stat.Mtim.Sec, uint32(stat.Mtim.Nsec)
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		r.kind = kindDir
	case unix.S_IFREG:
		r.kind, r.size = kindFile, stat.Size
	case unix.S_IFLNK:
		r.kind = kindSymlink
		return true, nil
	case unix.S_IFIFO:
		r.kind = kindFIFO
	case unix.S_IFSOCK:
		return false, nil
	case unix.S_IFCHR:
		if layer && stat.Rdev == 0 {
			r.kind = kindWhiteout
			return true, nil
		}
		fallthrough
	default:
		return false, failure(ReasonUnsupportedFile, "%q is a device, which cannot be carried to another node", r.path)
	}
	r.mode = stat.Mode & 0o7777
	return true, nil
}

// readXattrs reads the extended attributes of an open file or directory, in order.
func readXattrs(fd int, layer bool) ([]xattr, error) {
	var space [1024]byte
	list, err := readGrowing(space[:], func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if errors.Is(err, unix.ENOTSUP) || err == nil && len(list) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing extended attributes: %w", err)
	}
	var found []xattr
	size := 0
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if layer && isElsewhere(name) {
			return nil, failure(ReasonUnsupportedFile, "its content is in another layer (%s), which cannot be carried", name)
		}
		if !isCarried(name, layer) {
			continue
		}
		value, err := readGrowing(make([]byte, 128), func(b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading extended attribute %s: %w", name, err)
		}
		if size += len(name) + len(value); size > maxXattrs {
			return nil, failure(ReasonTooLarge, "its extended attributes have more than %d bytes, which is as many as can be carried", maxXattrs)
		}
		found = append(found, xattr{name, value})
	}
	slices.SortFunc(found, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return found, nil
}

// readGrowing asks again with a larger buffer as long as it is too small.
func readGrowing(buffer []byte, read func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := read(buffer)
		if errors.Is(err, unix.ERANGE) && len(buffer) <= 4*maxXattr {
			buffer = make([]byte, 4*len(buffer))
			continue
		}
		return buffer[:max(0, n)], err
	}
}

// applyToOpen gives an open file or directory its owner, mode, attributes and time, in
// this order: a change of owner takes set-user-ID bits and capabilities away.
func applyToOpen(fd int, r *record, layer bool) error {
	if err := unix.Fchown(fd, int(r.uid), int(r.gid)); err != nil {
		return fmt.Errorf("setting the owner: %w", err)
	}
	present, err := readXattrs(fd, layer)
	if err != nil {
		return err
	}
	for _, x := range present {
		if !slices.ContainsFunc(r.xattrs, func(want xattr) bool { return want.name == x.name }) {
			if err := unix.Fremovexattr(fd, x.name); err != nil && !errors.Is(err, unix.ENODATA) {
				return fmt.Errorf("removing extended attribute %s: %w", x.name, err)
			}
		}
	}
	if err := unix.Fchmod(fd, r.mode); err != nil {
		return fmt.Errorf("setting the mode: %w", err)
	}
	for _, x := range r.xattrs {
		if slices.ContainsFunc(present, func(has xattr) bool { return has.name == x.name && bytes.Equal(has.value, x.value) }) && !strings.HasPrefix(x.name, "s") {
			continue // those of the system and of security may have gone with the mode and the owner
		}
		if err := unix.Fsetxattr(fd, x.name, x.value, 0); err != nil {
			return fmt.Errorf("setting extended attribute %s: %w", x.name, err)
		}
	}
	return setTime(fd, r)
}

// setTime sets the time of an open file or directory (futimens(3)).
func setTime(fd int, r *record) error {
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: r.sec, Nsec: int64(r.nsec)}}
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("setting the time: %w", errno)
	}
	return nil
}

// applyToHandle does the same for what cannot be opened, by a handle.
func applyToHandle(handle int, r *record) error {
	if err := unix.Fchownat(handle, "", int(r.uid), int(r.gid), unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("setting the owner: %w", err)
	}
	if r.kind == kindFIFO {
		// The magic link leads to what the handle is of, and is the node's own.
		if err := unix.Chmod(procPath(handle), r.mode); err != nil {
			return fmt.Errorf("setting the mode: %w", err)
		}
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: r.sec, Nsec: int64(r.nsec)}}
	if err := unix.UtimesNanoAt(handle, "", times, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("setting the time: %w", err)
	}
	return nil
}
