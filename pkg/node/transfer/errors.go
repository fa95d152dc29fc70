package transfer

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Reasons of an Error.
const (
	// ReasonNoSpace: a volume, the sealed copy or the state directory is full.
	ReasonNoSpace = v1alpha1.ReportNoSpace
	// ReasonCorrupt: data is not what its digest says, or a frame or a manifest has a
	// value that no sender writes.
	ReasonCorrupt = "Corrupt"
	// ReasonUnsupportedFile: a file that cannot be carried, such as a device.
	ReasonUnsupportedFile = "UnsupportedFile"
	// ReasonTooLarge: a limit of this package is exceeded. The message has the limit.
	ReasonTooLarge = "TooLarge"
	// ReasonChanged: something changed while the pod had to be frozen, or in the volumes
	// of the replacement, which only the receiver may write.
	ReasonChanged = "Changed"
	// ReasonRefused: the other side is not who it has to be, or sends what it may not.
	ReasonRefused = "Refused"
	// ReasonDisconnected: the connection ended. A new one continues.
	ReasonDisconnected = "Disconnected"
	// ReasonFailed: any other failure.
	ReasonFailed = "Failed"
)

// Error is a failure with a CamelCase reason for programs.
type Error struct {
	Reason string
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

func failure(reason, format string, args ...any) error {
	return &Error{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// ReasonOf returns the reason of an error; empty for nil.
func ReasonOf(err error) string {
	var known *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &known):
		return known.Reason
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return ReasonNoSpace
	}
	return ReasonFailed
}
