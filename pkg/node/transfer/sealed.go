package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// A sealed copy has the content of regular files as a plain tree, and all else in its
// manifest:
//
//	volumes/<volume>/…  directories and regular files, for root alone
//	manifest            the records
//	sealed              version, migration and digest of the manifest
//
// The last one is written when the others are on the disk. The digest that makes a copy
// count comes from whoever restores it: others may be able to write it.
const (
	copyVolumes  = "volumes"
	copyManifest = "manifest"
	copySealed   = "sealed"
	// copyOpen says, between two processes, that the tree is what the manifest in the
	// state directory says.
	copyOpen  = "open"
	copyMagic = "transfer-copy-1"
	maxSealed = 512
)

// Copy is the directory of a sealed copy. It exists, root alone can enter it, and nothing
// else is in it.
type Copy struct {
	// Root is a directory that only the node's own programs write. Path leads from there
	// to the copy, which is opened without following any link.
	Root, Path string
}

// sealedCopy is a copy that is being made.
type sealedCopy struct {
	fd      int
	names   []string
	volumes []int
}

func openCopy(at Copy, volumes []openVolume) (*sealedCopy, error) {
	fd, err := openRoot(at.Root, at.Path)
	if err != nil {
		return nil, err
	}
	c := &sealedCopy{fd: fd}
	for _, v := range volumes {
		c.names = append(c.names, v.Name)
	}
	return c, nil
}

// openTrees opens the trees, and makes those that are missing.
func (c *sealedCopy) openTrees() error {
	c.closeTrees()
	base, err := makeDirectory(c.fd, copyVolumes)
	if err != nil {
		return err
	}
	defer unix.Close(base)
	for _, name := range c.names {
		fd, err := makeDirectory(base, name)
		if err != nil {
			return err
		}
		c.volumes = append(c.volumes, fd)
	}
	return nil
}

func makeDirectory(parent int, name string) (int, error) {
	if err := unix.Mkdirat(parent, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return openDirectory(parent, name)
}

// volume returns the tree of a volume, -1 where there is no copy.
func (c *sealedCopy) volume(number int) int {
	if c == nil {
		return -1
	}
	return c.volumes[number]
}

func (c *sealedCopy) closeTrees() {
	for _, fd := range c.volumes {
		unix.Close(fd)
	}
	c.volumes = nil
}

func (c *sealedCopy) close() error {
	if c == nil {
		return nil
	}
	c.closeTrees()
	return unix.Close(c.fd)
}

// isOf reports whether the tree is what the manifest with this digest says, as a process
// before has written down, and opens it. It does not count for longer than this process
// writes nothing.
func (c *sealedCopy) isOf(digest string) bool {
	if c == nil {
		return false
	}
	content, err := readFile(c.fd, copyOpen, maxSealed)
	return err == nil && string(content) == copyMagic+"\n"+digest+"\n" && c.openTrees() == nil
}

// remember writes down that the tree is what the manifest with this digest says.
func (c *sealedCopy) remember(digest string) error {
	if c == nil {
		return nil
	}
	return c.writeFile(copyOpen, strings.NewReader(copyMagic+"\n"+digest+"\n"), false)
}

// unseal removes what says that the copy is complete.
func (c *sealedCopy) unseal() error {
	if c == nil {
		return nil
	}
	for _, name := range []string{copySealed, copyOpen, copyManifest} {
		if err := removeAll(c.fd, name); err != nil {
			return err
		}
	}
	return nil
}

// fill makes the tree equal to what is in the volumes.
func (c *sealedCopy) fill(ctx context.Context, m *manifest, volumes []openVolume) error {
	if err := c.unseal(); err != nil {
		return err
	}
	if err := removeAll(c.fd, copyVolumes); err != nil {
		return err
	}
	if err := c.openTrees(); err != nil {
		return err
	}
	r, err := m.open()
	if err != nil {
		return err
	}
	defer r.close()
	number := -1
	for {
		rec, err := r.next()
		if err != nil || rec == nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		switch {
		case rec.kind == kindVolume:
			number++
		case rec.path == "":
		case rec.kind == kindDir || rec.kind.hasContent():
			if err := fillOne(volumes[number].fd, c.volumes[number], rec); err != nil {
				return c.explain(fmt.Errorf("%q, which needs %d bytes: %w", rec.path, rec.size, err))
			}
		}
	}
}

func fillOne(from, to int, rec *record) error {
	directory, name := splitPath(rec.path)
	into, err := openPath(to, directory)
	if err != nil {
		return err
	}
	defer unix.Close(into)
	if rec.kind == kindDir {
		return unix.Mkdirat(into, name, 0o700)
	}
	source, err := openPath(from, directory)
	if err != nil {
		return err
	}
	defer unix.Close(source)
	var stat unix.Stat_t
	in, err := openRegular(source, name, unix.O_RDONLY, &stat)
	if err != nil {
		return err
	}
	defer unix.Close(in)
	out, err := createRegular(into, name)
	if err != nil {
		return err
	}
	defer unix.Close(out)
	if err := unix.Ftruncate(out, rec.size); err != nil {
		return err
	}
	return copyData(in, out, rec.size)
}

// copyData copies what is data of a file into one that is a hole.
func copyData(in, out int, size int64) error {
	buffer := make([]byte, 1<<20)
	for at := int64(0); at < size; {
		begin, err := nextData(in, at)
		if err != nil || begin >= size {
			return err
		}
		n, err := readFull(in, begin, buffer[:min(int64(len(buffer)), size-begin)])
		if err != nil || n == 0 {
			return err
		}
		if err := writeFull(out, begin, buffer[:n]); err != nil {
			return err
		}
		at = begin + int64(n)
	}
	return nil
}

// writeManifest writes the manifest of what is in the tree.
func (c *sealedCopy) writeManifest(m *manifest) error {
	if c == nil {
		return nil
	}
	r, err := m.open()
	if err != nil {
		return err
	}
	defer r.close()
	return c.explain(c.writeFile(copyManifest, &recordStream{from: r}, false))
}

// seal says that manifest and tree are complete, which must be on the disk by then.
func (c *sealedCopy) seal(m *manifest, migration types.UID) error {
	if c == nil {
		return nil
	}
	return c.explain(c.writeFile(copySealed, strings.NewReader(fmt.Sprintf("%s\n%s\nsha256:%s\n", copyMagic, migration, m.digest)), true))
}

func (c *sealedCopy) explain(err error) error {
	return explainSpace(c.fd, "the place for the sealed copy", err)
}

// recordStream reads the records of a manifest, each behind its length.
type recordStream struct {
	from *manifestReader
	rest []byte
}

func (s *recordStream) Read(b []byte) (int, error) {
	if len(s.rest) == 0 {
		r, err := s.from.next()
		if err != nil {
			return 0, err
		}
		if r == nil {
			return 0, io.EOF
		}
		s.rest = append(binary.AppendUvarint(s.rest[:0], uint64(len(s.from.raw))), s.from.raw...)
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// writeFile puts a file in its place as a whole, and durably if that is asked for.
func (c *sealedCopy) writeFile(name string, content io.Reader, durably bool) error {
	unfinished := name + ".unfinished"
	if err := removeAll(c.fd, unfinished); err != nil {
		return err
	}
	fd, err := createRegular(c.fd, unfinished)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), unfinished)
	_, err = io.CopyBuffer(struct{ io.Writer }{file}, content, make([]byte, 256<<10))
	if err == nil && durably {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := removeAll(c.fd, name); err != nil {
		return err
	}
	if err := unix.Renameat(c.fd, unfinished, c.fd, name); err != nil || !durably {
		return err
	}
	return unix.Fsync(c.fd)
}

// readFile reads a regular file of at most limit bytes.
func readFile(directory int, name string, limit int64) ([]byte, error) {
	var stat unix.Stat_t
	fd, err := openRegular(directory, name, unix.O_RDONLY, &stat)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	if stat.Size > limit {
		return nil, failure(ReasonCorrupt, "%s has %d bytes, at most %d are read", name, stat.Size, limit)
	}
	return io.ReadAll(io.LimitReader(file, limit))
}
