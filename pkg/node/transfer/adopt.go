package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/node/atomicfile"
)

// Adopt gives volumes that wait, into which a Destination has written and which nothing
// writes any more, to a pod: its volumes have what waited, and nothing else. Names are
// moved; where that cannot be, since the two are on different file systems or in different
// project quotas, what they are of is copied. It is durable when Adopt returns. After an error the
// next call, with the same state directory, does the rest; another volume may be done by then.
func Adopt(ctx context.Context, migration types.UID, waiting, volumes []Volume, state string) error {
	_, err := abandonable(ctx, func() (struct{}, error) { return struct{}{}, adopt(ctx, migration, waiting, volumes, state) }, func(struct{}) {})
	return err
}

func adopt(ctx context.Context, migration types.UID, waiting, volumes []Volume, state string) error {
	release, err := occupy(filepath.Clean(state))
	if err != nil {
		return err
	}
	defer release()
	if _, err := prepareState(state); err != nil {
		return err
	}
	from, err := openVolumes(waiting)
	if err != nil {
		return fmt.Errorf("opening what waits: %w", err)
	}
	defer closeVolumes(from)
	to, err := openVolumes(volumes)
	if err != nil {
		return err
	}
	defer closeVolumes(to)
	if strings.Join(volumeMarks(from), "/") != strings.Join(volumeMarks(to), "/") {
		return failure(ReasonFailed, "the volumes %q wait, and those of the pod are %q", volumeMarks(from), volumeMarks(to))
	}
	for i := range from {
		a := adoption{migration: migration, from: &from[i], to: &to[i], state: joinPath(state, fmt.Sprintf("volume-%d", i))}
		if err := a.run(ctx); err != nil {
			return explainSpace(to[i].fd, "volume "+to[i].Name, fmt.Errorf("volume %s: %w", to[i].Name, err))
		}
	}
	return nil
}

// adoption is that of one volume.
type adoption struct {
	migration types.UID
	from, to  *openVolume
	state     string
}

// Marks in the state directory say how far an adoption is: names may have been moved
// when the volume was emptied, and none may be once it is copied.
const (
	markEmptied = ".emptied"
	markCopied  = ".copying"
	markDone    = ".done"
)

func (a *adoption) run(ctx context.Context) error {
	if has, err := a.has(markDone); has || err != nil {
		return err
	}
	copying, err := a.has(markCopied)
	if err != nil {
		return err
	}
	if !copying {
		if err := a.empty(); err != nil {
			return err
		}
		err = a.move(ctx)
		if copying = errors.Is(err, unix.EXDEV); err != nil && !copying {
			return err
		}
	}
	if copying {
		if err := a.mark(markCopied); err != nil {
			return err
		}
		if err := a.copy(ctx); err != nil {
			return err
		}
	}
	return a.mark(markDone)
}

func (a *adoption) has(mark string) (bool, error) {
	_, err := os.Lstat(a.state + mark)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (a *adoption) mark(mark string) error {
	return atomicfile.WriteDurably(a.state+mark, strings.NewReader(""), 0o600)
}

// empty removes what is in the volume of the pod, once.
func (a *adoption) empty() error {
	if has, err := a.has(markEmptied); has || err != nil {
		return err
	}
	names, err := readAll(a.to.fd)
	if err != nil {
		return err
	}
	for i := range names.len() {
		if err := removeAll(a.to.fd, names.at(i)); err != nil {
			return err
		}
	}
	return a.mark(markEmptied)
}

func readAll(directory int) (*nameList, error) {
	fd, err := openDirectory(directory, ".")
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readNames(fd, maxHeldNames)
}

// move moves all names. The error is unix.EXDEV where they cannot be moved; none has been
// by then.
func (a *adoption) move(ctx context.Context) error {
	var stat unix.Stat_t
	if err := unix.Fstat(a.from.fd, &stat); err != nil {
		return err
	}
	root := &record{}
	if _, err := describe(root, &stat, a.from.Layer); err != nil {
		return err
	}
	var err error
	if root.xattrs, err = readXattrs(a.from.fd, a.from.Layer); err != nil {
		return err
	}
	names, err := readAll(a.from.fd)
	if err != nil {
		return err
	}
	if err := a.moveNames(ctx, names); err != nil {
		return err
	}
	// Moving has changed the time of the directory that waited: it is that of now.
	if err := applyToOpen(a.to.fd, root, a.to.Layer); err != nil {
		return err
	}
	if a.to.Transient || a.to.inMemory {
		return nil
	}
	return unix.Syncfs(a.to.fd)
}

func (a *adoption) moveNames(ctx context.Context, names *nameList) error {
	var one, other unix.Stat_t
	if err := errors.Join(unix.Fstat(a.from.fd, &one), unix.Fstat(a.to.fd, &other)); err != nil {
		return err
	}
	if one.Dev != other.Dev {
		return unix.EXDEV
	}
	for i := range names.len() {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := unix.Renameat2(a.from.fd, names.at(i), a.to.fd, names.at(i), unix.RENAME_NOREPLACE)
		if err != nil && !errors.Is(err, unix.EXDEV) {
			return fmt.Errorf("moving %q: %w", names.at(i), err)
		}
		if err != nil && i > 0 {
			return failure(ReasonFailed, "%q cannot be moved, after others were: %v", names.at(i), err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copy copies the volume, as a transfer within this process.
func (a *adoption) copy(ctx context.Context) error {
	d, err := OpenDestination(ctx, DestinationConfig{Migration: a.migration, Volumes: []Volume{a.to.Volume}, State: a.state + ".to"})
	if err != nil {
		return err
	}
	s, err := OpenSource(SourceConfig{Migration: a.migration, Volumes: []Volume{a.from.Volume}, State: a.state + ".from"})
	if err != nil {
		return errors.Join(err, d.Close())
	}
	_, err = passLocally(ctx, s, d)
	return errors.Join(err, s.Close(), d.Close())
}
