package transfer

import (
	"errors"

	"golang.org/x/sys/unix"
)

// applier makes the volumes of a receiver what the frames of a pass say. Frames come in
// the order of the records, so that it reads the manifest of what is there and writes
// that of what will be there side by side. All that is opened is opened in a directory
// that is open already.
type applier struct {
	*Destination
	budget *streamBudget
	base   *manifestReader
	next   *manifestWriter
	// baseVolume is the volume that base is in.
	baseVolume string
	// volume is the one that frames are of; nil before the first.
	volume *openVolume
	copyFD int
	begun  int
	// stack are the directories that the last path is in.
	stack   []*target
	file    *incoming
	scratch []byte
	result  PassResult
}

// target is a directory of a volume, and of the sealed copy.
type target struct {
	rec *record
	// fd and copyFD are open, or -1 as long as nothing changes in the directory.
	fd, copyFD int
	// touched: names or metadata have changed. The metadata, with the time, are applied
	// when all in the directory is done.
	touched bool
}

func (t *target) close() {
	for _, fd := range []int{t.fd, t.copyFD} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	t.fd, t.copyFD = -1, -1
}

func (a *applier) top() *target {
	if len(a.stack) == 0 {
		return nil
	}
	return a.stack[len(a.stack)-1]
}

// begin ends the volume before, and begins the next one.
func (a *applier) begin(number uint64) error {
	if a.file != nil || number != uint64(a.begun) || a.begun >= len(a.volumes) {
		return failure(ReasonCorrupt, "volume %d begins out of turn", number)
	}
	if err := a.finish(); err != nil {
		return err
	}
	a.volume = &a.volumes[a.begun]
	a.begun++
	for {
		r, err := a.base.peek()
		if err != nil || r == nil || r.kind == kindVolume && r.path > a.volume.Name {
			return errors.Join(err, a.next.add(&record{kind: kindVolume, path: a.volume.Name}, signature{}))
		}
		if _, err := a.base.next(); err != nil {
			return err
		}
		if r.kind == kindVolume && r.path == a.volume.Name {
			a.baseVolume = r.path
			return a.next.add(r, signature{})
		}
	}
}

// finish keeps what is left of a volume, and completes its directories.
func (a *applier) finish() error {
	if a.volume == nil {
		return nil
	}
	for {
		r, err := a.base.peek()
		if err != nil {
			return err
		}
		if r == nil || r.kind == kindVolume {
			return a.leaveAll()
		}
		if err := a.keep(r); err != nil {
			return err
		}
	}
}

func (a *applier) leaveAll() error {
	for len(a.stack) > 0 {
		if err := a.leave(); err != nil {
			return err
		}
	}
	return nil
}

// done writes a record that was checked, of what is in the volume now.
func (a *applier) done(r *record, s signature) error {
	a.count(r)
	a.scratch = appendRecord(a.scratch[:0], r)
	return a.next.append(a.scratch, s)
}

func (a *applier) count(r *record) {
	a.result.Files++
	a.result.Bytes += min(r.size, r.chunks.dataCount()*chunkSize)
}

// keep copies the record of a name that stays as it is.
func (a *applier) keep(r *record) error {
	if err := a.leaveUntil(r.path); err != nil {
		return err
	}
	a.count(r)
	if err := a.next.addEncoded(a.base.raw, r, a.base.sig); err != nil {
		return err
	}
	if r.kind == kindDir {
		a.stack = append(a.stack, &target{rec: r, fd: -1, copyFD: -1})
	}
	_, err := a.base.next()
	return err
}

func (a *applier) leaveUntil(path string) error {
	for t := a.top(); t != nil && !isBelow(path, t.rec.path); t = a.top() {
		if err := a.leave(); err != nil {
			return err
		}
	}
	return nil
}

// leave completes a directory: making what is in it changes its time.
func (a *applier) leave() error {
	t := a.top()
	if t.touched {
		if err := a.open(len(a.stack) - 1); err != nil {
			return a.spoiled(t.rec, err)
		}
		if err := applyToOpen(t.fd, t.rec, a.volume.Layer); err != nil {
			return a.spoiled(t.rec, err)
		}
		a.unsynced = true
	}
	t.close()
	a.stack = a.stack[:len(a.stack)-1]
	return nil
}

// open opens the directory at a depth of the stack, and those that it is in.
func (a *applier) open(depth int) error {
	first := depth
	for first > 0 && a.stack[first].fd < 0 {
		first--
	}
	for i := first; i <= depth; i++ {
		t := a.stack[i]
		if t.fd >= 0 {
			continue
		}
		parent, copyParent, name := a.volume.fd, a.copyFD, "."
		if i > 0 {
			parent, copyParent = a.stack[i-1].fd, a.stack[i-1].copyFD
			_, name = splitPath(t.rec.path)
		}
		var err error
		if t.fd, err = openDirectory(parent, name); err != nil {
			t.fd = -1
			return err
		}
		if copyParent < 0 {
			continue
		}
		if t.copyFD, err = openDirectory(copyParent, name); err != nil {
			t.copyFD = -1
			return err
		}
	}
	return nil
}

// place returns the directory that a path is in, open, and what is under the path, which
// is not in the next manifest any more. All that comes before is kept.
func (a *applier) place(path string) (parent *target, base *record, err error) {
	if a.volume == nil || a.file != nil {
		return nil, nil, failure(ReasonCorrupt, "%q comes before a volume or within a file", path)
	}
	for {
		r, err := a.base.peek()
		if err != nil {
			return nil, nil, err
		}
		if r == nil || r.kind == kindVolume || comparePaths(r.path, path) > 0 {
			break
		}
		if r.path == path {
			if _, err := a.base.next(); err != nil {
				return nil, nil, err
			}
			base = r
			break
		}
		if err := a.keep(r); err != nil {
			return nil, nil, err
		}
	}
	if path == "" {
		return nil, base, nil
	}
	if err := a.leaveUntil(path); err != nil {
		return nil, nil, err
	}
	parent = a.top()
	if directory, _ := splitPath(path); parent == nil || parent.rec.path != directory {
		return nil, nil, failure(ReasonCorrupt, "%q is in no directory that came before", path)
	}
	if err := a.open(len(a.stack) - 1); err != nil {
		return nil, nil, a.spoiled(&record{path: path}, err)
	}
	return parent, base, nil
}

// dropBelow skips the records of what was in a path.
func (a *applier) dropBelow(path string) error {
	for {
		r, err := a.base.peek()
		if err != nil || r == nil || r.kind == kindVolume || !isBelow(r.path, path) {
			return err
		}
		if _, err := a.base.next(); err != nil {
			return err
		}
	}
}

// remove removes a path and all in it.
func (a *applier) remove(path string) error {
	if err := checkPath(path); err != nil {
		return err
	}
	parent, base, err := a.place(path)
	if err != nil {
		return err
	}
	if base == nil || path == "" {
		return failure(ReasonCorrupt, "%q is to be removed, and is not there", path)
	}
	if err := a.clear(parent, base); err != nil {
		return a.spoiled(&record{path: path}, err)
	}
	a.result.Removed++
	return a.dropBelow(path)
}

// clear removes what is under the name of a record.
func (a *applier) clear(parent *target, r *record) error {
	parent.touched, a.unsynced = true, true
	_, name := splitPath(r.path)
	if err := removeAll(parent.fd, name); err != nil {
		return err
	}
	if parent.copyFD >= 0 && (r.kind == kindDir || r.kind.hasContent()) {
		return removeAll(parent.copyFD, name)
	}
	return nil
}

// cut ends a pass between two frames: what came of it is in the volumes, and in the
// manifest of what is there.
func (a *applier) cut() (*manifest, error) {
	defer a.close()
	err := a.cutFile()
	if err == nil {
		err = a.leaveAll()
	}
	if err == nil {
		err = copyRest(a.base, a.baseVolume, a.next)
	}
	if err != nil {
		return nil, errors.Join(err, a.next.discard())
	}
	return a.next.finish(a.state)
}

func (a *applier) close() {
	for _, t := range a.stack {
		t.close()
	}
	a.stack = nil
	if a.file != nil {
		_ = a.file.writes.wait() // it ends with another error already
		closeBoth(a.file.fd, a.file.copyFD)
		a.file = nil
	}
}
