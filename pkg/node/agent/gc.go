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
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/ai-storage/orchestrator/pkg/node/atomicfile"
)

// gcInterval is how often the node is searched for what no migration needs any more.
const gcInterval = 5 * time.Second

// Start implements manager.Runnable.
func (a *agent) Start(ctx context.Context) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { wait.UntilWithContext(ctx, a.watchFrozen, lookAgain) })
	wait.UntilWithContext(ctx, a.collectOrphans, gcInterval)
	return nil
}

// collectOrphans removes checkpoints whose pod is gone: no reconciliation would ever look
// at them.
func (a *agent) collectOrphans(ctx context.Context) {
	if err := a.removeOrphans(ctx); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to remove the checkpoints of pods that are gone")
	}
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
			err = atomicfile.RemoveDurably(directory)
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
