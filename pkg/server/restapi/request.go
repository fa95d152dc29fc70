package restapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	kjson "sigs.k8s.io/json"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

const (
	// maxBody is the largest body that is read, in bytes.
	maxBody = 1 << 20
	// defaultTimeout and maxTimeout of a migration, in seconds.
	defaultTimeout = 600
	maxTimeout     = 86400
	// maxFreeze bounds how long a pod may stay frozen, in seconds.
	maxFreeze = 3600
)

// MigrationRequest is the body of a POST.
type MigrationRequest struct {
	PodName      string `json:"pod_name"`
	PodNamespace string `json:"pod_namespace"`
	SourceNode   string `json:"source_node"`
	TargetNode   string `json:"target_node"`
	// PreservePV makes a checkpoint claim, and keeps it after its pod is gone.
	PreservePV bool `json:"preserve_pv,omitempty"`
	// ForceRestart stops the original before anything else is begun.
	ForceRestart bool `json:"force_restart,omitempty"`
	// CheckpointMode and CheckpointFallback are those of a PodMigration; "" is the
	// default.
	CheckpointMode     v1alpha1.CheckpointMode     `json:"checkpoint_mode,omitempty"`
	CheckpointFallback v1alpha1.CheckpointFallback `json:"checkpoint_fallback,omitempty"`
	// MaxFreeze in seconds; 0 means 60.
	MaxFreeze int64 `json:"max_freeze,omitempty"`
	// Timeout in seconds; 0 means 600.
	Timeout int64 `json:"timeout,omitempty"`
}

// decodeRequest reads and checks a body. Names are exact, no field may be unknown
// or come twice.
func decodeRequest(w http.ResponseWriter, r *http.Request) (*MigrationRequest, error) {
	request := &MigrationRequest{}
	if err := decodeBody(w, r, request); err != nil {
		return nil, err
	}
	return request, request.validate()
}

func decodeBody(w http.ResponseWriter, r *http.Request, into any) error {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return fail(http.StatusUnsupportedMediaType, reasonMediaType, "Content-Type", "send the header Content-Type: application/json")
	}
	content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return fail(http.StatusRequestEntityTooLarge, reasonTooLarge, "", "the body is larger than %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return fail(http.StatusBadRequest, reasonMalformed, "", "the body broke off: %v", err)
	}
	strict, err := kjson.UnmarshalStrict(content, into)
	if err != nil {
		return decodeError(err)
	}
	if len(strict) > 0 {
		return strictError(strict)
	}
	return nil
}

func decodeError(err error) *Error {
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		if wrong.Field == "" {
			return fail(http.StatusBadRequest, reasonMalformed, "", "the body has to be one JSON object, not a %s", wrong.Value)
		}
		return fail(http.StatusBadRequest, reasonInvalidField, wrong.Field, "%s has to be a %s, not a %s", wrong.Field, jsonType(wrong.Type.String()), wrong.Value)
	}
	return fail(http.StatusBadRequest, reasonMalformed, "", "the body is no JSON: %v", err)
}

func jsonType(goType string) string {
	switch goType {
	case "bool":
		return "boolean"
	case "int64":
		return "whole number"
	}
	return "string"
}

// strictError names the unknown fields, and those that come twice.
func strictError(strict []error) *Error {
	var fields []FieldError
	reason := reasonUnknownField
	for _, err := range strict {
		name := ""
		if strings.HasPrefix(err.Error(), "duplicate") {
			reason = reasonInvalidField
		}
		if field := kjson.FieldError(nil); errors.As(err, &field) {
			name = field.FieldPath()
		}
		fields = append(fields, FieldError{Field: name, Message: err.Error()})
	}
	return several(reason, fields)
}

// several is one error for all fields that are wrong, which leads with the first.
func several(reason string, fields []FieldError) *Error {
	e := fail(http.StatusBadRequest, reason, fields[0].Field, "%s", fields[0].Message)
	if len(fields) > 1 {
		e.Fields = fields
	}
	return e
}

func checkName(field, value string, problems func(string) []string) []FieldError {
	if found := problems(value); len(found) > 0 {
		return []FieldError{{field, fmt.Sprintf("%s %q is no name: %s", field, value, strings.Join(found, "; "))}}
	}
	return nil
}

func checkTimeout(seconds int64) []FieldError {
	if seconds < 0 || seconds > maxTimeout {
		return []FieldError{{"timeout", fmt.Sprintf("timeout has to be from 0 to %d seconds; 0 or none means %d", maxTimeout, defaultTimeout)}}
	}
	return nil
}

func unknownFallback(fallback v1alpha1.CheckpointFallback) []FieldError {
	if slices.Contains(v1alpha1.CheckpointFallbacks, fallback) {
		return nil
	}
	return []FieldError{{"checkpoint_fallback", fmt.Sprintf("there is no checkpoint_fallback %q, only %v", fallback, v1alpha1.CheckpointFallbacks)}}
}

// validate checks what is known without the cluster.
func (m *MigrationRequest) validate() error {
	var missing, wrong []FieldError
	for _, field := range []struct {
		name, value string
		problems    func(string) []string
	}{
		{"pod_name", m.PodName, validation.IsDNS1123Subdomain},
		{"pod_namespace", m.PodNamespace, validation.IsDNS1123Label},
		{"source_node", m.SourceNode, validation.IsDNS1123Subdomain},
		{"target_node", m.TargetNode, validation.IsDNS1123Subdomain},
	} {
		if field.value == "" {
			missing = append(missing, FieldError{field.name, field.name + " is required"})
		} else {
			wrong = append(wrong, checkName(field.name, field.value, field.problems)...)
		}
	}
	if m.TargetNode != "" && m.TargetNode == m.SourceNode {
		wrong = append(wrong, FieldError{"target_node", "target_node has to differ from source_node"})
	}
	wrong = append(wrong, checkTimeout(m.Timeout)...)
	wrong = append(wrong, m.checkCheckpoint()...)
	switch {
	case len(missing) > 0:
		return several(reasonMissingField, append(missing, wrong...))
	case len(wrong) > 0:
		return several(reasonInvalidField, wrong)
	}
	if m.Timeout == 0 {
		m.Timeout = defaultTimeout
	}
	return nil
}

// checkCheckpoint leaves the defaults out, so that who names them asks for the
// same as who does not.
func (m *MigrationRequest) checkCheckpoint() []FieldError {
	var wrong []FieldError
	if m.CheckpointMode == v1alpha1.CheckpointFrozen {
		m.CheckpointMode = ""
	}
	if m.CheckpointFallback == v1alpha1.FallbackNone {
		m.CheckpointFallback = ""
	}
	if m.CheckpointMode != "" && !slices.Contains(v1alpha1.CheckpointModes, m.CheckpointMode) {
		wrong = append(wrong, FieldError{"checkpoint_mode", fmt.Sprintf("there is no checkpoint_mode %q, only %v", m.CheckpointMode, v1alpha1.CheckpointModes)})
	}
	switch {
	case m.CheckpointFallback == "":
	case len(unknownFallback(m.CheckpointFallback)) > 0:
		wrong = append(wrong, unknownFallback(m.CheckpointFallback)...)
	case m.CheckpointMode != v1alpha1.CheckpointProcess:
		wrong = append(wrong, FieldError{"checkpoint_fallback", fmt.Sprintf("checkpoint_fallback %s goes with checkpoint_mode %s only", m.CheckpointFallback, v1alpha1.CheckpointProcess)})
	}
	if m.MaxFreeze == int64(v1alpha1.DefaultMaxFreeze.Seconds()) {
		m.MaxFreeze = 0
	}
	if m.MaxFreeze < 0 || m.MaxFreeze > maxFreeze {
		wrong = append(wrong, FieldError{"max_freeze", fmt.Sprintf("max_freeze has to be from 0 to %d seconds; 0 or none means %.0f", maxFreeze, v1alpha1.DefaultMaxFreeze.Seconds())})
	}
	return wrong
}

// digest is the same for requests that ask for the same.
func (m *MigrationRequest) digest() string {
	// A struct of plain fields is always encoded, and always in the same order.
	encoded, _ := json.Marshal(m)
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:])
}
