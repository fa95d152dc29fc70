package transfer

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

type operation byte

const (
	opVolume operation = iota // a volume begins
	opSame                    // rec is as it was
	opPut                     // rec, which has no content
	opSmall                   // a file that a worker reads as a whole
	opOpen                    // a large file, of which chunks and holes follow
	opChunk
	opHoles
	opClose
	opRemove // rec.path is gone
)

// item is one step of a plan.
type item struct {
	op  operation
	rec *record
	// base is what the other side has under the same path, nil for nothing.
	base *record
	sig  signature
	// volume is what it is in, stat what the planner saw.
	volume *openVolume
	stat   unix.Stat_t

	// A small file is opened by a worker.
	directory *directory
	name      string
	file      *openFile
	// sealed, for a small file of a sealed copy, is what it has to be; for a chunk,
	// digest is.
	sealed *record
	digest []byte
	// index and count are those of chunks; have is what the other side has.
	index, count int64
	haveKind     chunkKind
	have         []byte

	// ready is closed by the worker. Then chunk, read and gone or err are set.
	ready  chan struct{}
	buffer []byte
	chunk  chunk
	read   int
	cost   int64
	gone   bool
	err    error
}

// planner makes the plan of a pass.
type planner struct {
	*passage
	ctx   context.Context
	queue chan *item
	work  chan *item
	base  *manifestReader
	links linkTable
}

// put appends an item to the plan.
func (p *planner) put(i *item) error {
	if i.ready != nil {
		select {
		case p.work <- i:
		case <-p.ctx.Done():
			i.err = p.ctx.Err()
			close(i.ready)
			i.free(p.budget)
			return p.ctx.Err()
		}
	}
	select {
	case p.queue <- i:
		return nil
	case <-p.ctx.Done():
		i.free(p.budget)
		return p.ctx.Err()
	}
}

// free waits for the worker and releases what an item holds.
func (i *item) free(budget *streamBudget) {
	if i.ready != nil {
		<-i.ready
	}
	if i.buffer != nil && i.cost == 0 {
		budget.giveBack(i.buffer)
	}
	if i.cost > 0 {
		budget.release(i.cost)
	}
	if i.directory != nil {
		i.directory.release()
	}
	if i.file != nil {
		i.file.release()
	}
	i.buffer, i.cost, i.directory, i.file = nil, 0, nil, nil
}

// all plans volumes, one after the other.
func (p *planner) all(volumes []openVolume) error {
	for i := range volumes {
		if err := p.volume(&volumes[i]); err != nil {
			return fmt.Errorf("volume %s: %w", volumes[i].Name, err)
		}
	}
	return nil
}

// volume plans one volume.
func (p *planner) volume(v *openVolume) error {
	if err := p.beginVolume(v); err != nil {
		return err
	}
	p.links = linkTable{}
	var w walk
	defer w.close()
	fd, err := openDirectory(v.fd, ".")
	if err != nil {
		return err
	}
	if err := p.directory(v, &w, newDirectory(fd, "")); err != nil {
		return err
	}
	for {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		d, name := w.step()
		if d == nil {
			return p.endVolume()
		}
		if err := p.visit(v, &w, d, name); err != nil {
			return fmt.Errorf("%q: %w", joinPath(d.path, name), err)
		}
	}
}

func (p *planner) beginVolume(v *openVolume) error {
	if err := p.put(&item{op: opVolume, rec: &record{kind: kindVolume, path: v.Name}}); err != nil {
		return err
	}
	for {
		r, err := p.base.peek()
		if err != nil || r == nil || r.kind == kindVolume && r.path > v.Name {
			return err
		}
		if _, err := p.base.next(); err != nil || r.kind == kindVolume && r.path == v.Name {
			return err
		}
	}
}

// endVolume plans the removal of what the volume does not have any more.
func (p *planner) endVolume() error {
	for {
		r, err := p.base.peek()
		if err != nil || r == nil || r.kind == kindVolume {
			return err
		}
		if err := p.remove(r.path); err != nil {
			return err
		}
	}
}

// remove plans the removal of a path and drops what the other side has in it.
func (p *planner) remove(path string) error {
	if err := p.dropBelow(path); err != nil {
		return err
	}
	return p.put(&item{op: opRemove, rec: &record{path: path}})
}

// dropBelow skips the base at and below a path.
func (p *planner) dropBelow(path string) error {
	for {
		r, err := p.base.peek()
		if err != nil || r == nil || r.kind == kindVolume || r.path != path && !isBelow(r.path, path) {
			return err
		}
		if _, err := p.base.next(); err != nil {
			return err
		}
	}
}

// find returns what the other side has under a path, after it planned the removal of
// what is gone before it.
func (p *planner) find(path string) (*record, signature, error) {
	for {
		r, err := p.base.peek()
		if err != nil || r == nil || r.kind == kindVolume {
			return nil, signature{}, err
		}
		switch c := comparePaths(r.path, path); {
		case c > 0:
			return nil, signature{}, nil
		case c == 0:
			_, err := p.base.next()
			return r, p.base.sig, err
		}
		if err := p.remove(r.path); err != nil {
			return nil, signature{}, err
		}
	}
}

// visit plans one name.
func (p *planner) visit(v *openVolume, w *walk, d *directory, name string) error {
	path := joinPath(d.path, name)
	if len(path) > maxPath {
		return checkPath(path)
	}
	base, known, err := p.find(path)
	if err != nil {
		return err
	}
	i := &item{rec: &record{path: path}, base: base, name: name, volume: v}
	if err := unix.Fstatat(d.fd, name, &i.stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return p.vanished(i, err)
	}
	carried, err := describe(i.rec, &i.stat, v.Layer)
	if err != nil {
		return err
	}
	if !carried {
		p.result.Skipped++
		return p.vanished(i, nil)
	}
	if i.rec.kind == kindDir {
		fd, err := openDirectory(d.fd, name)
		if err != nil {
			return p.vanished(i, err)
		}
		if err := p.followedBy(i); err != nil {
			return err
		}
		return p.enter(v, w, newDirectory(fd, path), i, known)
	}
	if err := p.dropBelow(path); err != nil {
		return err
	}
	return p.plain(v, d, i, known)
}

// plain plans what is no directory. known is its signature when the base was made.
func (p *planner) plain(v *openVolume, d *directory, i *item, known signature) error {
	path := i.rec.path
	if i.rec.kind == kindFile && i.stat.Nlink > 1 {
		first, err := p.links.first(&i.stat, path)
		if err != nil {
			return err
		}
		if first != "" {
			i.rec = &record{kind: kindLink, path: path, link: first}
			i.op = opPut
			return p.put(i)
		}
	}
	if i.base != nil && i.base.kind == i.rec.kind && p.isKnown(v, known, &i.stat) {
		i.op, i.rec, i.sig = opSame, i.base, known
		return p.put(i)
	}
	switch {
	case i.rec.kind == kindSymlink:
		return p.symlink(d, i)
	case i.rec.kind != kindFile:
		i.op, i.sig = opPut, p.signatureIfSettled(v, &i.stat)
		return p.put(i)
	case i.rec.size <= smallFile:
		i.op, i.directory, i.ready = opSmall, d.hold(), make(chan struct{})
		i.cost = i.rec.size + 1024
		if err := p.budget.acquire(p.ctx, i.cost); err != nil {
			i.directory.release()
			return err
		}
		return p.put(i)
	}
	return p.large(v, d, i)
}

// followedBy drops what the other side has below a path where that is no directory.
func (p *planner) followedBy(i *item) error {
	if i.base != nil && i.base.kind != kindDir {
		return p.dropBelow(i.rec.path)
	}
	return nil
}

// isKnown reports whether a file is still what it was when its record was made.
func (p *planner) isKnown(v *openVolume, known signature, stat *unix.Stat_t) bool {
	return known != signature{} && known == signatureOf(stat) && !v.inMemory
}

// signatureIfSettled is the signature of what was looked at in this moment, and nothing
// where a later change might not show in it.
func (p *passage) signatureIfSettled(v *openVolume, stat *unix.Stat_t) signature {
	if v.inMemory || !isSettled(stat, time.Now()) {
		return signature{}
	}
	return signatureOf(stat)
}

func isSettled(stat *unix.Stat_t, now time.Time) bool {
	return now.Sub(time.Unix(stat.Ctim.Sec, stat.Ctim.Nsec)) > settleTime
}

// vanished plans the removal of a name that is there no more, or not carried.
func (p *planner) vanished(i *item, err error) error {
	if err != nil && !isGone(err) {
		return err
	}
	if err != nil {
		p.disturbed.Store(true)
	}
	if i.base == nil {
		return nil
	}
	return p.remove(i.rec.path)
}

func (p *planner) directory(v *openVolume, w *walk, d *directory) error {
	base, known, err := p.find("")
	i := &item{rec: &record{path: ""}, base: base}
	if err == nil {
		err = unix.Fstat(d.fd, &i.stat)
	}
	if err != nil {
		d.release()
		return err
	}
	return p.enter(v, w, d, i, known)
}

// enter plans a directory that is open, and makes the walk continue in it.
func (p *planner) enter(v *openVolume, w *walk, d *directory, i *item, known signature) (err error) {
	defer func() {
		if err != nil {
			d.release()
		}
	}()
	if err := unix.Fstat(d.fd, &i.stat); err != nil {
		return err
	}
	if _, err := describe(i.rec, &i.stat, v.Layer); err != nil {
		return err
	}
	if i.base != nil && i.base.kind == kindDir && p.isKnown(v, known, &i.stat) {
		i.op, i.rec, i.sig = opSame, i.base, known
	} else {
		if i.rec.xattrs, err = readXattrs(d.fd, v.Layer); err != nil {
			return err
		}
		i.op, i.sig = opPut, p.signatureIfSettled(v, &i.stat)
	}
	if err := p.put(i); err != nil {
		return err
	}
	if err := w.enter(d); err != nil {
		d.hold() // the walk has it by now, and releases it
		return err
	}
	return nil
}

func (p *planner) symlink(d *directory, i *item) error {
	handle, err := openHandle(d.fd, i.name, &i.stat)
	if err != nil {
		return p.vanished(i, err)
	}
	defer unix.Close(handle)
	if i.stat.Mode&unix.S_IFMT != unix.S_IFLNK {
		return p.vanished(i, errKind)
	}
	if _, err := describe(i.rec, &i.stat, false); err != nil {
		return err
	}
	var target [maxLink + 1]byte
	n, err := unix.Readlinkat(handle, "", target[:])
	if err != nil {
		return p.vanished(i, err)
	}
	i.op, i.rec.link = opPut, string(target[:n])
	return p.put(i)
}
