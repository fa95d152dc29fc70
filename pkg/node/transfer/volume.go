package transfer

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Volume is the root directory of a volume on this node.
type Volume struct {
	// Name is the same on both sides.
	Name string
	// Root is a directory that only the node's own programs write. Path leads from there
	// to the volume, which is opened without following any link.
	Root, Path string
	// Layer is true for the writable layer of an overlay: whiteouts and opaque directories
	// belong to its content (Documentation/filesystems/overlayfs.rst).
	Layer bool
	// Transient is true for content that is of no use after a restart of the node: images
	// of processes. The receiver does not make it durable.
	Transient bool
}

// openVolume is a Volume that is open.
type openVolume struct {
	Volume
	fd int
	// inMemory is true for a tmpfs. It has no writeback, after which a store to a
	// mapped page changes the time of the file again: files are always compared.
	inMemory bool
}

// openVolumes opens volumes, and returns them in the order of their names.
func openVolumes(volumes []Volume) (open []openVolume, err error) {
	defer func() {
		if err != nil {
			closeVolumes(open)
		}
	}()
	if len(volumes) == 0 || len(volumes) > maxVolumes {
		return nil, failure(ReasonTooLarge, "there are %d volumes, at least 1 and at most %d can be carried", len(volumes), maxVolumes)
	}
	sorted := slices.SortedFunc(slices.Values(volumes), func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	for i, v := range sorted {
		if err := checkName(v.Name); err != nil {
			return open, fmt.Errorf("the name of a volume: %w", err)
		}
		if i > 0 && sorted[i-1].Name == v.Name {
			return open, failure(ReasonFailed, "there are two volumes %q", v.Name)
		}
		fd, err := openRoot(v.Root, v.Path)
		if err != nil {
			return open, fmt.Errorf("volume %s: %w", v.Name, err)
		}
		open = append(open, openVolume{Volume: v, fd: fd})
		var stat unix.Statfs_t
		if err := unix.Fstatfs(fd, &stat); err != nil {
			return open, fmt.Errorf("volume %s: %w", v.Name, err)
		}
		open[i].inMemory = stat.Type == unix.TMPFS_MAGIC
	}
	return open, nil
}

func closeVolumes(volumes []openVolume) {
	for _, v := range volumes {
		unix.Close(v.fd)
	}
}
