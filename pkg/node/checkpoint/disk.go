package checkpoint

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// disk is what makes a checkpoint durable. A test puts one that fails in its place.
type disk struct {
	// sync returns once a file or directory is on stable storage (fsync(2)).
	sync func(*os.File) error
	// drop removes a file from the page cache, so that it is read back from the
	// disk. It is a hint: what cannot be dropped is read from memory.
	drop func(*os.File)
}

func realDisk() disk {
	return disk{
		sync: (*os.File).Sync,
		drop: func(file *os.File) { _ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED) },
	}
}

// directories are those whose names have to be made durable: a file that is on the disk
// is lost all the same when its directory does not know it.
type directories struct {
	mu    sync.Mutex
	names map[string]bool
}

func (d *directories) add(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names == nil {
		d.names = map[string]bool{}
	}
	d.names[name] = true
}

// syncsAtOnce is how many directories and files are synced at the same time: a file
// system with a journal writes them together.
const syncsAtOnce = 16

// sync returns once all are on stable storage. After an error all remain to be synced.
func (d *directories) sync(on disk, root *os.Root) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := make([]string, 0, len(d.names))
	for name := range d.names {
		names = append(names, name)
	}
	slices.Sort(names)
	if err := on.syncAll(root, names); err != nil {
		return err
	}
	d.names = nil
	return nil
}

// syncAll syncs files and directories. What is gone needs it no more.
func (d disk) syncAll(root *os.Root, names []string) error {
	var group errgroup.Group
	group.SetLimit(syncsAtOnce)
	for _, name := range names {
		group.Go(func() error {
			file, err := openPlain(root, name)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			return errors.Join(d.sync(file), file.Close())
		})
	}
	return group.Wait()
}
