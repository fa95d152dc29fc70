package transfer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// nameList holds the names of a directory in one piece of memory.
type nameList struct {
	bytes []byte
	// ends has, for each name, where it begins (upper half) and how long it is.
	spans []uint64
}

func (l *nameList) len() int { return len(l.spans) }

func (l *nameList) bytesAt(i int) []byte {
	begin, size := l.spans[i]>>32, l.spans[i]&(1<<32-1)
	return l.bytes[begin : begin+size]
}

func (l *nameList) at(i int) string { return string(l.bytesAt(i)) }

func (l *nameList) size() int { return len(l.bytes) + 8*len(l.spans) }

// readNames reads the names of a directory in the order of their bytes, as far as they
// do not exceed limit bytes.
func readNames(directory, limit int) (*nameList, error) {
	list := &nameList{}
	buffer := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(directory, buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		list.parse(buffer[:n])
		if list.size() > limit {
			return nil, failure(ReasonTooLarge, "a directory and its parents hold names of more than %d bytes (with 8 for each name), which is as many as can be carried", maxHeldNames)
		}
	}
	slices.SortFunc(list.spans, func(a, b uint64) int {
		return bytes.Compare(list.bytes[a>>32:a>>32+a&(1<<32-1)], list.bytes[b>>32:b>>32+b&(1<<32-1)])
	})
	return list, nil
}

// parse reads what getdents64(2) wrote: number, offset, length, type, name.
func (l *nameList) parse(b []byte) {
	const header = 19
	for len(b) > header {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size <= header || size > len(b) {
			return
		}
		name := b[header:size]
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		if binary.NativeEndian.Uint64(b) != 0 && string(name) != "." && string(name) != ".." {
			l.spans = append(l.spans, uint64(len(l.bytes))<<32|uint64(len(name)))
			l.bytes = append(l.bytes, name...)
		}
		b = b[size:]
	}
}

// directory is one that a walk is in. It is closed when the walk and everyone who opens
// files in it have released it.
type directory struct {
	fd    int
	path  string
	names *nameList
	next  int
	users atomic.Int32
}

func newDirectory(fd int, path string) *directory {
	d := &directory{fd: fd, path: path}
	d.users.Store(1)
	return d
}

func (d *directory) hold() *directory {
	d.users.Add(1)
	return d
}

func (d *directory) release() {
	if d.users.Add(-1) == 0 {
		unix.Close(d.fd)
	}
}

// walk is a walk through a volume, directories before what is in them, names in the
// order of their bytes. Whoever takes a step decides whether it leads into a directory.
type walk struct {
	stack []*directory
	held  int
}

// enter makes the walk continue in a directory. The walk owns it from then on.
func (w *walk) enter(d *directory) error {
	w.stack = append(w.stack, d)
	if err := checkDepth(len(w.stack) - 1); err != nil {
		return err
	}
	names, err := readNames(d.fd, maxHeldNames-w.held)
	if err != nil {
		return err
	}
	d.names = names
	w.held += names.size()
	return nil
}

// step returns the next name; a nil directory at the end.
func (w *walk) step() (*directory, string) {
	for len(w.stack) > 0 {
		d := w.stack[len(w.stack)-1]
		if d.next < d.names.len() {
			d.next++
			return d, d.names.at(d.next - 1)
		}
		w.leave()
	}
	return nil, ""
}

func (w *walk) leave() {
	d := w.stack[len(w.stack)-1]
	w.stack = w.stack[:len(w.stack)-1]
	if d.names != nil {
		w.held -= d.names.size()
	}
	d.release()
}

func (w *walk) close() {
	for len(w.stack) > 0 {
		w.leave()
	}
}
