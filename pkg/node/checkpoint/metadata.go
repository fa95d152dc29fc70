package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// overlayOpaque marks a directory of a layer that hides what lower layers have in it.
const overlayOpaque = "trusted.overlay.opaque"

// Attributes of a security module or of an overlay belong to the node, but for
// what is content of a layer.
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

// xattrsOf reads the extended attributes of a file or directory.
func xattrsOf(root *os.Root, name string, layer bool) (map[string][]byte, error) {
	file, err := openPlain(root, name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return fileXattrs(int(file.Fd()), layer)
}

func fileXattrs(fd int, layer bool) (map[string][]byte, error) {
	list, err := readSized(func(buffer []byte) (int, error) { return unix.Flistxattr(fd, buffer) })
	if errors.Is(err, unix.ENOTSUP) || len(list) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing extended attributes: %w", err)
	}
	found := map[string][]byte{}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(list, []byte{0}), []byte{0}) {
		if layer && isElsewhere(string(name)) {
			return nil, failure(ReasonUnsupportedFile, "its content is in another layer (%s), which cannot be carried", name)
		}
		if !isCarried(string(name), layer) {
			continue
		}
		value, err := readSized(func(buffer []byte) (int, error) { return unix.Fgetxattr(fd, string(name), buffer) })
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading extended attribute %s: %w", name, err)
		}
		found[string(name)] = value
	}
	if len(found) == 0 {
		return nil, nil
	}
	return found, nil
}

// readSized asks for the size first, and again when it grew meanwhile.
func readSized(read func([]byte) (int, error)) ([]byte, error) {
	for {
		size, err := read(nil)
		if err != nil || size == 0 {
			return nil, err
		}
		buffer := make([]byte, size)
		size, err = read(buffer)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		return buffer[:max(0, size)], err
	}
}

// hasMetadata reports whether a name is as applyMetadata would leave it.
func hasMetadata(root *os.Root, e *entry, layer bool) (bool, error) {
	stat, err := lstat(root, e.name())
	if err != nil {
		return false, err
	}
	isPlain := e.Type == typeDir || e.Type == typeFile
	if stat.Uid != e.UID || stat.Gid != e.GID || stat.Mtim != (unix.Timespec{Sec: e.Seconds, Nsec: e.Nanos}) ||
		(isPlain || e.Type == typeFIFO) && stat.Mode&0o7777 != e.Mode {
		return false, nil
	}
	if !isPlain {
		return true, nil
	}
	file, err := openPlain(root, e.name())
	if err != nil {
		return false, err
	}
	defer file.Close()
	present, err := fileXattrs(int(file.Fd()), layer)
	return maps.EqualFunc(present, e.Xattrs, bytes.Equal), err
}

// applyMetadata gives a restored name its owner, mode, attributes and time, in
// this order: a change of owner takes set-user-ID bits and capabilities away. It reports
// whether there was anything to change.
func applyMetadata(root *os.Root, e *entry, layer bool) (changed bool, err error) {
	if has, err := hasMetadata(root, e, layer); err != nil || has {
		return false, err
	}
	return true, changeMetadata(root, e, layer)
}

func changeMetadata(root *os.Root, e *entry, layer bool) error {
	name := e.name()
	if err := root.Lchown(name, int(e.UID), int(e.GID)); err != nil {
		return err
	}
	if e.Type == typeDir || e.Type == typeFile {
		if err := applyToPlain(root, e, layer); err != nil {
			return err
		}
	}
	if e.Type == typeFIFO {
		if err := inParent(root, name, func(parent int, base string) error {
			return unix.Fchmodat(parent, base, e.Mode, 0)
		}); err != nil {
			return err
		}
	}
	return inParent(root, name, func(parent int, base string) error {
		when := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: e.Seconds, Nsec: e.Nanos}}
		return unix.UtimesNanoAt(parent, base, when, unix.AT_SYMLINK_NOFOLLOW)
	})
}

func applyToPlain(root *os.Root, e *entry, layer bool) error {
	file, err := openPlain(root, e.name())
	if err != nil {
		return err
	}
	defer file.Close()
	fd := int(file.Fd())
	present, err := fileXattrs(fd, layer)
	if err != nil {
		return err
	}
	for _, attribute := range slices.Sorted(maps.Keys(present)) {
		if _, wanted := e.Xattrs[attribute]; !wanted {
			if err := unix.Fremovexattr(fd, attribute); err != nil && !errors.Is(err, unix.ENODATA) {
				return fmt.Errorf("removing extended attribute %s of %q: %w", attribute, e.name(), err)
			}
		}
	}
	if err := unix.Fchmod(fd, e.Mode); err != nil {
		return fmt.Errorf("setting the mode of %q: %w", e.name(), err)
	}
	for _, attribute := range slices.Sorted(maps.Keys(e.Xattrs)) {
		if err := unix.Fsetxattr(fd, attribute, e.Xattrs[attribute], 0); err != nil {
			return fmt.Errorf("setting extended attribute %s of %q: %w", attribute, e.name(), err)
		}
	}
	return nil
}
