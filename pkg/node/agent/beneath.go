package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/beneath"
	"github.com/ai-storage/orchestrator/pkg/node/transfer"
)

// The agent is root, and parts of what lies beneath the kubelet's directory belong to
// containers. So paths are opened from there, and the kernel refuses links (openat2(2)).
// openDirectory opens a directory beneath another. root is one that only programs of the
// node write; it is opened as it is named.
func openDirectory(root, name string) (*os.File, error) {
	fd, err := beneath.OpenDirectory(root, name)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path.Join(root, name)), nil
}

// makeDirectory opens a directory, and creates it, for root alone, where it is missing.
func makeDirectory(parent *os.File, name string) (*os.File, error) {
	if err := unix.Mkdirat(int(parent.Fd()), name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("making %s in %s: %w", name, parent.Name(), err)
	}
	fd, err := beneath.Open(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY, 0, beneath.Resolve)
	if err != nil {
		return nil, fmt.Errorf("opening %s in %s: %w", name, parent.Name(), err)
	}
	return os.NewFile(uintptr(fd), path.Join(parent.Name(), name)), nil
}

// makePrivate is makeDirectory for one that others could have made before: it must be this
// user's, and nobody else enters it from here on.
func makePrivate(parent *os.File, name string) (*os.File, error) {
	directory, err := makeDirectory(parent, name)
	if err != nil {
		return nil, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(directory.Fd()), &stat); err != nil {
		return nil, errors.Join(err, directory.Close())
	}
	if int(stat.Uid) != os.Geteuid() {
		return nil, errors.Join(fmt.Errorf("%s belongs to user %d: the sealed copy must be private to root", directory.Name(), stat.Uid), directory.Close())
	}
	// The kubelet gives what is on a volume to the group of a pod (fsGroup).
	if stat.Mode&0o7777 != 0o700 {
		if err := directory.Chmod(0o700); err != nil {
			return nil, errors.Join(err, directory.Close())
		}
	}
	return directory, nil
}

// makeBeneath makes directories beneath root that only root can enter.
func makeBeneath(root, name string) error {
	directory, err := openDirectory(root, ".")
	if err != nil {
		return err
	}
	for part := range strings.SplitSeq(name, "/") {
		next, err := makePrivate(directory, part)
		if err = errors.Join(err, directory.Close()); err != nil {
			return err
		}
		directory = next
	}
	return directory.Close()
}

// removeBeneath removes a directory beneath root with all that is in it, and follows no
// link. That there is none is no error.
func removeBeneath(root, name string) error {
	parent, err := openDirectory(root, path.Dir(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	return removeIn(parent, path.Base(name))
}

func removeIn(parent *os.File, name string) error {
	// What is opened by its descriptor is the directory that was found above.
	within, err := os.OpenRoot(descriptorPath(parent))
	if err != nil {
		return err
	}
	return errors.Join(within.RemoveAll(name), within.Close())
}

func descriptorPath(file *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", file.Fd()) }

// isMountRoot reports whether something is mounted at a directory that is open.
func isMountRoot(directory *os.File) (bool, error) {
	var stat unix.Statx_t
	if err := unix.Statx(int(directory.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &stat); err != nil {
		return false, fmt.Errorf("looking at %s: %w", directory.Name(), err)
	}
	if stat.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return false, errors.New("the kernel does not tell mounts: Linux 5.8 or later is needed")
	}
	return stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// podVolumes is the directory of a pod's volumes beneath the kubelet's.
func podVolumes(pod types.UID) string { return path.Join("pods", string(pod), "volumes") }

const emptyDirPlugin = "kubernetes.io~empty-dir"

// emptyDir is an emptyDir of a pod (k8s.io/kubernetes/pkg/volume/emptydir).
func (a *agent) emptyDir(pod types.UID, name string) transfer.Volume {
	return transfer.Volume{Name: name, Root: a.kubelet, Path: path.Join(podVolumes(pod), emptyDirPlugin, name)}
}

// waitingRoot has, beneath the kubelet's directory, what waits on this node for a
// replacement (v1alpha1.WaitingDirectory). It is on the file system of emptyDirs, so that
// names can be moved.
const waitingRoot = "ai-storage"

func waitingOf(migration types.UID) string { return path.Join(waitingRoot, string(migration)) }

// waitingVolumes are where volumes wait.
func (a *agent) waitingVolumes(m *v1alpha1.PodMigration) []transfer.Volume {
	var volumes []transfer.Volume
	for _, name := range m.Status.Checkpoint.Volumes {
		volumes = append(volumes, transfer.Volume{Name: name, Root: a.kubelet, Path: path.Join(v1alpha1.WaitingDirectory(m.UID, m.Status.Checkpoint.Attempt), name)})
	}
	return volumes
}

// makeWaiting makes the directories of waitingVolumes. What waited in an earlier attempt,
// whose seal is void, is compared with what comes rather than sent again.
func (a *agent) makeWaiting(m *v1alpha1.PodMigration) error {
	if err := makeBeneath(a.kubelet, waitingOf(m.UID)); err != nil {
		return err
	}
	if err := a.inheritWaiting(m.UID, m.Status.Checkpoint.Attempt); err != nil {
		return fmt.Errorf("taking over what waited in an earlier attempt: %w", err)
	}
	for _, v := range a.waitingVolumes(m) {
		if err := makeBeneath(a.kubelet, path.Dir(v.Path)); err != nil {
			return err
		}
		// The volume itself gets the mode of the original's.
		parent, err := openDirectory(a.kubelet, path.Dir(v.Path))
		if err != nil {
			return err
		}
		volume, err := makeDirectory(parent, path.Base(v.Path))
		if err = errors.Join(err, parent.Close()); err != nil {
			return err
		}
		if err := volume.Close(); err != nil {
			return err
		}
	}
	return writeMigration(filepath.Join(a.kubelet, waitingOf(m.UID)), m)
}

func (a *agent) inheritWaiting(migration types.UID, attempt int32) error {
	directory, err := openDirectory(a.kubelet, waitingOf(migration))
	if err != nil {
		return err
	}
	defer directory.Close()
	entries, err := directory.ReadDir(-1)
	if err != nil {
		return err
	}
	here := int(directory.Fd())
	for _, entry := range entries {
		earlier, isAttempt := attemptOf(entry.Name())
		if !isAttempt || earlier >= attempt {
			continue
		}
		err := unix.Renameat2(here, entry.Name(), here, fmt.Sprint(attempt), unix.RENAME_NOREPLACE)
		if errors.Is(err, fs.ErrExist) {
			err = removeIn(directory, entry.Name())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// openGate lets the containers of a replacement start.
func (a *agent) openGate(pod types.UID) error {
	if err := a.createGateFile(pod); err != nil {
		return fmt.Errorf("opening the gate: %w", err)
	}
	return nil
}

func (a *agent) createGateFile(pod types.UID) error {
	gate := a.emptyDir(pod, v1alpha1.GateVolumeName)
	directory, err := openDirectory(gate.Root, gate.Path)
	if err != nil {
		return err
	}
	defer directory.Close()
	fd, err := beneath.Open(int(directory.Fd()), v1alpha1.GateOpenFile, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644, beneath.Resolve)
	if err == nil {
		return unix.Close(fd)
	}
	var stat unix.Stat_t
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := unix.Fstatat(int(directory.Fd()), v1alpha1.GateOpenFile, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s in %s is no regular file", v1alpha1.GateOpenFile, directory.Name())
	}
	return nil
}
