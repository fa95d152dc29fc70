package restapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"

	"github.com/ai-storage/orchestrator/pkg/server/restapi/auth"
)

// Reasons of errors, for programs.
const (
	reasonMalformed       = "MalformedBody"
	reasonUnknownField    = "UnknownField"
	reasonInvalidField    = "InvalidField"
	reasonMissingField    = "MissingField"
	reasonTooLarge        = "BodyTooLarge"
	reasonMediaType       = "UnsupportedMediaType"
	reasonUnauthorized    = "Unauthorized"
	reasonForbidden       = "Forbidden"
	reasonNotFound        = "NotFound"
	reasonMethod          = "MethodNotAllowed"
	reasonKeyReused       = "IdempotencyKeyReused"
	reasonFinished        = "AlreadyFinished"
	reasonCommitted       = "AlreadyCommitted"
	reasonNotAdmitted     = "NotAdmitted"
	reasonTooManyRequests = "TooManyRequests"
	reasonUnavailable     = "Unavailable"
	reasonInternal        = "Internal"
)

// Error is every answer that is not a success.
type Error struct {
	// Code is the HTTP status.
	Code int `json:"code"`
	// Reason is a CamelCase word for programs.
	Reason string `json:"reason"`
	// Field is the field of the body, the parameter or the header at fault.
	Field string `json:"field,omitempty"`
	// Message is a human-readable sentence: what is wrong, and what to do.
	Message string `json:"message"`
	// Fields lists all that is wrong, when it is more than one.
	Fields []FieldError `json:"fields,omitempty"`

	retryAfter time.Duration
	cause      error
}

// FieldError is what is wrong with one field.
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// ErrorBody is an Error as it is sent.
type ErrorBody struct {
	Error *Error `json:"error"`
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.cause }

func fail(code int, reason, field, format string, args ...any) *Error {
	return &Error{Code: code, Reason: reason, Field: field, Message: fmt.Sprintf(format, args...)}
}

// retryLater is how soon a client should try again when the API server is away.
const retryLater = time.Second

// errorOf turns any error into an answer. Our own faults are reported to
// the caller only in general, and logged.
func errorOf(err error) *Error {
	var known *Error
	var status apierrors.APIStatus
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, auth.ErrNoToken), errors.Is(err, auth.ErrInvalidToken):
		return fail(http.StatusUnauthorized, reasonUnauthorized, "Authorization", "%v: send the header Authorization: Bearer TOKEN", err)
	case errors.Is(err, auth.ErrForbidden):
		return fail(http.StatusForbidden, reasonForbidden, "", "%v", err)
	case errors.As(err, &status):
		return ofAPIServer(err, status)
	}
	// A connection that was refused or broke off, a deadline.
	return unavailable(err)
}

// ofAPIServer passes on what the API server says about the request itself.
func ofAPIServer(err error, status apierrors.APIStatus) *Error {
	switch {
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsForbidden(err):
		return fail(http.StatusUnprocessableEntity, reasonNotAdmitted, "", "the cluster does not take the migration: %s", status.Status().Message)
	case apierrors.IsNotFound(err):
		return fail(http.StatusNotFound, reasonNotFound, "", "%s", status.Status().Message)
	case apierrors.IsInternalError(err):
		e := fail(http.StatusInternalServerError, reasonInternal, "", "the API server failed; its log says more")
		e.cause = err
		return e
	}
	return unavailable(err)
}

func unavailable(err error) *Error {
	e := fail(http.StatusServiceUnavailable, reasonUnavailable, "", "the cluster does not answer at the moment: try again")
	e.retryAfter, e.cause = retryLater, err
	return e
}

// writeError answers with an error, and logs what is not the caller's fault.
func writeError(ctx context.Context, w http.ResponseWriter, err error) {
	e := errorOf(err)
	if e.Code >= http.StatusInternalServerError && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Request failed", "code", e.Code, "reason", e.Reason)
	}
	if e.Code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="ai-storage"`)
	}
	if e.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(auth.Seconds(e.retryAfter)))
	}
	writeJSON(ctx, w, e.Code, ErrorBody{Error: e})
}

func writeJSON(ctx context.Context, w http.ResponseWriter, code int, body any) {
	encoded, err := json.Marshal(body)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Answer cannot be encoded")
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if _, err := w.Write(append(encoded, '\n')); err != nil {
		klog.FromContext(ctx).V(2).Info("Answer was not read to its end", "err", err)
	}
}
