package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/atomicfile"
)

// gcInterval is how often the node is searched for what no migration needs any more.
const gcInterval = 5 * time.Second

// Start implements manager.Runnable.
func (a *agent) Start(ctx context.Context) error {
	wait.UntilWithContext(ctx, a.collectOrphans, gcInterval)
	return nil
}

// collectOrphans thaws pods and removes checkpoints whose migration or pod is gone: no
// reconciliation would ever look at them.
func (a *agent) collectOrphans(ctx context.Context) {
	if err := a.thawOrphans(ctx); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to thaw abandoned pods")
	}
	if err := a.removeOrphans(ctx); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to remove the checkpoints of pods that are gone")
	}
}

func (a *agent) thawOrphans(ctx context.Context) error {
	all, err := a.records.list()
	if err != nil {
		return err
	}
	var failures []error
	for _, r := range all {
		m := &v1alpha1.PodMigration{}
		err := a.live.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.Name}, m)
		if err == nil && m.UID == r.Migration {
			continue
		}
		if err == nil || apierrors.IsNotFound(err) {
			err = a.unfreeze(r.Migration, r.Pod)
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// podFile names the pod of a directory of checkpoints. No container is named like it.
const podFile = ".pod.json"

func (a *agent) rememberPod(pod *corev1.Pod) error {
	directory := a.restores.Pod(string(pod.UID))
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	content, err := json.Marshal(types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name})
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(directory, podFile), bytes.NewReader(content), 0o600)
}

// removeOrphans removes the checkpoints of replacements that are gone. While
// the pod is there, also when its migration was rolled back, they keep its
// containers from starting.
func (a *agent) removeOrphans(ctx context.Context) error {
	entries, err := os.ReadDir(string(a.restores))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var failures []error
	for _, entry := range entries {
		directory := filepath.Join(string(a.restores), entry.Name())
		gone, err := a.isGone(ctx, directory, types.UID(entry.Name()))
		if err == nil && gone {
			err = os.RemoveAll(directory)
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

func (a *agent) isGone(ctx context.Context, directory string, uid types.UID) (bool, error) {
	content, err := os.ReadFile(filepath.Join(directory, podFile))
	if err != nil {
		return false, err
	}
	var key types.NamespacedName
	if err := json.Unmarshal(content, &key); err != nil {
		return false, fmt.Errorf("reading %s: %w", podFile, err)
	}
	pod := &corev1.Pod{}
	err = a.live.Get(ctx, key, pod)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return err == nil && pod.UID != uid, err
}

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
