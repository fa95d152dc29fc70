package transfer

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// An error for want of space says what is full, how much is free there, what was to be
// written, and, on the side of the sender, what all volumes hold.

func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// explainSpace adds what is full, and the figures of its file system, to an error for want
// of space, once.
func explainSpace(fd int, what string, err error) error {
	var known *Error
	if !isFull(err) || errors.As(err, &known) && known.Reason == ReasonNoSpace {
		return err
	}
	var stat unix.Statfs_t
	if statErr := unix.Fstatfs(fd, &stat); statErr != nil {
		return &Error{Reason: ReasonNoSpace, Err: fmt.Errorf("%s is full: %w", what, err)}
	}
	return &Error{Reason: ReasonNoSpace, Err: fmt.Errorf("%s is full: %d of %d bytes and %d of %d names are free: %w", what,
		int64(stat.Bavail)*stat.Bsize, int64(stat.Blocks)*stat.Bsize, stat.Ffree, stat.Files, err)}
}

// explainState does so for what is left: it comes of the state directory.
func explainState(directory string, err error) error {
	if !isFull(err) {
		return err
	}
	fd, openErr := unix.Open(directory, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if openErr != nil {
		return err
	}
	defer unix.Close(fd)
	return explainSpace(fd, "the state directory "+directory, err)
}

// spoiled explains why something could not be written.
func (a *applier) spoiled(r *record, err error) error {
	if isGone(err) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
		return failure(ReasonChanged, "%q was changed while it was written, which only the receiver may do: %w", r.path, err)
	}
	if errors.Is(err, unix.EFBIG) {
		return failure(ReasonTooLarge, "%q is larger than the file system can hold: %w", r.path, err)
	}
	err = explainSpace(a.volume.fd, "volume "+a.volume.Name, err)
	if isFull(err) {
		return fmt.Errorf("writing %q, which needs %d bytes, after %d bytes of this pass: %w", r.path, r.size, a.result.Written, err)
	}
	return fmt.Errorf("writing %q: %w", r.path, err)
}

// onCopy says of an error that it comes of the sealed copy.
func (a *applier) onCopy(err error) error {
	if err == nil || a.copy == nil {
		return err
	}
	return a.copy.explain(err)
}

// onEither does so where the descriptor is that of a file of the copy.
func (a *applier) onEither(fd, copyFD int, err error) error {
	if fd == copyFD {
		return a.onCopy(err)
	}
	return err
}

// needed adds to what the receiver says how much there is to write. A pod that is frozen
// does not wait for that.
func (s *Source) needed(ctx context.Context, options PassOptions, err error) error {
	if ReasonOf(err) != ReasonNoSpace || options.Frozen || s.copy != nil {
		return err
	}
	size, measureErr := measureOpen(ctx, s.volumes)
	if measureErr != nil {
		return err
	}
	return fmt.Errorf("%w; the volumes hold %d bytes in %d files and directories", err, size.Bytes, size.Files)
}
