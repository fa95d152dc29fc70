package transfer

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// Size is what volumes hold.
type Size struct {
	// Bytes counts allocated data, not holes.
	Bytes int64
	// Files counts names of every kind, directories too.
	Files int64
}

// Measure sizes volumes up, and refuses what a pass would refuse for its kind or its
// number, as far as that can be seen without reading: ReasonUnsupportedFile and
// ReasonTooLarge. What vanishes meanwhile is not counted.
func Measure(ctx context.Context, volumes []Volume) (Size, error) {
	return abandonable(ctx, func() (Size, error) { return measure(ctx, volumes) }, func(Size) {})
}

func measure(ctx context.Context, volumes []Volume) (Size, error) {
	open, err := openVolumes(volumes)
	if err != nil {
		return Size{}, err
	}
	defer closeVolumes(open)
	return measureOpen(ctx, open)
}

func measureOpen(ctx context.Context, volumes []openVolume) (Size, error) {
	m := measuring{ctx: ctx}
	for i := range volumes {
		if err := m.volume(&volumes[i]); err != nil {
			return m.size, fmt.Errorf("measuring volume %s: %w", volumes[i].Name, err)
		}
	}
	return m.size, nil
}

type measuring struct {
	ctx   context.Context
	size  Size
	links linkTable
}

func (m *measuring) volume(v *openVolume) error {
	m.links = linkTable{}
	root, err := openDirectory(v.fd, ".")
	if err != nil {
		return err
	}
	var w walk
	defer w.close()
	var stat unix.Stat_t
	if err := unix.Fstat(root, &stat); err != nil {
		return err
	}
	m.size.Files++
	m.size.Bytes += stat.Blocks * 512
	if err := w.enter(newDirectory(root, "")); err != nil {
		return err
	}
	for {
		d, name := w.step()
		if err := m.ctx.Err(); d == nil || err != nil {
			return err
		}
		if err := m.look(v, &w, d, name); err != nil && !isGone(err) {
			return fmt.Errorf("%q: %w", joinPath(d.path, name), err)
		}
	}
}

// look counts one name.
func (m *measuring) look(v *openVolume, w *walk, d *directory, name string) error {
	var stat unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	r := &record{path: joinPath(d.path, name)}
	carried, err := describe(r, &stat, v.Layer)
	if err != nil || !carried {
		return err
	}
	if m.size.Files++; m.size.Files > maxEntries {
		return failure(ReasonTooLarge, "there are more than %d files and directories, which is as many as can be carried", maxEntries)
	}
	if r.kind == kindFile && stat.Nlink > 1 {
		if first, err := m.links.first(&stat, r.path); err != nil || first != "" {
			return err
		}
	}
	m.size.Bytes += stat.Blocks * 512
	if r.kind != kindDir {
		return nil
	}
	if err := checkPath(r.path); err != nil {
		return err
	}
	fd, err := openDirectory(d.fd, name)
	if err != nil {
		return err
	}
	return w.enter(newDirectory(fd, r.path))
}
