package transfer

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

type kind byte

const (
	kindVolume kind = 'v' // the records of a volume follow; path is its name
	kindDir    kind = 'd'
	kindFile   kind = 'f'
	// kindPartial is a file of which a part has arrived. It equals nothing.
	kindPartial kind = 'p'
	// kindLink is another name of the file at the path link, which comes before.
	kindLink    kind = 'l'
	kindSymlink kind = 's'
	kindFIFO    kind = 'i'
	// kindWhiteout hides a name of a lower layer; only in a Layer.
	kindWhiteout kind = 'w'
)

// hasContent reports whether the kind is a regular file of its own.
func (k kind) hasContent() bool { return k == kindFile || k == kindPartial }

// xattr is one extended attribute.
type xattr struct {
	name  string
	value []byte
}

// record describes one name in a volume. Two sides that have the same records have the
// same volumes.
type record struct {
	kind kind
	path string
	// mode has permissions, set-user-ID, set-group-ID and sticky bits.
	mode, uid, gid uint32
	// sec and nsec are the time of the last change of the content.
	sec  int64
	nsec uint32
	size int64
	// link is the target of a symbolic link, or the first name of a file.
	link string
	// xattrs are in the order of their names.
	xattrs []xattr
	chunks chunkList
}

// equal reports whether two records are the same.
func (r *record) equal(o *record) bool {
	return r.kind == o.kind && r.path == o.path && r.mode == o.mode && r.uid == o.uid && r.gid == o.gid &&
		r.sec == o.sec && r.nsec == o.nsec && r.size == o.size && r.link == o.link &&
		slices.EqualFunc(r.xattrs, o.xattrs, func(a, b xattr) bool { return a.name == b.name && bytes.Equal(a.value, b.value) }) &&
		r.chunks.equal(o.chunks)
}

// content returns the chunks of a record that has some. The record may be nil.
func (r *record) content() chunkList {
	if r == nil || !r.kind.hasContent() {
		return nil
	}
	return r.chunks
}

// signature changes whenever a file or its metadata does: the kernel sets the change
// time, and no program can set it back. It is of one node, and not part of a record. The
// zero value is no signature.
type signature struct {
	ino  uint64
	sec  int64
	nsec uint32
}

func signatureOf(stat *unix.Stat_t) signature {
	return signature{ino: stat.Ino, sec: stat.Ctim.Sec, nsec: uint32(stat.Ctim.Nsec)}
}

// appendRecord appends a record in the one form that it has. Digests of manifests are
// of this form.
func appendRecord(b []byte, r *record) []byte {
	b = append(b, byte(r.kind))
	b = appendString(b, r.path)
	b = binary.AppendUvarint(b, uint64(r.mode))
	b = binary.AppendUvarint(b, uint64(r.uid))
	b = binary.AppendUvarint(b, uint64(r.gid))
	b = binary.AppendVarint(b, r.sec)
	b = binary.AppendUvarint(b, uint64(r.nsec))
	b = binary.AppendUvarint(b, uint64(r.size))
	b = appendString(b, r.link)
	b = binary.AppendUvarint(b, uint64(len(r.xattrs)))
	for _, x := range r.xattrs {
		b = appendString(b, x.name)
		b = appendString(b, string(x.value))
	}
	b = binary.AppendUvarint(b, uint64(len(r.chunks)))
	for _, c := range r.chunks {
		b = append(b, byte(c.kind))
		b = binary.AppendUvarint(b, uint64(c.count))
		b = append(b, c.digests...)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder reads values of a frame or a record. After the first wrong one all are zero,
// and err says what was wrong.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = failure(ReasonCorrupt, format, args...)
	}
	d.rest = nil
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.fail("a value is missing")
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

// uint reads a number of at most limit.
func (d *decoder) uint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || n > 1 && d.rest[n-1] == 0 {
		d.fail("a number is cut off or not in its shortest form")
		return 0
	}
	if v > limit {
		d.fail("the number %d exceeds %d", v, limit)
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 || n > 1 && d.rest[n-1] == 0 {
		d.fail("a number is cut off or not in its shortest form")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// bytes reads n bytes, without copying them.
func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.fail("%d bytes are missing", n-uint64(len(d.rest)))
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

// sized reads at most limit bytes behind their number, without copying them.
func (d *decoder) sized(limit int) []byte { return d.bytes(d.uint(uint64(limit))) }

func (d *decoder) end() error {
	if d.err == nil && len(d.rest) > 0 {
		d.fail("%d bytes are too many", len(d.rest))
	}
	return d.err
}

// record reads a record and checks everything that can be checked without others.
func (d *decoder) record() *record {
	r := &record{kind: kind(d.byte())}
	r.path = string(d.sized(maxPath))
	r.mode = uint32(d.uint(0o7777))
	r.uid = uint32(d.uint(math.MaxUint32))
	r.gid = uint32(d.uint(math.MaxUint32))
	r.sec = d.int()
	r.nsec = uint32(d.uint(999_999_999))
	r.size = int64(d.uint(math.MaxInt64))
	r.link = string(d.sized(maxPath))
	d.xattrs(r)
	d.chunks(r)
	if d.err == nil {
		if err := r.check(); err != nil {
			d.fail("%w", err)
		}
	}
	return r
}

func (d *decoder) xattrs(r *record) {
	left := maxXattrs
	for range d.uint(maxXattrs) {
		x := xattr{name: string(d.sized(maxName))}
		x.value = bytes.Clone(d.sized(maxXattr))
		if left -= len(x.name) + len(x.value); left < 0 {
			d.fail("the extended attributes exceed %d bytes", maxXattrs)
		}
		if d.err != nil {
			return
		}
		if n := len(r.xattrs); x.name == "" || strings.ContainsRune(x.name, 0) || n > 0 && r.xattrs[n-1].name >= x.name {
			d.fail("the extended attribute %q is no name or not in order", x.name)
			return
		}
		r.xattrs = append(r.xattrs, x)
	}
}

func (d *decoder) chunks(r *record) {
	want, data := chunkCount(r.size), int64(0)
	if !r.kind.hasContent() {
		want = 0
	}
	for range d.uint(2*maxChunks + 1) {
		c := chunkRun{kind: chunkKind(d.byte()), count: int64(d.uint(math.MaxInt64))}
		if c.count < 1 || c.count > want {
			d.fail("a file of %d bytes has no further %d chunks", r.size, c.count)
			return
		}
		want -= c.count
		switch {
		case c.kind == chunkData:
			if data += c.count; data > maxChunks {
				d.fail("a file has more than %d chunks of data", maxChunks)
				return
			}
			c.digests = bytes.Clone(d.bytes(uint64(c.count) * sha256.Size))
		case c.kind != chunkHole && (c.kind != chunkUnknown || r.kind != kindPartial):
			d.fail("there are no chunks of kind %d in a record of kind %q", c.kind, r.kind)
		}
		if n := len(r.chunks); n > 0 && r.chunks[n-1].kind == c.kind {
			d.fail("two runs of chunks are one")
		}
		if d.err != nil {
			return
		}
		r.chunks = append(r.chunks, c)
	}
	if d.err == nil && want != 0 {
		d.fail("a file of %d bytes lacks %d chunks", r.size, want)
	}
}

// check reports what no sender writes.
func (r *record) check() error {
	if r.kind == kindVolume {
		if err := checkName(r.path); err != nil {
			return err
		}
	} else if err := checkPath(r.path); err != nil {
		return err
	}
	isPlain := r.kind == kindDir || r.kind.hasContent()
	switch {
	case r.path == "" && r.kind != kindDir:
		return failure(ReasonCorrupt, "the root of a volume is a directory")
	case !r.kind.hasContent() && r.size != 0:
		return failure(ReasonCorrupt, "%q has a size", r.path)
	case !isPlain && len(r.xattrs) > 0:
		return failure(ReasonCorrupt, "%q has extended attributes, which only files and directories have", r.path)
	case (r.kind == kindSymlink || r.kind == kindWhiteout) && r.mode != 0:
		return failure(ReasonCorrupt, "%q has a mode", r.path)
	}
	switch r.kind {
	case kindSymlink:
		if r.link == "" || len(r.link) > maxLink || strings.ContainsRune(r.link, 0) {
			return failure(ReasonCorrupt, "the target of the symbolic link %q is none", r.path)
		}
		return nil
	case kindLink:
		if err := checkPath(r.link); err != nil {
			return err
		}
		if r.link == "" || comparePaths(r.link, r.path) >= 0 {
			return failure(ReasonCorrupt, "%q is a name of %q, which does not come before", r.path, r.link)
		}
		if r.mode|r.uid|r.gid|r.nsec != 0 || r.sec != 0 {
			return failure(ReasonCorrupt, "%q has metadata of its own", r.path)
		}
		return nil
	case kindVolume, kindDir, kindFile, kindPartial, kindFIFO, kindWhiteout:
		if r.link != "" {
			return failure(ReasonCorrupt, "%q has a target", r.path)
		}
		return nil
	}
	return failure(ReasonCorrupt, "there is no kind of file %q", byte(r.kind))
}

// decodeRecord reads a record that is alone.
func decodeRecord(b []byte) (*record, error) {
	d := decoder{rest: b}
	r := d.record()
	return r, d.end()
}
