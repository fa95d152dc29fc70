package checkpoint

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Reasons of an Error.
const (
	// ReasonNoSpace: the claim, or the volume restored into, is full.
	ReasonNoSpace = v1alpha1.ReportNoSpace
	// ReasonCorrupt: what is on the claim is not what was written there.
	ReasonCorrupt = "Corrupt"
	// ReasonUnsupportedFile: a file that cannot be carried, such as a device.
	ReasonUnsupportedFile = "UnsupportedFile"
	// ReasonChanged: something changed while the pod had to be frozen.
	ReasonChanged = "Changed"
	// ReasonNoManifest: no complete pass is on the claim yet.
	ReasonNoManifest = v1alpha1.ReportNoManifest
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
