package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/node/atomicfile"
)

// records remember on the node which pods this agent has frozen: an agent that
// starts again must find them, also when their migration is gone.
type records struct{ directory string }

// record is one frozen pod.
type record struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	Migration types.UID `json:"migration"`
	Attempt   int32     `json:"attempt"`
	Pod       types.UID `json:"pod"`
	PodName   string    `json:"podName"`
	// FrozenAt is when it was frozen, Until when it must be thawed unless a seal of it
	// was accepted.
	FrozenAt time.Time `json:"frozenAt"`
	Until    time.Time `json:"until"`
	// Sealed: a seal of it was reported, or is about to be. From here on only the status
	// of the migration tells whether it may be thawed.
	Sealed bool `json:"sealed,omitempty"`
	// Boot is the run of the node's kernel in which it was sealed, Containers are the
	// cgroups that had processes then.
	Boot       string   `json:"boot,omitempty"`
	Containers []string `json:"containers,omitempty"`
	// Disturbance says what has happened to it since, if anything.
	Disturbance string `json:"disturbance,omitempty"`
	// Released: its replacement was released.
	Released bool `json:"released,omitempty"`
	// Stranded: see decide.TaskStrand.
	Stranded bool `json:"stranded,omitempty"`
}

// isSame reports whether two records are of the same freezing, and of the same part of it.
func (r record) isSame(other record) bool {
	return r.Migration == other.Migration && r.Attempt == other.Attempt && r.FrozenAt.Equal(other.FrozenAt) && r.Sealed == other.Sealed
}

// isOverdue reports whether a pod is frozen for longer than any pod may be that can still
// be thawed.
func (r record) isOverdue(now time.Time) bool { return !r.Until.IsZero() && now.After(r.Until) }

const recordSuffix = ".frozen.json"

func (r records) path(migration types.UID) string {
	return filepath.Join(r.directory, string(migration)+recordSuffix)
}

// put is durable when it returns: the pod is frozen after it.
func (r records) put(record record) error {
	err := os.MkdirAll(r.directory, 0o700)
	if err == nil {
		err = writeJSON(r.path(record.Migration), record, atomicfile.WriteDurably)
	}
	if err != nil {
		return fmt.Errorf("recording a frozen pod: %w", err)
	}
	return nil
}

// get returns the record of a migration; nil when its pod is not frozen.
func (r records) get(migration types.UID) (*record, error) {
	found := &record{}
	err := readJSON(r.path(migration), found)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the record of a frozen pod: %w", err)
	}
	if found.FrozenAt.IsZero() {
		// By an agent of an earlier version, which did not say whether there is a seal.
		found.Sealed = true
	}
	return found, nil
}

func (r records) remove(migration types.UID) error {
	if err := atomicfile.RemoveDurably(r.path(migration)); err != nil {
		return fmt.Errorf("removing the record of a frozen pod: %w", err)
	}
	return nil
}

// list returns all records that can be read, and an error for the others.
func (r records) list() ([]record, error) {
	entries, err := os.ReadDir(r.directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing frozen pods: %w", err)
	}
	var all []record
	var failures []error
	for _, entry := range entries {
		migration, isRecord := strings.CutSuffix(entry.Name(), recordSuffix)
		if !isRecord {
			continue
		}
		found, err := r.get(types.UID(migration))
		if found != nil {
			all = append(all, *found)
		}
		failures = append(failures, err)
	}
	return all, errors.Join(failures...)
}

// count is the number of records; one that cannot be read is counted.
func (r records) count() float64 {
	files, err := filepath.Glob(filepath.Join(r.directory, "*"+recordSuffix))
	if err != nil {
		return 0 // the pattern is ours and good
	}
	return float64(len(files))
}

// writeJSON writes a file that root alone reads, in the way of package atomicfile that is given.
func writeJSON(path string, value any, write func(path string, content io.Reader, mode fs.FileMode) error) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return write(path, bytes.NewReader(content), 0o600)
}

// readJSON reads what writeJSON has written. The error is fs.ErrNotExist where there is none.
func readJSON(path string, into any) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(content, into)
}
