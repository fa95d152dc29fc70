package containers

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// mountClaims gives a replacement its checkpoint claims, and returns the volume of the one
// that the migration writes to; "" where there is none. One that the pod has already is
// mounted as it was. Where that is another one, which the application goes on using, the
// containers do not see the one of the migration.
func mountClaims(spec *corev1.PodSpec, o ReplacementOptions) (volume string) {
	if o.PreviousClaim != "" && !hasCheckpoint(spec, o.PreviousClaim) {
		mountCheckpoint(spec, o.PreviousClaim)
	}
	switch {
	case o.ClaimName == "":
		return ""
	case hasCheckpoint(spec, o.ClaimName):
	case o.PreviousClaim != "":
		spec.Volumes = append(spec.Volumes, claimVolume(v1alpha1.CopyVolumeName, o.ClaimName))
		return v1alpha1.CopyVolumeName
	default:
		mountCheckpoint(spec, o.ClaimName)
	}
	return v1alpha1.CheckpointVolumeName
}

// mountCheckpoint shows a claim to all containers, but for the directory of the node agents.
func mountCheckpoint(spec *corev1.PodSpec, claim string) {
	spec.Volumes = append(spec.Volumes, claimVolume(v1alpha1.CheckpointVolumeName, claim))
	eachContainer(spec, func(c *corev1.Container) {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{
			Name: v1alpha1.CheckpointVolumeName, MountPath: v1alpha1.CheckpointMountPath, SubPath: v1alpha1.ApplicationDirectory,
		})
	})
}

// HoldClaim makes a placeholder mount the checkpoint claim, so that the scheduler brings it
// to the node where the place is, and the kubelet mounts it there for the node agent.
func HoldClaim(placeholder *corev1.Pod, claim string) {
	spec := &placeholder.Spec
	spec.Volumes = append(spec.Volumes, claimVolume(v1alpha1.CheckpointVolumeName, claim))
	spec.Containers[0].VolumeMounts = append(spec.Containers[0].VolumeMounts, copiesOn(v1alpha1.CheckpointVolumeName))
}

// copiesOn mounts the directory of the node agents on a claim, for a container of ours that
// does nothing with it: for a subPath the kubelet makes a mount in the directory of the pod
// (volume-subpaths), where the node agent finds it, whatever the driver of the volume.
func copiesOn(volume string) corev1.VolumeMount {
	return corev1.VolumeMount{Name: volume, MountPath: v1alpha1.CheckpointMountPath, SubPath: v1alpha1.SealedCopyDirectory, ReadOnly: true}
}

func claimVolume(name, claim string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
	}}
}
