package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ai-storage/orchestrator/pkg/node/atomicfile"
)

// seal makes everything durable, and after that says so in the sealed copy.
func (d *Destination) seal(ctx context.Context, a *applier) error {
	if d.sealed == "" {
		if err := d.copy.writeManifest(d.base); err != nil {
			return fmt.Errorf("sealing the copy: %w", err)
		}
		d.unsynced = d.unsynced || d.copy != nil // the manifest was written
		if err := d.waitSync(ctx, d.startSync()); err != nil {
			return err
		}
		if err := d.copy.seal(d.base, d.config.Migration); err != nil {
			return fmt.Errorf("sealing the copy: %w", err)
		}
		if err := atomicfile.Write(d.sealedMark(), strings.NewReader(d.base.digest), 0o600); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sealed, a.result.Sealed = d.base.digest, true
	return nil
}

// waitSync waits for a sync, or for the end of the connection.
func (d *Destination) waitSync(ctx context.Context, syncing <-chan error) error {
	var err error
	select {
	case err = <-syncing:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	d.unsynced = d.unsynced || err != nil
	return err
}

// syncfs is replaced by tests.
var syncfs = unix.Syncfs

// startSync begins to make durable what was written so far, all file systems at the same
// time, and returns where the outcome comes.
func (d *Destination) startSync() <-chan error {
	outcome := make(chan error, 1)
	if !d.unsynced {
		outcome <- nil
		return outcome
	}
	d.unsynced = false
	files, err := d.fileSystems()
	if err != nil {
		outcome <- err
		return outcome
	}
	go func() {
		var group errgroup.Group
		for _, file := range files {
			group.Go(func() error {
				err := syncfs(int(file.Fd()))
				if err != nil {
					err = explainSpace(int(file.Fd()), file.Name(), fmt.Errorf("syncing %s: %w", file.Name(), err))
				}
				return errors.Join(err, file.Close())
			})
		}
		outcome <- group.Wait()
	}()
	return outcome
}

// fileSystems opens a directory of each file system whose content must last, once more:
// a sync that hangs may outlive the Destination.
func (d *Destination) fileSystems() (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, file := range files {
				err = errors.Join(err, file.Close())
			}
			files = nil
		}
	}()
	done := map[uint64]bool{}
	add := func(fd int, name string) error {
		var stat unix.Stat_t
		if err := unix.Fstat(fd, &stat); err != nil || done[stat.Dev] {
			return err
		}
		done[stat.Dev] = true
		own, err := openDirectory(fd, ".")
		if err == nil {
			files = append(files, os.NewFile(uintptr(own), name))
		}
		return err
	}
	for _, v := range d.volumes {
		if v.Transient || v.inMemory {
			continue
		}
		if err := add(v.fd, "volume "+v.Name); err != nil {
			return files, err
		}
	}
	if d.copy != nil {
		return files, add(d.copy.fd, "the sealed copy")
	}
	return files, nil
}
