package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
	"github.com/ai-storage/orchestrator/pkg/node/atomicfile"
)

// gcInterval is how often the node is searched for what no migration needs any more.
const gcInterval = 5 * time.Second

// Start implements manager.Runnable.
func (a *agent) Start(ctx context.Context) error {
	defer a.end()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.serveSenders(ctx) })
	group.Go(func() error { wait.UntilWithContext(ctx, a.watchFrozen, lookAgain); return nil })
	group.Go(func() error { wait.UntilWithContext(ctx, a.collectOrphans, gcInterval); return nil })
	return group.Wait()
}

// collectOrphans removes what is left of pods and migrations that are gone: no
// reconciliation would ever look at it.
func (a *agent) collectOrphans(ctx context.Context) {
	if err := errors.Join(a.removeOrphans(ctx), a.removeStates(ctx)); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to remove what no migration needs any more")
	}
}

// removeStates removes what this node keeps of migrations that are gone, or over.
func (a *agent) removeStates(ctx context.Context) error {
	var failures []error
	seen := map[types.UID]bool{}
	for _, root := range []string{a.transfers, filepath.Join(a.kubelet, waitingRoot)} {
		entries, err := os.ReadDir(root)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failures = append(failures, err)
		}
		for _, entry := range entries {
			migration := types.UID(entry.Name())
			if seen[migration] || !v1alpha1.IsUID(entry.Name()) {
				continue
			}
			seen[migration] = true
			failures = append(failures, a.removeStateOf(ctx, migration, filepath.Join(root, entry.Name())))
		}
	}
	return errors.Join(failures...)
}

func (a *agent) removeStateOf(ctx context.Context, migration types.UID, directory string) error {
	key, err := readMigration(directory)
	if err != nil {
		return err
	}
	m := &v1alpha1.PodMigration{}
	err = a.live.Get(ctx, key, m)
	switch {
	case apierrors.IsNotFound(err) || err == nil && m.UID != migration:
		if err := a.closeReceiving(migration); err != nil {
			return err
		}
		return a.removeState(migration)
	case err != nil || !decide.MayRemove(m):
		return err
	}
	return a.discard(ctx, m)
}

// removeState removes what waits, and what says so last.
func (a *agent) removeState(migration types.UID) error {
	if err := removeBeneath(a.kubelet, waitingOf(migration)); err != nil {
		return fmt.Errorf("removing what waits: %w", err)
	}
	return atomicfile.RemoveDurably(a.stateOf(migration))
}

// podFile names the pod of a directory of checkpoints. No container is named like it.
const podFile = ".pod.json"

func (a *agent) rememberPod(pod *corev1.Pod) error {
	directory := a.restores.Pod(string(pod.UID))
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	return writeJSON(filepath.Join(directory, podFile), types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, atomicfile.Write)
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
	var key types.NamespacedName
	if err := readJSON(filepath.Join(directory, podFile), &key); err != nil {
		return false, fmt.Errorf("reading %s: %w", podFile, err)
	}
	pod := &corev1.Pod{}
	err := a.live.Get(ctx, key, pod)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return err == nil && pod.UID != uid, err
}
