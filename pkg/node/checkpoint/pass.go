package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// pass is one pass over all volumes.
type pass struct {
	*Writer
	// frozen: the pod does not run.
	frozen   bool
	progress func(Progress)
	result   PassResult

	bytes, files, written atomic.Int64
	// disturbed: something changed meanwhile.
	disturbed atomic.Bool
}

// Pass copies what changed since the last one and writes a manifest. Files that
// change or vanish meanwhile are taken up by the next pass. frozen says that the pod
// is, so that this pass can be sealed. progress may be nil; it is called from several
// goroutines.
//
// After an error there is nothing to seal; the manifest of an earlier pass stays,
// but for a failure to sync its directory. Reasons: ReasonNoSpace, ReasonCorrupt where
// something read back differently, ReasonUnsupportedFile, or ReasonFailed, also when the
// context ended.
func (w *Writer) Pass(ctx context.Context, frozen bool, progress func(Progress)) (PassResult, error) {
	p := &pass{Writer: w, frozen: frozen, progress: progress}
	m := &manifest{Format: format, Migration: w.migration, Pass: w.pass + 1}
	w.last = nil
	for i := range w.volumes {
		volume, err := p.copyVolume(ctx, &w.volumes[i])
		if err != nil {
			return p.result, w.explain(fmt.Errorf("volume %s: %w", w.volumes[i].name, err))
		}
		m.Volumes = append(m.Volumes, *volume)
	}
	if err := w.unsynced.sync(w.disk, w.claim); err != nil {
		return p.result, w.explain(err)
	}
	digest, err := w.disk.writeManifest(w.claim, m)
	if err != nil {
		return p.result, w.explain(err)
	}
	w.pass, w.last, w.clean = m.Pass, m, !p.disturbed.Load()
	p.result.Pass, p.result.Digest = m.Pass, digest
	p.result.Bytes, p.result.Files, p.result.Written = p.bytes.Load(), p.files.Load(), p.written.Load()
	return p.result, nil
}

// found is one name of a volume, before its content was copied.
type found struct {
	entry entry
	stat  unix.Stat_t
	// gone: it vanished.
	gone bool
}

func (p *pass) copyVolume(ctx context.Context, v *sourceVolume) (*volumeManifest, error) {
	scanned, err := p.scan(ctx, v)
	if err != nil {
		return nil, err
	}
	base := path.Join(string(p.migration), volumesName, v.name)
	if err := p.clear(ctx, base, scanned); err != nil {
		return nil, err
	}
	if err := p.copyFiles(ctx, v, base, scanned); err != nil {
		return nil, err
	}
	volume := &volumeManifest{Name: v.name}
	present := map[string]*knownFile{}
	for i := range scanned {
		f := &scanned[i]
		if f.gone {
			continue
		}
		volume.Entries = append(volume.Entries, f.entry)
		if known := v.known[f.entry.name()]; known != nil && f.entry.Type == typeFile {
			present[f.entry.name()] = known
		}
	}
	v.known = present
	return volume, nil
}

// scan lists what the volume holds.
func (p *pass) scan(ctx context.Context, v *sourceVolume) ([]found, error) {
	var all []found
	first := map[uint64]string{}
	err := walk(ctx, v.root, ".", func(name string, stat *unix.Stat_t) error {
		e, err := p.look(v, name, stat)
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EINVAL):
			p.disturbed.Store(true) // gone, or something else by now
			return nil
		case err != nil:
			return fmt.Errorf("reading %q: %w", name, err)
		case e == nil:
			p.result.Skipped++
			return nil
		}
		if e.Type == typeFile && stat.Nlink > 1 {
			if earlier, linked := first[stat.Ino]; linked {
				e = &entry{Path: e.Path, Type: typeLink, Link: []byte(earlier)}
			} else {
				first[stat.Ino] = name
			}
		}
		p.count(e, stat)
		all = append(all, found{entry: *e, stat: *stat})
		return nil
	})
	return all, err
}

// look describes a name; what is known to be unchanged is not read again.
func (p *pass) look(v *sourceVolume, name string, stat *unix.Stat_t) (*entry, error) {
	if known := v.known[name]; known != nil && known.signature != nil && stat.Mode&unix.S_IFMT == unix.S_IFREG && *known.signature == *signatureOf(stat) {
		e := known.entry
		return &e, nil
	}
	return describe(v.root, name, stat, v.layer)
}

func (p *pass) count(e *entry, stat *unix.Stat_t) {
	if e.Type != typeLink {
		p.bytes.Add(stat.Blocks * 512)
	}
	p.files.Add(1)
	if p.progress != nil {
		p.progress(Progress{Bytes: p.bytes.Load(), Files: p.files.Load()})
	}
}

// clear makes the directories of a volume on the claim, and removes what is there
// and no longer in the volume, or was something else.
func (p *pass) clear(ctx context.Context, base string, scanned []found) error {
	wanted := map[string]entryType{}
	for i := range scanned {
		if t := scanned[i].entry.Type; t == typeDir || t == typeFile {
			wanted[path.Join(base, scanned[i].entry.name())] = t
		}
	}
	if err := p.makeDirectory(base); err != nil {
		return err
	}
	var surplus []string
	err := walk(ctx, p.claim, base, func(name string, stat *unix.Stat_t) error {
		kind := entryType("")
		switch stat.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			kind = typeDir
		case unix.S_IFREG:
			kind = typeFile
		}
		if wanted[name] != kind || kind == "" {
			surplus = append(surplus, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range surplus {
		p.unsynced.add(path.Dir(name))
		if err := p.claim.RemoveAll(name); err != nil {
			return err
		}
		p.result.Removed++
	}
	for i := range scanned {
		if scanned[i].entry.Type == typeDir {
			if err := p.makeDirectory(path.Join(base, scanned[i].entry.name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyFiles copies the content of files that changed, on all processors.
func (p *pass) copyFiles(ctx context.Context, v *sourceVolume, base string, scanned []found) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	var mu sync.Mutex
	for i := range scanned {
		f := &scanned[i]
		mu.Lock()
		known := v.known[f.entry.name()]
		mu.Unlock()
		if f.entry.Type != typeFile || known != nil && known.signature != nil && *known.signature == *signatureOf(&f.stat) {
			continue
		}
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			updated, err := p.copyFile(ctx, v, path.Join(base, f.entry.name()), f, known)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, errGone) {
				// Its content on the claim goes with the next pass.
				f.gone = true
				delete(v.known, f.entry.name())
				p.disturbed.Store(true)
				return nil
			}
			if err != nil {
				// What is on the claim now is not known.
				delete(v.known, f.entry.name())
				return fmt.Errorf("copying %q: %w", f.entry.name(), err)
			}
			v.known[f.entry.name()] = updated
			return nil
		})
	}
	return group.Wait()
}

// errGone says that a file vanished, or became something else.
var errGone = errors.New("the file is gone")

func (p *pass) copyFile(ctx context.Context, v *sourceVolume, to string, f *found, known *knownFile) (*knownFile, error) {
	from, before, err := openSame(v.root, f)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	into, there, err := openRegular(p.claim, to, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	defer into.Close()
	if known == nil {
		p.unsynced.add(path.Dir(to))
	}
	if !p.frozen && !v.inMemory {
		// Stores to mapped pages change the time of a file once, until the pages
		// are written back.
		if err := from.Sync(); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	job := content{from: from, to: into, size: before.size}
	if known != nil {
		job.known = allKnown(known.entry.Chunks)
	}
	done, err := job.run(ctx)
	p.written.Add(done.written)
	if ReasonOf(err) == ReasonChanged {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	// One without content, or cut at the end of a chunk, has no chunk that was written.
	if len(done.changed) > 0 || known == nil || there.Size != before.size {
		if err := p.finish(ctx, v, into, before.size, done); err != nil {
			return nil, err
		}
	}
	f.entry.Size, f.entry.Chunks = before.size, done.chunks
	updated := &knownFile{entry: f.entry}
	var after unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &after); err != nil {
		return nil, err
	}
	switch {
	case *signatureOf(&after) != *before:
		p.disturbed.Store(true)
	case before.isSettled(began) && !v.inMemory:
		updated.signature = before
	}
	return updated, nil
}

// finish makes what was written to the claim durable, and reads it back.
func (p *pass) finish(ctx context.Context, v *sourceVolume, into *os.File, size int64, done copied) error {
	if v.transient {
		return into.Close() // a network file system sends it now
	}
	if err := p.disk.sync(into); err != nil {
		return err
	}
	return p.disk.verify(ctx, into, size, done)
}

// openSame opens the file that was scanned. The signature is the one from the
// scan: what the entry says was read then.
func openSame(root *os.Root, f *found) (*os.File, *signature, error) {
	file, err := openPlain(root, f.entry.name())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, nil, errGone
	}
	if err != nil {
		return nil, nil, err
	}
	var now unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &now); err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	if now.Ino != f.stat.Ino || now.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, nil, errors.Join(errGone, file.Close())
	}
	before := signatureOf(&f.stat)
	before.size = now.Size
	return file, before, nil
}
