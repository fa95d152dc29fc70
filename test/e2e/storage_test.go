//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// smallVolume is a volume for all nodes that says it has 1 GiB and has megabytes, as one
// whose file system others share may. It returns its storage class, which is its own.
func smallVolume(t testing.TB, megabytes int64) string {
	t.Helper()
	directory := t.TempDir()
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, megabytes<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", disk)
	device := run(t, "losetup", "--find", "--show", disk)
	t.Cleanup(func() { run(t, "losetup", "--detach", device) })
	mountOnNodes(t, directory, device)
	return volumeAt(t, directory)
}

// mountOnNodes mounts something at a directory of every node, each for itself.
func mountOnNodes(t testing.TB, directory string, what ...string) {
	t.Helper()
	for _, node := range env.nodes {
		inNode(t, node, slices.Concat([]string{"mount"}, what, []string{directory})...)
		t.Cleanup(func() { inNode(t, node, "umount", "--lazy", directory) })
	}
}

// volumeAt makes a volume of a directory that all nodes have, which says that it has 1
// GiB, and returns its storage class, which is its own.
func volumeAt(t testing.TB, directory string) string {
	t.Helper()
	name := "volume-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName: name, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadWriteMany},
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: directory}},
		},
	}
	create(t, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: "kubernetes.io/no-provisioner"})
	create(t, volume)
	return name
}

// inNode runs a program in the mount namespace of a node.
func inNode(t testing.TB, node string, command ...string) {
	t.Helper()
	processes, err := env.cluster.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		if strings.Contains(p.Name, node) && strings.Contains(p.Name, "kubelet") {
			run(t, append([]string{"nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", p.PID)}, command...)...)
			return
		}
	}
	t.Fatalf("node %s has no kubelet among %v", node, processes)
}

func run(t testing.TB, command ...string) string {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}
