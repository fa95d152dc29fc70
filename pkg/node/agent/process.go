package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/atomicfile"
	"github.com/ai-storage/orchestrator/pkg/node/transfer"
)

// processOps is what an agent needs of its node to carry processes.
// Containers go by their IDs. The error is errNoProcess where one does not run.
type processOps interface {
	// Movable returns the memory of a container, in bytes, and what CRIU is known not
	// to carry; "" where nothing stands in the way.
	Movable(container string) (memory int64, obstacle string, err error)
	// Layer is the directory of the writable layer, beneath one that only the container
	// runtime writes. It is an error where the root of the container is no overlay.
	Layer(container string) (root, path string, err error)
	// SharedMemory is the /dev/shm of the pod of the container, likewise. It is an error
	// where there is none.
	SharedMemory(container string) (root, path string, err error)
	// FreezeContainers returns when all are frozen and none has a process of an exec
	// probe. The error is context.DeadlineExceeded after freezeTimeout; then parts may
	// be frozen.
	FreezeContainers(ctx context.Context, pod types.UID, containers []string) error
	// CheckFrozen returns an error unless all are frozen at this moment.
	CheckFrozen(pod types.UID, containers []string) error
	// Dump writes the memory of a frozen container to directory/memory, within
	// dumpTimeout, and leaves the container frozen, also after an error.
	Dump(ctx context.Context, container, directory string) error
	// Processes counts the processes of a container that live, and those of them that are
	// stopped by a signal.
	Processes(container string) (alive, stopped int)
	// Continue lets the restored processes of a container run. Doing it twice does no
	// harm.
	Continue(container string) error
}

// restorePoll is how often the outcome of a restoration is looked for: the original
// is frozen meanwhile.
const restorePoll = 5 * time.Millisecond

// movingContainer is one whose processes move.
type movingContainer struct{ name, id string }

func ids(containers []movingContainer) []string {
	all := make([]string, len(containers))
	for i, c := range containers {
		all[i] = c.id
	}
	return all
}

// Names of the trees of a checkpoint beside volumes. Names of volumes have no dots.
const sharedMemoryTree = "shared.memory"

func memoryTree(container string) string { return "memory." + container }
func layerTree(container string) string  { return "layer." + container }

// moving returns the containers of the original whose processes move.
func moving(original *corev1.Pod, names []string) ([]movingContainer, error) {
	var moving []movingContainer
	for _, name := range names {
		id := ""
		for _, s := range slices.Concat(original.Status.InitContainerStatuses, original.Status.ContainerStatuses) {
			if s.Name == name && s.State.Running != nil {
				id = containerID(s)
			}
		}
		if id == "" {
			return nil, notMovable("container %s does not run", name)
		}
		moving = append(moving, movingContainer{name, id})
	}
	return moving, nil
}

// containerID is the ID without the name of the runtime, "containerd://<id>"; "" where it is
// none of containerd's.
func containerID(s corev1.ContainerStatus) string {
	_, id, _ := strings.Cut(s.ContainerID, "://")
	if !containerPattern.MatchString(id) {
		return ""
	}
	return id
}

func notMovable(format string, args ...any) error {
	return &transfer.Error{Reason: v1alpha1.ReportProcessNotMovable, Err: fmt.Errorf(format, args...)}
}

// movable returns the memory of the containers, in bytes. It fails with
// ReportProcessNotMovable where CRIU is known not to carry what a process holds.
func (a *agent) movable(moving []movingContainer) (int64, error) {
	var memory int64
	for _, c := range moving {
		held, obstacle, err := a.ops.Movable(c.id)
		if err != nil {
			return 0, err
		}
		if obstacle != "" {
			return 0, notMovable("container %s cannot move with its memory: %s", c.name, obstacle)
		}
		memory += held
	}
	return memory, nil
}

func (a *agent) dumpDirectory(m *v1alpha1.PodMigration, container string) string {
	return filepath.Join(a.dumps, string(m.UID), container)
}

// sourceTrees are the volumes of the original and, of containers that move with their
// processes, the writable layer and the images that CRIU will write.
func (a *agent) sourceTrees(ctx context.Context, m *v1alpha1.PodMigration) ([]movingContainer, []transfer.Volume, error) {
	c := m.Status.Checkpoint
	original, err := a.podHere(ctx, m.Namespace, m.Status.Original)
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(checkVolumes(original, c.Volumes), checkContainers(original, c.Processes)); err != nil {
		return nil, nil, err
	}
	var trees []transfer.Volume
	for _, name := range c.Volumes {
		trees = append(trees, a.emptyDir(original.UID, name))
	}
	containers, err := moving(original, c.Processes)
	if err != nil {
		return nil, nil, err
	}
	for i, c := range containers {
		if i == 0 {
			root, path, err := a.ops.SharedMemory(c.id)
			if err != nil {
				return nil, nil, err
			}
			trees = append(trees, transfer.Volume{Name: sharedMemoryTree, Root: root, Path: path})
		}
		root, path, err := a.ops.Layer(c.id)
		if err != nil {
			return nil, nil, err
		}
		memory := filepath.Join(string(m.UID), c.name, "memory")
		if err := clearDirectory(filepath.Join(a.dumps, memory)); err != nil {
			return nil, nil, err
		}
		trees = append(trees,
			transfer.Volume{Name: layerTree(c.name), Root: root, Path: path, Layer: true},
			transfer.Volume{Name: memoryTree(c.name), Root: a.dumps, Path: memory, Transient: true})
	}
	return containers, trees, nil
}

// freeze freezes the original and, where its processes move, dumps them. All
// that is copied after it is of the moment at which the last container froze.
func (a *agent) freeze(ctx context.Context, m *v1alpha1.PodMigration, s *sending, sealed *v1alpha1.SourceReport) error {
	pod := m.Status.Original.UID
	if len(s.containers) == 0 {
		sealed.FrozenAt = microTime(a.now())
		return a.ops.Freeze(ctx, pod)
	}
	original, err := a.podHere(ctx, m.Namespace, m.Status.Original)
	if err != nil {
		return err
	}
	now, err := moving(original, m.Status.Checkpoint.Processes)
	if err != nil {
		return err
	}
	if !slices.Equal(now, s.containers) {
		return notMovable("a container was restarted while the pod was being copied")
	}
	if _, err := a.movable(now); err != nil {
		return err
	}
	sealed.FrozenAt = microTime(a.now())
	if err := a.ops.FreezeContainers(ctx, pod, ids(now)); err != nil {
		return err
	}
	group, dumping := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, c := range now {
		group.Go(func() error {
			if err := a.ops.Dump(dumping, c.id, a.dumpDirectory(m, c.name)); err != nil {
				return notMovable("container %s: %w", c.name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	sealed.DumpedAt = microTime(a.now())
	// From here on what the kubelet starts in the pod does not run either.
	if err := a.ops.Freeze(ctx, pod); err != nil {
		return err
	}
	return a.ops.CheckFrozen(pod, ids(now))
}

// removeDump removes what CRIU wrote: the destination has it, or it is of no use.
func (a *agent) removeDump(ctx context.Context, m *v1alpha1.PodMigration) {
	if err := os.RemoveAll(filepath.Join(a.dumps, string(m.UID))); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to remove a dump", "migration", klog.KObj(m))
	}
}

// destinationTrees are where the trees of sourceTrees go. From here on the containers of the
// replacement are restored or not started at all.
func (a *agent) destinationTrees(m *v1alpha1.PodMigration, pod *corev1.Pod) ([]transfer.Volume, error) {
	c := m.Status.Checkpoint
	if err := errors.Join(checkVolumes(pod, c.Volumes), checkContainers(pod, c.Processes)); err != nil {
		return nil, err
	}
	var trees []transfer.Volume
	for _, name := range c.Volumes {
		trees = append(trees, a.emptyDir(pod.UID, name))
	}
	if len(c.Processes) == 0 {
		return trees, nil
	}
	if err := a.rememberPod(pod); err != nil {
		return nil, err
	}
	gate := gateOf(pod)
	if gate == nil {
		return nil, errNoProcess
	}
	root, path, err := a.ops.SharedMemory(containerID(*gate))
	if err != nil {
		return nil, err
	}
	trees = append(trees, transfer.Volume{Name: sharedMemoryTree, Root: root, Path: path})
	for _, name := range c.Processes {
		entry, err := a.restores.Entry(string(pod.UID), name)
		if err != nil {
			return nil, err
		}
		if err := entry.Expect(); err != nil {
			return nil, err
		}
		below := func(path string) string { return strings.TrimPrefix(path, string(a.restores)+"/") }
		trees = append(trees,
			transfer.Volume{Name: layerTree(name), Root: string(a.restores), Path: below(entry.Layer()), Layer: true},
			transfer.Volume{Name: memoryTree(name), Root: string(a.restores), Path: below(entry.Memory()), Transient: true})
	}
	return trees, nil
}

// isTaken reports whether a container of the replacement is being restored, or
// was. What it is restored from must not change any more.
func (a *agent) isTaken(m *v1alpha1.PodMigration) bool {
	if m.Status.Replacement == nil || m.Status.Replacement.UID == "" {
		return false
	}
	for _, name := range m.Status.Checkpoint.Processes {
		if entry, err := a.restores.Entry(string(m.Status.Replacement.UID), name); err == nil && entry.IsTaken() {
			return true
		}
	}
	return false
}

// restoreProcesses offers the verified checkpoint to the wrapper of runc, and waits
// until the processes of all containers are there, stopped.
func (a *agent) restoreProcesses(ctx context.Context, m *v1alpha1.PodMigration) error {
	pod := m.Status.Replacement.UID
	for _, name := range m.Status.Checkpoint.Processes {
		entry, err := a.restores.Entry(string(pod), name)
		if err != nil {
			return err
		}
		if entry.IsTaken() {
			continue
		}
		if err := entry.Offer(); err != nil {
			return err
		}
	}
	if err := a.openGate(pod); err != nil {
		return err
	}
	return wait.PollUntilContextCancel(ctx, restorePoll, true, func(context.Context) (bool, error) {
		held, err := a.held(m)
		if err != nil || held == nil {
			return false, err
		}
		for _, id := range held {
			if _, stopped := a.ops.Processes(id); stopped == 0 {
				return false, notMovable("the processes of container %s were restored, and have ended or run", id)
			}
		}
		return true, nil
	})
}

// cancelRestore makes the creation of containers fail that wait for their processes:
// none will come. What was restored stays stopped until its end.
func (a *agent) cancelRestore(m *v1alpha1.PodMigration) error {
	if m.Status.Replacement == nil || m.Status.Replacement.UID == "" {
		return nil
	}
	for _, name := range m.Status.Checkpoint.Processes {
		entry, err := a.restores.Entry(string(m.Status.Replacement.UID), name)
		if err != nil {
			return err
		}
		if !entry.Exists() || entry.IsTaken() {
			continue
		}
		if err := entry.Cancel(); err != nil {
			return err
		}
	}
	return nil
}

// held returns the IDs of the restored containers; nil until all are there.
func (a *agent) held(m *v1alpha1.PodMigration) ([]string, error) {
	var containers []string
	for _, name := range m.Status.Checkpoint.Processes {
		entry, err := a.restores.Entry(string(m.Status.Replacement.UID), name)
		if err != nil {
			return nil, err
		}
		outcome, err := entry.Outcome()
		if err != nil {
			return nil, err
		}
		if outcome.Failure != "" {
			return nil, notMovable("the processes of container %s could not be restored: %s", name, outcome.Failure)
		}
		if !outcome.Done {
			return nil, nil
		}
		containers = append(containers, outcome.Container)
	}
	return containers, nil
}

// continuedFile says of a pod that its restored processes may have continued. No container
// is named like it.
const continuedFile = ".continued"

// continueProcesses ends the hold on the restored processes, once the migration is
// committed. Doing it twice does no harm. Where some have died by now it fails with
// ReportProcessNotMovable, and none has continued: what they are restored from stays, so
// that the kubelet cannot start their container afresh.
func (a *agent) continueProcesses(m *v1alpha1.PodMigration) error {
	directory := a.restores.Pod(string(m.Status.Replacement.UID))
	if len(m.Status.Checkpoint.Processes) == 0 {
		return nil
	}
	if _, err := os.Lstat(directory); errors.Is(err, os.ErrNotExist) {
		return nil // by an agent that did not live to report it
	}
	containers, err := a.held(m)
	if err != nil {
		return err
	}
	mark := filepath.Join(directory, continuedFile)
	if _, err := os.Lstat(mark); errors.Is(err, os.ErrNotExist) {
		for _, id := range containers {
			if alive, _ := a.ops.Processes(id); alive == 0 {
				return notMovable("the restored processes of container %s have ended before they continued", id)
			}
		}
		if err := atomicfile.WriteDurably(mark, strings.NewReader(""), 0o600); err != nil {
			return err
		}
	}
	for _, id := range containers {
		if err := a.ops.Continue(id); err != nil {
			return err
		}
	}
	return atomicfile.RemoveDurably(directory)
}
