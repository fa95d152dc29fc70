package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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
}

const recordSuffix = ".frozen.json"

func (r records) path(migration types.UID) string {
	return filepath.Join(r.directory, string(migration)+recordSuffix)
}

// put is durable when it returns: the pod is frozen after it.
func (r records) put(record record) error {
	content, err := json.Marshal(record)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.directory, 0o700); err != nil {
		return fmt.Errorf("recording a frozen pod: %w", err)
	}
	if err := atomicfile.WriteDurably(r.path(record.Migration), bytes.NewReader(content), 0o600); err != nil {
		return fmt.Errorf("recording a frozen pod: %w", err)
	}
	return nil
}

// get returns the record of a migration; nil when its pod is not frozen.
func (r records) get(migration types.UID) (*record, error) {
	content, err := os.ReadFile(r.path(migration))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	found := &record{}
	if err == nil {
		err = json.Unmarshal(content, found)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the record of a frozen pod: %w", err)
	}
	return found, nil
}

func (r records) remove(migration types.UID) error {
	if err := os.Remove(r.path(migration)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the record of a frozen pod: %w", err)
	}
	return nil
}

func (r records) list() ([]record, error) {
	entries, err := os.ReadDir(r.directory)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing frozen pods: %w", err)
	}
	var all []record
	for _, entry := range entries {
		migration, isRecord := strings.CutSuffix(entry.Name(), recordSuffix)
		if !isRecord {
			continue
		}
		found, err := r.get(types.UID(migration))
		if err != nil {
			return nil, err
		}
		if found != nil {
			all = append(all, *found)
		}
	}
	return all, nil
}

// count is the number of records; one that cannot be read is counted.
func (r records) count() float64 {
	files, err := filepath.Glob(filepath.Join(r.directory, "*"+recordSuffix))
	if err != nil {
		return 0 // the pattern is ours and good
	}
	return float64(len(files))
}
