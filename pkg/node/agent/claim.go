package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/transfer"
)

// The claim is mounted in a container of ours: the gate of a replacement, or a placeholder.
// Of a mount with a subPath, whatever the plugin of the volume, the kubelet makes a bind
// mount, in the pod's directory, at volume-subpaths/<volume>/<container>/<index of the mount>
// (k8s.io/kubernetes/pkg/volume/util/subpath). Containers see none of these directories.
const subPaths = "volume-subpaths"

// placeholderContainer is the container of a placeholder that mounts the claim.
const placeholderContainer = "placeholder"

// copiesMount returns which container of a pod, and which of its mounts, has the directory
// of the sealed copies on the claim.
func copiesMount(pod *corev1.Pod, claim string) (container string, index int, err error) {
	isClaim := func(name string) bool {
		return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
			return v.Name == name && v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim
		})
	}
	isOurs := func(c corev1.Container) bool {
		return c.Name == v1alpha1.GateContainer || c.Name == placeholderContainer
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if !isOurs(c) {
			continue
		}
		for i, mount := range c.VolumeMounts {
			if mount.SubPath == v1alpha1.SealedCopyDirectory && isClaim(mount.Name) {
				return c.Name, i, nil
			}
		}
	}
	return "", 0, refused("no container %s or %s of pod %s/%s mounts %s of claim %s", v1alpha1.GateContainer, placeholderContainer,
		pod.Namespace, pod.Name, v1alpha1.SealedCopyDirectory, claim)
}

// copiesRoot is the directory of the sealed copies on the claim of a migration, beneath the
// kubelet's directory, as it is mounted for a pod of this node; "" where the migration has no
// claim. The error is errNoProcess while it is not mounted yet.
func (a *agent) copiesRoot(m *v1alpha1.PodMigration, pod *corev1.Pod) (string, error) {
	if m.Status.CheckpointClaim == "" {
		return "", nil
	}
	container, index, err := copiesMount(pod, m.Status.CheckpointClaim)
	if err != nil {
		return "", err
	}
	root := path.Join("pods", string(pod.UID), subPaths)
	directory, err := openDirectory(a.kubelet, root)
	if errors.Is(err, fs.ErrNotExist) {
		return "", errNoProcess
	}
	if err != nil {
		return "", err
	}
	entries, err := directory.ReadDir(-1)
	if err = errors.Join(err, directory.Close()); err != nil {
		return "", err
	}
	found := ""
	for _, volume := range entries {
		at := path.Join(root, volume.Name(), container, strconv.Itoa(index))
		mounted, err := a.isMountedAt(at)
		if err != nil {
			return "", err
		}
		if mounted && found != "" {
			return "", refused("%s and %s of pod %s/%s could both be claim %s", found, at, pod.Namespace, pod.Name, m.Status.CheckpointClaim)
		}
		if mounted {
			found = at
		}
	}
	if found == "" {
		return "", errNoProcess
	}
	return found, nil
}

func (a *agent) isMountedAt(name string) (bool, error) {
	directory, err := openDirectory(a.kubelet, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	mounted, err := a.isMounted(directory)
	return mounted, errors.Join(err, directory.Close())
}

// makeCopy makes the directory of the sealed copy on the claim; nil where the migration has
// no claim.
func (a *agent) makeCopy(m *v1alpha1.PodMigration, pod *corev1.Pod) (*transfer.Copy, error) {
	root, err := a.copiesRoot(m, pod)
	if err != nil || root == "" {
		return nil, err
	}
	copies, err := openDirectory(a.kubelet, root)
	if err != nil {
		return nil, err
	}
	defer copies.Close()
	own, err := makePrivate(copies, string(m.UID))
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", m.Status.CheckpointClaim, err)
	}
	return &transfer.Copy{Root: a.kubelet, Path: path.Join(root, string(m.UID))}, own.Close()
}

// sealedCopy is where the copy is that a migration restores from.
func (a *agent) sealedCopy(m *v1alpha1.PodMigration, pod *corev1.Pod) (transfer.Copy, error) {
	root, err := a.copiesRoot(m, pod)
	if err != nil {
		return transfer.Copy{}, err
	}
	from := transfer.Copy{Root: a.kubelet, Path: path.Join(root, string(m.CheckpointUID()))}
	directory, err := openDirectory(from.Root, from.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return from, fmt.Errorf("claim %s has no sealed copy of migration %s", m.Status.CheckpointClaim, m.CheckpointUID())
	}
	if err != nil {
		return from, err
	}
	// Where a pod has an fsGroup, the kubelet gave the copy to it.
	return from, errors.Join(directory.Chmod(0o700), directory.Close())
}

// removeCopy removes the sealed copy from the claim, as long as that is mounted here: with
// the pod it is out of reach.
func (a *agent) removeCopy(ctx context.Context, m *v1alpha1.PodMigration) error {
	reference := m.DestinationPod()
	if m.Status.CheckpointClaim == "" || reference == nil || reference.NodeName != a.node {
		return nil
	}
	pod, err := a.podHere(ctx, m.Namespace, reference)
	if err == nil {
		var root string
		if root, err = a.copiesRoot(m, pod); err == nil {
			err = removeBeneath(a.kubelet, path.Join(root, string(m.CheckpointUID())))
		}
	}
	if err != nil && !errors.Is(err, errNoProcess) {
		return fmt.Errorf("removing the sealed copy from claim %s: %w", m.Status.CheckpointClaim, err)
	}
	return nil
}
