package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Reader restores volumes from a claim. Nothing else may use the volumes
// meanwhile. Its methods must not be called at the same time.
type Reader struct {
	claim     *os.Root
	migration types.UID
	volumes   []restoredVolume
	disk      disk
}

type restoredVolume struct {
	name string
	root *os.Root
	// layer is Volume.Layer, transient Volume.Transient.
	layer, transient bool
	// known are the chunks of files that were restored and verified, by path.
	known map[string][][]byte
	// synced are the names that this reader knows to be on the disk as they were
	// restored last.
	synced map[string]bool
}

// OpenReader prepares the restoring of volumes. It fails where the claim or a volume
// is not there, and leaves nothing open then.
func OpenReader(claimDir string, migration types.UID, volumes []Volume) (r *Reader, err error) {
	if !v1alpha1.IsUID(string(migration)) {
		return nil, failure(ReasonFailed, "%q is no UID", migration)
	}
	claim, err := os.OpenRoot(claimDir)
	if err != nil {
		return nil, fmt.Errorf("opening the claim: %w", err)
	}
	r = &Reader{claim: claim, migration: migration, disk: realDisk()}
	for _, v := range volumes {
		root, err := os.OpenRoot(v.Dir)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("opening volume %s: %w", v.Name, err), r.Close())
		}
		r.volumes = append(r.volumes, restoredVolume{name: v.Name, root: root, layer: v.Layer, transient: v.Transient, known: map[string][][]byte{}, synced: map[string]bool{}})
	}
	return r, nil
}

// Close closes the claim and the volumes.
func (r *Reader) Close() error {
	err := r.claim.Close()
	for _, v := range r.volumes {
		err = errors.Join(err, v.root.Close())
	}
	return err
}

// Restore restores the last complete pass, so that little is left to do when the
// checkpoint is sealed. ReasonNoManifest says that there is none yet, and
// ReasonCorrupt that the next pass is being written: both pass. The first progress
// is of nothing: there is a pass.
func (r *Reader) Restore(ctx context.Context, progress func(Progress)) (PassResult, error) {
	m, digest, err := readManifest(r.claim, r.migration)
	if err != nil {
		return PassResult{}, err
	}
	if progress != nil {
		progress(Progress{})
	}
	return r.restore(ctx, m, digest, progress)
}

// RestoreSealed makes the volumes equal to the sealed manifest with this digest
// and to nothing else. ReasonCorrupt names the first file that is not what was
// written, ReasonNoManifest that there is none, ReasonNoSpace a volume that is full.
// After an error the volumes hold a part of the checkpoint; the next call restores
// the rest.
func (r *Reader) RestoreSealed(ctx context.Context, digest string, progress func(Progress)) (PassResult, error) {
	m, found, err := readManifest(r.claim, r.migration)
	if err != nil {
		return PassResult{}, err
	}
	if found != digest || !m.Sealed {
		return PassResult{}, failure(ReasonCorrupt, "the manifest on the claim has digest %s, want the sealed one with %s", found, digest)
	}
	return r.restore(ctx, m, digest, progress)
}

// restoring is one restoration of all volumes.
type restoring struct {
	*Reader
	progress              func(Progress)
	bytes, files, written atomic.Int64
	removed               int64
}

func (r *Reader) restore(ctx context.Context, m *manifest, digest string, progress func(Progress)) (PassResult, error) {
	job := &restoring{Reader: r, progress: progress}
	for i := range r.volumes {
		v := &r.volumes[i]
		described := m.volume(v.name)
		if described == nil {
			return PassResult{}, failure(ReasonCorrupt, "volume %s is not in the checkpoint", v.name)
		}
		if err := job.volume(ctx, v, described.Entries); err != nil {
			return PassResult{}, explainSpace(v.root, "volume "+v.name, fmt.Errorf("restoring volume %s: %w", v.name, err))
		}
	}
	return PassResult{Pass: m.Pass, Digest: digest, Bytes: job.bytes.Load(), Files: job.files.Load(), Written: job.written.Load(), Removed: job.removed}, nil
}

func (r *restoring) volume(ctx context.Context, v *restoredVolume, entries []entry) error {
	if err := r.removeSurplus(ctx, v, entries); err != nil {
		return err
	}
	for i := range entries {
		if err := r.prepare(v, &entries[i]); err != nil {
			return fmt.Errorf("making %q: %w", entries[i].name(), err)
		}
	}
	if err := r.contents(ctx, v, entries); err != nil {
		return err
	}
	for i := range entries {
		if e := &entries[i]; e.Type == typeLink {
			if err := link(v.root, e); err != nil {
				return fmt.Errorf("linking %q: %w", e.name(), err)
			}
		}
	}
	if err := r.metadata(v, entries); err != nil {
		return err
	}
	r.files.Add(int64(len(entries)))
	return nil
}

// metadata completes what was made, and returns once it is on the disk: the original
// ends after it, and no restart of this node may take away what the application had
// synced. That of a directory changes with the names in it.
func (r *restoring) metadata(v *restoredVolume, entries []entry) error {
	var unsynced []string
	// Backwards: making what is in a directory changes the time of the directory.
	for i := range slices.Backward(entries) {
		e := &entries[i]
		if e.Type == typeLink {
			continue
		}
		changed, err := applyMetadata(v.root, e, v.layer)
		if err != nil {
			return fmt.Errorf("restoring owner and mode of %q: %w", e.name(), err)
		}
		if isPlain := e.Type == typeDir || e.Type == typeFile; isPlain && !v.transient && (changed || !v.synced[e.name()]) {
			delete(v.synced, e.name())
			unsynced = append(unsynced, e.name())
		}
	}
	if err := r.disk.syncAll(v.root, unsynced); err != nil {
		return fmt.Errorf("syncing: %w", err)
	}
	for _, name := range unsynced {
		v.synced[name] = true
	}
	return nil
}

// removeSurplus removes what is not in the checkpoint, or is something else there.
func (r *restoring) removeSurplus(ctx context.Context, v *restoredVolume, entries []entry) error {
	wanted := make(map[string]*entry, len(entries))
	for i := range entries {
		wanted[entries[i].name()] = &entries[i]
	}
	var surplus []string
	err := walk(ctx, v.root, ".", func(name string, stat *unix.Stat_t) error {
		if e := wanted[name]; name != "." && (e == nil || !isKind(e, stat)) {
			surplus = append(surplus, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range surplus {
		if err := v.root.RemoveAll(name); err != nil {
			return err
		}
		delete(v.known, name)
		delete(v.synced, name)
		r.removed++
	}
	return nil
}

// isKind reports whether a name can be made into the entry as it is. A file
// that has other names now is created again: which names belong together is decided
// by the entries.
func isKind(e *entry, stat *unix.Stat_t) bool {
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return e.Type == typeDir
	case unix.S_IFREG:
		return e.Type == typeFile && stat.Nlink == 1
	}
	return false
}

// prepare makes directories, symbolic links and FIFOs. Directories can be entered by
// root alone until their metadata is applied.
func (r *restoring) prepare(v *restoredVolume, e *entry) error {
	name := e.name()
	switch e.Type {
	case typeDir:
		if name == "." {
			return nil
		}
		if err := v.root.Mkdir(name, 0o700); !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case typeSymlink:
		return v.root.Symlink(string(e.Link), name)
	case typeFIFO:
		return inParent(v.root, name, func(parent int, base string) error { return unix.Mkfifoat(parent, base, 0o600) })
	case typeWhiteout:
		if v.layer {
			return inParent(v.root, name, func(parent int, base string) error { return unix.Mknodat(parent, base, unix.S_IFCHR, 0) })
		}
	case typeFile, typeLink:
		return nil
	}
	return failure(ReasonCorrupt, "the manifest calls it a %q", e.Type)
}

func link(root *os.Root, e *entry) error {
	return root.Link(string(e.Link), e.name())
}

// contents restores the content of files, on all processors.
func (r *restoring) contents(ctx context.Context, v *restoredVolume, entries []entry) error {
	base := path.Join(string(r.migration), volumesName, v.name)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	var mu sync.Mutex
	for i := range entries {
		e := &entries[i]
		if e.Type != typeFile {
			continue
		}
		mu.Lock()
		known, isKnown := v.known[e.name()]
		mu.Unlock()
		if !isThere(v.root, e.name()) {
			known, isKnown = nil, false
		}
		if isKnown && slices.EqualFunc(known, e.Chunks, slices.Equal) && isAsLong(v.root, e) {
			r.count(e)
			continue
		}
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			err := r.file(ctx, v, path.Join(base, e.name()), e, known)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				delete(v.known, e.name())
				return fmt.Errorf("%q: %w", e.name(), err)
			}
			v.known[e.name()], v.synced[e.name()] = e.Chunks, true
			r.count(e)
			return nil
		})
	}
	return group.Wait()
}

// isThere reports whether a file that was restored before still exists. What is
// known of it says nothing about another one.
func isThere(root *os.Root, name string) bool {
	_, err := lstat(root, name)
	return err == nil
}

func isAsLong(root *os.Root, e *entry) bool {
	stat, err := lstat(root, e.name())
	return err == nil && stat.Size == e.Size
}

func (r *restoring) count(e *entry) {
	bytes := r.bytes.Add(e.Size)
	if r.progress != nil {
		r.progress(Progress{Bytes: bytes, Files: r.files.Load()})
	}
}

// file restores one file with its metadata, and syncs it and reads back what it wrote
// where that must last. Each chunk is compared with its digest before it is written.
func (r *restoring) file(ctx context.Context, v *restoredVolume, from string, e *entry, known [][]byte) error {
	if int64(len(e.Chunks)) != chunkCount(e.Size) {
		return failure(ReasonCorrupt, "the manifest has %d chunks for %d bytes", len(e.Chunks), e.Size)
	}
	source, stat, err := openRegular(r.claim, from, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return failure(ReasonCorrupt, "its content is not on the claim")
	}
	if err != nil {
		return fmt.Errorf("its content on the claim: %w", err)
	}
	defer source.Close()
	if stat.Size != e.Size {
		return failure(ReasonCorrupt, "its content on the claim is no file of %d bytes", e.Size)
	}
	into, _, err := openRegular(v.root, e.name(), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	defer into.Close()
	job := content{from: source, to: into, size: e.Size, known: allKnown(known), want: e.Chunks}
	done, err := job.run(ctx)
	r.written.Add(done.written)
	if ReasonOf(err) == ReasonChanged {
		return failure(ReasonCorrupt, "its content on the claim is too short")
	}
	if err != nil || v.transient {
		return err
	}
	if _, err := applyMetadata(v.root, e, v.layer); err != nil {
		return fmt.Errorf("restoring owner and mode: %w", err)
	}
	if err := r.disk.sync(into); err != nil {
		return fmt.Errorf("syncing: %w", err)
	}
	return r.disk.verify(ctx, into, e.Size, done)
}
