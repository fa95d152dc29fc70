package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Destination receives volumes.
type Destination struct {
	config  DestinationConfig
	state   string
	boot    string
	hash    *hasher
	volumes []openVolume
	copy    *sealedCopy
	// release lets others write where this one has written.
	release func()

	// turn has a token for the connection that is being served.
	turn chan struct{}
	mu   sync.Mutex
	// supersede ends the connection that is being served; nil when there is none.
	supersede context.CancelCauseFunc
	closed    bool

	// What follows is of whoever has the turn. base is what is in the volumes, nil when
	// that is not known.
	base *manifest
	// unsynced: something was written since the last sync.
	unsynced bool
	sealed   string
	passes   int64
}

// DestinationConfig is what a Destination is made of.
type DestinationConfig struct {
	Migration types.UID
	// Volumes are those of the replacement, or a place where they wait. Nothing else may
	// write them until the Destination is closed.
	Volumes []Volume
	// State is a directory of this attempt of the migration alone that root alone can
	// enter, about 100 bytes for each file and 33 for 4 MiB. Once it says that the volumes
	// are sealed they are not written any more: another attempt needs another directory.
	State string
	// Copy, when set, is where a sealed copy is made.
	Copy *Copy
	// Passed, which may be nil, is called after each complete pass. The sender waits.
	Passed func(PassResult)
	// Progress, which may be nil, is called about once a second during a pass.
	Progress func(Progress)
}

// OpenDestination opens the volumes and finds out what is in them: of an earlier
// Destination with the same state that was closed, or cut off between two frames, what it
// knew is compared by times and inode numbers; all else is read. It leaves nothing open
// after an error.
func OpenDestination(ctx context.Context, config DestinationConfig) (*Destination, error) {
	return abandonable(ctx, func() (*Destination, error) { return openDestination(ctx, config) }, func(d *Destination) {
		if d != nil {
			_ = d.Close()
		}
	})
}

func openDestination(ctx context.Context, config DestinationConfig) (d *Destination, err error) {
	if !v1alpha1.IsUID(string(config.Migration)) {
		return nil, failure(ReasonFailed, "%q is no UID of a migration", config.Migration)
	}
	d = &Destination{config: config, state: config.State, turn: make(chan struct{}, 1)}
	if d.release, err = occupy(config.places()...); err != nil {
		return nil, err
	}
	if err := d.open(); err != nil {
		d.release()
		return nil, err
	}
	if err := d.inventory(ctx); err != nil {
		return nil, errors.Join(explainState(d.state, err), d.Close())
	}
	return d, nil
}

// places are the directories that are written.
func (c *DestinationConfig) places() []string {
	all := []string{filepath.Clean(c.State)}
	for _, v := range c.Volumes {
		all = append(all, filepath.Join(v.Root, v.Path))
	}
	if c.Copy != nil {
		all = append(all, filepath.Join(c.Copy.Root, c.Copy.Path))
	}
	return all
}

// open opens volumes and copy. It leaves nothing open after an error.
func (d *Destination) open() (err error) {
	config := &d.config
	if d.boot, err = prepareState(config.State); err != nil {
		return err
	}
	// Others may be able to write the copy: its digests have no key.
	if d.hash, err = loadHash(config.State, config.Copy != nil); err != nil {
		return err
	}
	if d.volumes, err = openVolumes(config.Volumes); err != nil {
		return err
	}
	if config.Copy != nil {
		if d.copy, err = openCopy(*config.Copy, d.volumes); err != nil {
			closeVolumes(d.volumes)
			return fmt.Errorf("opening the place for the sealed copy: %w", err)
		}
	}
	return nil
}

// inventory finds out what is in the volumes.
func (d *Destination) inventory(ctx context.Context) error {
	known, err := loadManifest(d.state)
	if err != nil {
		return err
	}
	isKnown := known != nil && known.origin == d.origin()
	copyIsKnown := isKnown && d.copy.isOf(known.digest)
	mark, err := os.ReadFile(d.sealedMark())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !isKnown {
		if known, err = d.emptyManifest(); err != nil {
			return err
		}
	}
	base, err := d.readVolumes(ctx, known)
	if err != nil {
		return err
	}
	if d.copy != nil && len(mark) == 0 && (!copyIsKnown || base.digest != known.digest) {
		if err := d.copy.fill(ctx, base, d.volumes); err != nil {
			return fmt.Errorf("copying what is there: %w", err)
		}
	}
	if len(mark) > 0 {
		if string(mark) != base.digest {
			return failure(ReasonChanged, "the volumes were sealed with digest %s, and have %s now", mark, base.digest)
		}
		d.mu.Lock()
		d.sealed = base.digest
		d.mu.Unlock()
	}
	d.base, d.unsynced = base, true
	return nil
}

// readVolumes makes a manifest of what is in the volumes. What is known already is not read.
func (d *Destination) readVolumes(ctx context.Context, known *manifest) (*manifest, error) {
	next, err := createManifest(d.state, d.origin())
	if err != nil {
		return nil, err
	}
	p := &passage{still: true, budget: receiveBuffers.share(), hash: d.hash}
	defer p.budget.close()
	err = p.run(ctx, known, next, func(p *planner) error { return p.all(d.volumes) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("finding out what is there: %w", err), next.discard())
	}
	return next.finish(d.state)
}

func (d *Destination) origin() string { return originOf(d.boot, d.hash) }

// sealedMark is a file of the state directory with the digest that the volumes were
// sealed with.
func (d *Destination) sealedMark() string { return filepath.Join(d.state, "sealed") }

func (d *Destination) emptyManifest() (*manifest, error) {
	w, err := createManifest(d.state, d.origin())
	if err != nil {
		return nil, err
	}
	return w.finish(d.state)
}

// Sealed returns the digest of the sealed manifest; "" until the last pass has ended.
func (d *Destination) Sealed() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sealed
}

var errSuperseded = failure(ReasonDisconnected, "a new connection has taken the place of this one")

// Close ends the connection that is being served, and returns when nothing is written any
// more. What was sealed stays as it is. Where a storage does not answer it returns an error
// after a few seconds, and a system call that has begun may still write when it does.
func (d *Destination) Close() error {
	d.mu.Lock()
	closed := d.closed
	d.closed = true
	if d.supersede != nil {
		d.supersede(failure(ReasonDisconnected, "the receiver was closed"))
	}
	d.mu.Unlock()
	if closed {
		return nil
	}
	return briefly(func() error {
		defer d.release()
		d.turn <- struct{}{}
		err := error(nil)
		if d.base != nil && d.sealed == "" {
			err = d.copy.remember(d.base.digest)
		}
		closeVolumes(d.volumes)
		return errors.Join(err, d.copy.close())
	})
}

// takeTurn ends the connection before and waits for its end.
func (d *Destination) takeTurn(ctx context.Context, cancel context.CancelCauseFunc) (end func(), err error) {
	d.mu.Lock()
	if d.supersede != nil {
		d.supersede(errSuperseded)
	}
	d.mu.Unlock()
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		<-d.turn
		return nil, failure(ReasonRefused, "the receiver is closed")
	}
	d.supersede = cancel
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.supersede = nil
		<-d.turn
	}, nil
}
