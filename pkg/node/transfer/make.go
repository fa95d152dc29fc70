package transfer

import (
	"strings"

	"golang.org/x/sys/unix"
)

// put makes what a record says; of a file its content too, which is nil where the file
// is there with the right one.
func (a *applier) put(r *record, content *chunk) error {
	parent, base, err := a.place(r.path)
	if err != nil {
		return err
	}
	if err := a.next.check.next(r); err != nil {
		return err
	}
	if r.kind == kindVolume || r.kind == kindPartial || r.kind == kindWhiteout && !a.volume.Layer {
		return failure(ReasonCorrupt, "%q is no file of this volume", r.path)
	}
	if err := checkAttributes(r, a.volume.Layer); err != nil {
		return err
	}
	if r.kind == kindDir {
		return a.putDirectory(parent, base, r)
	}
	if r.kind == kindFile {
		return a.putSmall(parent, base, r, content)
	}
	if content != nil {
		return failure(ReasonCorrupt, "%q has content", r.path)
	}
	if base != nil {
		if err := a.clear(parent, base); err != nil {
			return a.spoiled(r, err)
		}
	}
	if err := a.dropBelow(r.path); err != nil {
		return err
	}
	parent.touched = true
	if err := a.make(parent, r); err != nil {
		return a.spoiled(r, err)
	}
	return a.done(r, signature{})
}

// checkAttributes refuses attributes that no sender sends.
func checkAttributes(r *record, layer bool) error {
	for _, x := range r.xattrs {
		if !isCarried(x.name, layer) {
			return failure(ReasonCorrupt, "%q has the extended attribute %s, which is not carried", r.path, x.name)
		}
	}
	return nil
}

func (a *applier) putDirectory(parent *target, base, r *record) error {
	if parent != nil && (base == nil || base.kind != kindDir) {
		_, name := splitPath(r.path)
		if base != nil {
			if err := a.clear(parent, base); err != nil {
				return a.spoiled(r, err)
			}
		}
		parent.touched = true
		err := unix.Mkdirat(parent.fd, name, 0o700)
		if err == nil && parent.copyFD >= 0 {
			err = a.onCopy(unix.Mkdirat(parent.copyFD, name, 0o700))
		}
		if err != nil {
			return a.spoiled(r, err)
		}
	}
	a.stack = append(a.stack, &target{rec: r, fd: -1, copyFD: -1, touched: true})
	return a.done(r, signature{})
}

// make makes what cannot be opened. Nothing has its name.
func (a *applier) make(parent *target, r *record) error {
	_, name := splitPath(r.path)
	var err error
	var want uint32
	switch r.kind {
	case kindLink:
		return a.link(parent.fd, name, r.link)
	case kindSymlink:
		want, err = unix.S_IFLNK, unix.Symlinkat(r.link, parent.fd, name)
	case kindFIFO:
		want, err = unix.S_IFIFO, unix.Mkfifoat(parent.fd, name, 0o600)
	case kindWhiteout:
		want, err = unix.S_IFCHR, unix.Mknodat(parent.fd, name, unix.S_IFCHR, 0)
	default:
		return failure(ReasonCorrupt, "there is no kind of file %q", byte(r.kind))
	}
	if err != nil {
		return err
	}
	var stat unix.Stat_t
	handle, err := openHandle(parent.fd, name, &stat)
	if err != nil {
		return err
	}
	defer unix.Close(handle)
	if stat.Mode&unix.S_IFMT != want {
		return errKind
	}
	return applyToHandle(handle, r)
}

// link makes another name of a file of this volume.
func (a *applier) link(parent int, name, first string) error {
	directory, base := splitPath(first)
	fd, err := openPath(a.volume.fd, directory)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	handle, err := openHandle(fd, base, &stat)
	if err != nil {
		return err
	}
	defer unix.Close(handle)
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return errKind
	}
	return unix.Linkat(unix.AT_FDCWD, procPath(handle), parent, name, unix.AT_SYMLINK_FOLLOW)
}

// putSmall makes a small file.
func (a *applier) putSmall(parent *target, base, r *record, content *chunk) error {
	if r.size > smallFile {
		return failure(ReasonCorrupt, "%q has %d bytes in one frame, at most %d are accepted", r.path, r.size, smallFile)
	}
	hasContent := base != nil && base.kind.hasContent()
	if content == nil && (!hasContent || base.size != r.size || !base.chunks.equal(r.chunks)) {
		return failure(ReasonCorrupt, "%q comes without its content", r.path)
	}
	if content != nil {
		if err := content.belongsTo(r); err != nil {
			return err
		}
	}
	fd, copyFD, err := a.openFile(parent, base, r)
	if err != nil {
		return a.spoiled(r, err)
	}
	defer closeBoth(fd, copyFD)
	if content != nil {
		for _, to := range []int{fd, copyFD} {
			if to < 0 {
				continue
			}
			if err := writeSmall(to, r.size, content, !hasContent); err != nil {
				return a.spoiled(r, a.onEither(to, copyFD, err))
			}
		}
		a.result.Written += int64(len(content.data))
		same, err := verifyChunk(fd, 0, content, a.hash)
		if err == nil && !same {
			err = failure(ReasonCorrupt, "the content of %q is not what its digest says", r.path)
		}
		if err != nil {
			return err
		}
	}
	return a.complete(fd, r)
}

// belongsTo takes the digest of a chunk from the record of a file that has one at most.
func (c *chunk) belongsTo(r *record) error {
	kind, digest := (&chunkCursor{list: r.chunks}).at(0)
	if int64(c.length) != r.size || c.isHole() != (r.size == 0 || kind == chunkHole) {
		return failure(ReasonCorrupt, "the content of %q is not what its digest says", r.path)
	}
	copy(c.digest[:], digest)
	_, err := c.spans()
	return err
}

func writeSmall(fd int, size int64, content *chunk, fresh bool) error {
	if !fresh || content.isHole() && size > 0 || len(content.data) < content.length {
		if err := unix.Ftruncate(fd, size); err != nil {
			return err
		}
	}
	_, err := writeChunk(fd, 0, content, fresh)
	return err
}

// complete gives a file its metadata, and writes its record.
func (a *applier) complete(fd int, r *record) error {
	if err := applyToOpen(fd, r, a.volume.Layer); err != nil {
		return a.spoiled(r, err)
	}
	a.unsynced = true
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return a.spoiled(r, err)
	}
	return a.done(r, signatureOf(&stat))
}

// openFile opens a file to be changed where it is a file of its own already, and makes a
// new one otherwise: other names of what was there stay as they are.
func (a *applier) openFile(parent *target, base, r *record) (fd, copyFD int, err error) {
	_, name := splitPath(r.path)
	if base != nil && base.kind.hasContent() {
		return openBoth(parent, name)
	}
	if base != nil {
		if err := a.clear(parent, base); err != nil {
			return -1, -1, err
		}
	}
	if err := a.dropBelow(r.path); err != nil {
		return -1, -1, err
	}
	parent.touched = true
	if fd, err = createRegular(parent.fd, name); err != nil {
		return -1, -1, err
	}
	copyFD = -1
	if parent.copyFD >= 0 {
		if copyFD, err = createRegular(parent.copyFD, name); err != nil {
			unix.Close(fd)
			return -1, -1, a.onCopy(err)
		}
	}
	return fd, copyFD, nil
}

func openBoth(parent *target, name string) (fd, copyFD int, err error) {
	var stat unix.Stat_t
	if fd, err = openRegular(parent.fd, name, unix.O_RDWR, &stat); err != nil {
		return -1, -1, err
	}
	if parent.copyFD < 0 {
		return fd, -1, nil
	}
	if copyFD, err = openRegular(parent.copyFD, name, unix.O_RDWR, &stat); err != nil {
		unix.Close(fd)
		return -1, -1, err
	}
	return fd, copyFD, nil
}

func closeBoth(fd, copyFD int) {
	unix.Close(fd)
	if copyFD >= 0 {
		unix.Close(copyFD)
	}
}

// openPath opens a directory of a volume, name by name.
func openPath(root int, path string) (int, error) {
	fd, err := openDirectory(root, ".")
	for rest := path; err == nil && rest != ""; {
		name := rest
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			name, rest = rest[:i], rest[i+1:]
		} else {
			rest = ""
		}
		parent := fd
		fd, err = openDirectory(parent, name)
		unix.Close(parent)
	}
	return fd, err
}
