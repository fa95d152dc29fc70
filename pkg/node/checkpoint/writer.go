package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Progress is how far a pass is.
type Progress struct {
	Bytes, Files int64
}

// PassResult is what a pass found and did.
type PassResult struct {
	// Pass counts from 1.
	Pass int32
	// Bytes (allocated) and Files are what the volumes hold.
	Bytes, Files int64
	// Written bytes, and names Removed because they are no longer there.
	Written, Removed int64
	// Digest of the manifest.
	Digest string
	// Skipped are sockets, which cannot be carried.
	Skipped int64
}

// Writer copies volumes to a claim. Its methods must not be called at the same time.
type Writer struct {
	claim     *os.Root
	migration types.UID
	volumes   []sourceVolume
	pass      int32
	last      *manifest
	// clean: nothing changed while the last pass ran.
	clean bool
	disk  disk
	// unsynced are the directories of the claim in which names came or went.
	unsynced directories
}

// sourceVolume is what a Writer knows of one volume.
type sourceVolume struct {
	name string
	root *os.Root
	// layer is Volume.Layer, transient Volume.Transient.
	layer, transient bool
	// inMemory is true for a tmpfs. It has no writeback, after which a store to a
	// mapped page changes the time of the file again: files are always compared.
	inMemory bool
	// known are the files as they were copied, by path.
	known map[string]*knownFile
}

// knownFile is a file that is on the claim.
type knownFile struct {
	entry entry
	// signature of the source when it was copied; nil when it was changing.
	signature *signature
}

// signature changes whenever a file or its metadata does: the kernel sets the
// change time, and no program can set it back.
type signature struct {
	ino          uint64
	size         int64
	mtime, ctime unix.Timespec
}

// settleTime is how long after its last change a file can be distinguished from
// one that has changed again: the clock of file systems ticks every 4 to 10 ms.
const settleTime = 50 * time.Millisecond

// isSettled reports whether a change after this moment shows in the signature.
func (s *signature) isSettled(now time.Time) bool {
	return now.Sub(time.Unix(s.ctime.Unix())) > settleTime
}

func isInMemory(root *os.Root) (bool, error) {
	directory, err := root.Open(".")
	if err != nil {
		return false, err
	}
	defer directory.Close()
	var stat unix.Statfs_t
	err = unix.Fstatfs(int(directory.Fd()), &stat)
	return stat.Type == unix.TMPFS_MAGIC, err
}

func signatureOf(stat *unix.Stat_t) *signature {
	return &signature{ino: stat.Ino, size: stat.Size, mtime: stat.Mtim, ctime: stat.Ctim}
}

// OpenWriter prepares the directory of a migration on a claim, and removes those of
// earlier migrations. It fails where the claim or a volume is not there, and leaves
// nothing open then.
func OpenWriter(claimDir string, migration types.UID, volumes []Volume) (*Writer, error) {
	if !v1alpha1.IsUID(string(migration)) {
		return nil, failure(ReasonFailed, "%q is no UID", migration)
	}
	claim, err := os.OpenRoot(claimDir)
	if err != nil {
		return nil, fmt.Errorf("opening the claim: %w", err)
	}
	w := &Writer{claim: claim, migration: migration, disk: realDisk()}
	if err := w.open(volumes); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *Writer) open(volumes []Volume) error {
	directory := string(w.migration)
	if err := w.removeEarlier(); err != nil {
		return fmt.Errorf("removing the checkpoints of earlier migrations: %w", err)
	}
	for _, name := range []string{directory, path.Join(directory, volumesName)} {
		if err := w.makeDirectory(name); err != nil {
			return err
		}
	}
	// Only the number continues: what an interrupted pass left in the files is not
	// known, so they are all written again.
	if earlier, _, err := readManifest(w.claim, w.migration); err == nil {
		w.pass = earlier.Pass
	}
	for _, v := range volumes {
		root, err := os.OpenRoot(v.Dir)
		if err != nil {
			return fmt.Errorf("opening volume %s: %w", v.Name, err)
		}
		source := sourceVolume{name: v.Name, root: root, layer: v.Layer, transient: v.Transient, known: map[string]*knownFile{}}
		w.volumes = append(w.volumes, source)
		if source.inMemory, err = isInMemory(root); err != nil {
			return fmt.Errorf("opening volume %s: %w", v.Name, err)
		}
		w.volumes[len(w.volumes)-1] = source
	}
	return nil
}

// Close closes the claim and the volumes.
func (w *Writer) Close() error {
	err := w.claim.Close()
	for _, v := range w.volumes {
		err = errors.Join(err, v.root.Close())
	}
	return err
}

func (w *Writer) removeEarlier() error {
	names, err := list(w.claim, ".")
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == string(w.migration) || !v1alpha1.IsUID(name) {
			continue
		}
		// A directory of the user may be named like that too.
		if stat, err := lstat(w.claim, path.Join(name, volumesName)); err != nil || stat.Uid != 0 {
			continue
		}
		w.unsynced.add(".")
		if err := w.claim.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}

// makeDirectory makes a directory on the claim that root alone can enter. Whatever else
// has its name goes.
func (w *Writer) makeDirectory(name string) error {
	stat, err := lstat(w.claim, name)
	if err == nil && stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	w.unsynced.add(path.Dir(name))
	if err == nil {
		err = w.claim.RemoveAll(name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return w.claim.Mkdir(name, 0o700)
}

// Seal makes the last pass the final one, and returns the digest of its
// manifest. It fails with ReasonChanged when anything changed while that pass
// ran, which then was not of a frozen pod, with ReasonNoManifest when the last pass
// failed, and with ReasonNoSpace. After an error the manifest may be sealed on the claim
// all the same: only the digest that is returned makes it count.
func (w *Writer) Seal(ctx context.Context) (digest string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if w.last == nil {
		return "", failure(ReasonNoManifest, "there is no complete pass to seal")
	}
	if !w.clean {
		return "", failure(ReasonChanged, "files changed while the last pass ran")
	}
	w.last.Sealed = true
	digest, err = w.disk.writeManifest(w.claim, w.last)
	if err != nil {
		return "", w.explain(err)
	}
	return digest, nil
}

// explain adds the figures to an error for want of space.
func (w *Writer) explain(err error) error { return explainSpace(w.claim, "the claim", err) }

func explainSpace(root *os.Root, what string, err error) error {
	if ReasonOf(err) != ReasonNoSpace {
		return err
	}
	directory, openErr := root.Open(".")
	if openErr != nil {
		return &Error{Reason: ReasonNoSpace, Err: fmt.Errorf("%s is full: %w", what, err)}
	}
	defer directory.Close()
	var stat unix.Statfs_t
	if statErr := unix.Fstatfs(int(directory.Fd()), &stat); statErr != nil {
		return &Error{Reason: ReasonNoSpace, Err: fmt.Errorf("%s is full: %w", what, err)}
	}
	return &Error{Reason: ReasonNoSpace, Err: fmt.Errorf("%s is full: %d of %d bytes are free: %w", what,
		int64(stat.Bavail)*stat.Bsize, int64(stat.Blocks)*stat.Bsize, err)}
}
