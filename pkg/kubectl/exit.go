package kubectl

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Exit codes. Scripts rely on them: docs/kubectl.md lists them.
const (
	ExitDone  = 0
	ExitError = 1
	ExitUsage = 2
	// ExitRefused: the pod cannot be moved, or the migration not be cancelled any more.
	ExitRefused = 3
	// ExitFailed: a migration was begun and did not succeed.
	ExitFailed = 4
	// ExitTimedOut: the waiting ended before the migration.
	ExitTimedOut = 5
	// ExitInterrupted is what shells expect after Ctrl-C.
	ExitInterrupted = 130
)

const exitCodesHelp = `Exit codes:
  0    done
  1    error, such as a missing right or a cluster that does not answer
  2    bad usage
  3    refused: the pod cannot be moved, or it is too late to cancel
  4    the migration failed; unless its message says otherwise, it was rolled back
  5    timed out waiting; the migration continues
  130  interrupted while waiting; the migration continues`

// exitError is an error with the code that the program ends with.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exitWith(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

func usage(format string, args ...any) error { return exitWith(ExitUsage, format, args...) }

// oneOf finds the value of a flag among those that are known, in any case.
func oneOf[T ~string](flag, given string, known []T) (T, error) {
	for _, value := range known {
		if strings.EqualFold(string(value), strings.TrimSpace(given)) {
			return value, nil
		}
	}
	return "", usage("%s %s: must be one of %s", flag, given, listed(known))
}

// codeOf is the exit code of what a command returned.
func codeOf(err error) int {
	var withCode *exitError
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &withCode):
		return withCode.code
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	}
	return ExitError
}

// all takes joined errors apart.
func all(err error) []error {
	if joined, is := err.(interface{ Unwrap() []error }); is {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
