package containers

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// autoscalerVolumesAnnotation is the cluster autoscaler's list of local
// volumes that a pod can do without.
const autoscalerVolumesAnnotation = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"

// staysBehind reports whether the content of a volume is bound to its node or
// to its pod, so that a replacement elsewhere does not see it.
func staysBehind(v *corev1.Volume) bool {
	return v.EmptyDir != nil || v.Ephemeral != nil || v.HostPath != nil || v.CSI != nil || v.GitRepo != nil ||
		// A volume without a source is an emptyDir (core/v1 defaulting).
		v.VolumeSource == (corev1.VolumeSource{})
}

// isInlineDisk reports whether a volume is a network disk named in the pod.
// Shared file systems (NFS, CephFS, Glusterfs, AzureFile, Quobyte) are none.
func isInlineDisk(v *corev1.Volume) bool {
	s := &v.VolumeSource
	return s.AWSElasticBlockStore != nil || s.AzureDisk != nil || s.Cinder != nil || s.FC != nil || s.FlexVolume != nil ||
		s.GCEPersistentDisk != nil || s.ISCSI != nil || s.PhotonPersistentDisk != nil || s.PortworxVolume != nil ||
		s.RBD != nil || s.ScaleIO != nil || s.StorageOS != nil || s.VsphereVolume != nil
}

// isOnlyRead reports whether no kept container can write to a claim's volume.
func isOnlyRead(pod *corev1.Pod, verdicts Verdicts, v *corev1.Volume) bool {
	return v.PersistentVolumeClaim.ReadOnly || !slices.ContainsFunc(verdicts.Containers, func(c v1alpha1.ContainerVerdict) bool {
		return c.ShouldMigrate && canWrite(pod, v, c.Name)
	})
}

func isMemory(v *corev1.Volume) bool {
	return v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory
}

func isHugePages(v *corev1.Volume) bool {
	return v.EmptyDir != nil && strings.HasPrefix(string(v.EmptyDir.Medium), string(corev1.StorageMediumHugePages))
}

// isEmptyDir counts a volume without a source too (core/v1 defaulting).
func isEmptyDir(v *corev1.Volume) bool {
	return v.EmptyDir != nil || v.VolumeSource == (corev1.VolumeSource{})
}

// isCarried reports whether the node agents carry the content of a volume.
func isCarried(pod *corev1.Pod, v *corev1.Volume, mode v1alpha1.CheckpointMode) bool {
	return mode.CarriesVolumes() && isEmptyDir(v) && !isHugePages(v) && v.Name != v1alpha1.GateVolumeName && !discardable(pod)[v.Name]
}

// mayLose reports whether the author of the migration gave up the content of a
// volume. An emptyDir in memory counts as scratch space, as it does for the
// cluster autoscaler, where nothing carries it.
func (v Verdicts) mayLose(volume *corev1.Volume) bool {
	return isEmptyDir(volume) && (v.Mode == v1alpha1.CheckpointNone || isMemory(volume))
}

// CarriedVolumes returns the names of the emptyDirs whose content is carried to
// the replacement, sorted: those that a container which moves mounts.
func CarriedVolumes(pod *corev1.Pod, v Verdicts) []string {
	var names []string
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		if isCarried(pod, volume, v.Mode) && userOf(pod, v, volume.Name) != "" {
			names = append(names, volume.Name)
		}
	}
	slices.Sort(names)
	return names
}

// productsLeftBehind returns the volumes that stay behind, to which the named
// container could write, and which a kept container uses.
func productsLeftBehind(pod *corev1.Pod, verdicts Verdicts, name string) []string {
	var lost []string
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if !staysBehind(v) || isCarried(pod, v, verdicts.Mode) || !canWrite(pod, v, name) {
			continue
		}
		usedByKept := slices.ContainsFunc(verdicts.Containers, func(c v1alpha1.ContainerVerdict) bool {
			return c.ShouldMigrate && c.Name != name && mounts(pod, v.Name, c.Name)
		})
		if usedByKept {
			lost = append(lost, v.Name)
		}
	}
	return lost
}

func mounts(pod *corev1.Pod, volume, container string) bool {
	c := containerOf(pod, container)
	return c != nil && slices.Contains(volumesOf(c), volume)
}

// volumesOf lists the volumes that a container mounts or opens as a device.
func volumesOf(c *corev1.Container) []string {
	var names []string
	for _, m := range c.VolumeMounts {
		names = append(names, m.Name)
	}
	for _, d := range c.VolumeDevices {
		names = append(names, d.Name)
	}
	return names
}

func canWrite(pod *corev1.Pod, v *corev1.Volume, container string) bool {
	if v.CSI != nil && v.CSI.ReadOnly != nil && *v.CSI.ReadOnly {
		return false
	}
	c := containerOf(pod, container)
	if c == nil {
		return false
	}
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name && !m.ReadOnly }) ||
		slices.ContainsFunc(c.VolumeDevices, func(d corev1.VolumeDevice) bool { return d.Name == v.Name })
}

func containerOf(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	return nil
}

// discardable returns the volumes that the author of the pod can do without.
func discardable(pod *corev1.Pod) map[string]bool {
	return namesIn(pod, v1alpha1.DiscardableVolumesAnnotation, autoscalerVolumesAnnotation)
}

// namesIn returns what the lists in annotations of a pod name.
func namesIn(pod *corev1.Pod, keys ...string) map[string]bool {
	names := map[string]bool{}
	for _, key := range keys {
		for _, name := range listOf(pod, key) {
			names[name] = true
		}
	}
	return names
}

// listOf returns the names in an annotation of a pod, as they are written.
func listOf(pod *corev1.Pod, key string) []string { return splitNames(pod.Annotations[key]) }

// splitNames reads names that are separated by commas.
func splitNames(text string) []string {
	var names []string
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// PreviousCheckpoint returns the name of the checkpoint claim that an earlier
// migration mounted into the pod; empty when there is none.
func PreviousCheckpoint(pod *corev1.Pod) string {
	if claim := pod.Annotations[v1alpha1.CheckpointClaimAnnotation]; hasCheckpoint(&pod.Spec, claim) {
		return claim
	}
	return ""
}

// MayLose reports whether the author of the pod can do without a volume.
func MayLose(pod *corev1.Pod, volume string) bool { return discardable(pod)[volume] }

func isCheckpointPath(mountPath string) bool {
	return path.Clean(mountPath) == v1alpha1.CheckpointMountPath
}
