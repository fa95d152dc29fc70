package transfer

import (
	"bytes"
	"crypto/sha256"
	"slices"
)

// chunkKind says what is known of a chunk.
type chunkKind byte

const (
	chunkHole    chunkKind = 0 // nothing but zeros
	chunkData    chunkKind = 1
	chunkUnknown chunkKind = 2
)

// chunkRun are chunks of the same kind. digests has one for each chunk of data.
type chunkRun struct {
	kind    chunkKind
	count   int64
	digests []byte
}

// chunkList are the chunks of a file. A file of 8 EiB without data is one run.
type chunkList []chunkRun

func chunkCount(size int64) int64 {
	return size/chunkSize + min(1, size%chunkSize)
}

func (l *chunkList) add(kind chunkKind, count int64, digests []byte) {
	if count == 0 {
		return
	}
	if n := len(*l); n > 0 && (*l)[n-1].kind == kind {
		last := &(*l)[n-1]
		last.count += count
		last.digests = append(last.digests, digests...)
		return
	}
	*l = append(*l, chunkRun{kind, count, bytes.Clone(digests)})
}

// chunkCursor reads a list from its begin to its end.
type chunkCursor struct {
	list     chunkList
	run      int
	consumed int64
	next     int64
}

// at returns what is known of a chunk. Numbers must not decrease from call to call.
func (c *chunkCursor) at(i int64) (chunkKind, []byte) {
	for c.run < len(c.list) {
		r := &c.list[c.run]
		if i < c.consumed+r.count {
			if r.kind != chunkData {
				return r.kind, nil
			}
			n := (i - c.consumed) * sha256.Size
			return chunkData, r.digests[n : n+sha256.Size]
		}
		c.consumed += r.count
		c.run++
	}
	return chunkUnknown, nil
}

// copyTo moves the chunks from the cursor's position to before end to another list.
// What the list does not have is unknown.
func (c *chunkCursor) copyTo(to *chunkList, end int64) {
	for c.next < end {
		kind, digest := c.at(c.next)
		if kind == chunkData {
			to.add(kind, 1, digest)
			c.next++
			continue
		}
		stop := end
		if c.run < len(c.list) {
			stop = min(end, c.consumed+c.list[c.run].count)
		}
		to.add(kind, stop-c.next, nil)
		c.next = stop
	}
}

func (l chunkList) equal(o chunkList) bool {
	return slices.EqualFunc(l, o, func(a, b chunkRun) bool {
		return a.kind == b.kind && a.count == b.count && bytes.Equal(a.digests, b.digests)
	})
}

// dataCount returns the number of chunks that are no holes.
func (l chunkList) dataCount() (data int64) {
	for _, r := range l {
		if r.kind == chunkData {
			data += r.count
		}
	}
	return data
}

func appendChunks(to, more chunkList) chunkList {
	for _, r := range more {
		to.add(r.kind, r.count, r.digests)
	}
	return to
}

// lengthAt is the length of a chunk of a file of a size.
func lengthAt(chunk, size int64) int64 { return min(chunkSize, size-chunk*chunkSize) }

// forgetLast makes the last chunk an unknown one, unless it is a hole, however long.
func forgetLast(l chunkList) chunkList {
	last := &l[len(l)-1]
	if last.kind != chunkData {
		return l
	}
	last.digests = last.digests[:len(last.digests)-sha256.Size]
	if last.count--; last.count == 0 {
		l = l[:len(l)-1]
	}
	l.add(chunkUnknown, 1, nil)
	return l
}
