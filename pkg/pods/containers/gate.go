package containers

import (
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// gateProgram is where the gate's containers find their program: the first of
// them puts it there, so that it runs in images that hold nothing else.
const gateProgram = v1alpha1.GateMountPath + "/node-agent"

// gateUser is a user that is not root, with no rights anywhere.
const gateUser = 65532

// addGate puts init containers before all others that hold the replacement back
// until its state is restored. Meanwhile they have every image pulled, by the
// kubelet and with the pod's own secrets: an image that cannot be pulled is
// found while the original still works.
func addGate(spec *corev1.PodSpec, image string, qos corev1.PodQOSClass) {
	spec.Volumes = append(spec.Volumes, corev1.Volume{
		Name: v1alpha1.GateVolumeName, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
	})
	own := func(name string, arguments ...string) corev1.Container {
		return corev1.Container{
			Name: name, Image: image, Args: append([]string{"gate"}, arguments...),
			SecurityContext: restricted(), Resources: gateResources(qos),
			VolumeMounts: []corev1.VolumeMount{{Name: v1alpha1.GateVolumeName, MountPath: v1alpha1.GateMountPath}},
		}
	}
	gate := []corev1.Container{own(v1alpha1.GateInstallContainer, "install", v1alpha1.GateMountPath)}
	seen := map[string]bool{image: true}
	eachContainer(spec, func(c *corev1.Container) {
		if !seen[c.Image] {
			seen[c.Image] = true
			gate = append(gate, warm(c, len(seen)-1, qos))
		}
	})
	wait := own(v1alpha1.GateContainer, "wait", path.Join(v1alpha1.GateMountPath, v1alpha1.GateOpenFile))
	wait.VolumeMounts = append(wait.VolumeMounts, corev1.VolumeMount{Name: v1alpha1.CheckpointVolumeName, MountPath: v1alpha1.CheckpointMountPath})
	spec.InitContainers = slices.Concat(gate, []corev1.Container{wait}, spec.InitContainers)
}

// warm runs our program in the image of a container, and ends at once.
func warm(c *corev1.Container, number int, qos corev1.PodQOSClass) corev1.Container {
	return corev1.Container{
		Name: fmt.Sprintf("%s%d", v1alpha1.GateWarmContainerPrefix, number), Image: c.Image, ImagePullPolicy: c.ImagePullPolicy,
		Command: []string{gateProgram, "gate", "warm"}, SecurityContext: c.SecurityContext.DeepCopy(), Resources: gateResources(qos),
		VolumeMounts: []corev1.VolumeMount{{Name: v1alpha1.GateVolumeName, MountPath: v1alpha1.GateMountPath, ReadOnly: true}},
	}
}

// gateResources keep the quality of service of the pod. Init containers need
// no room beside the containers that come after them.
func gateResources(qos corev1.PodQOSClass) corev1.ResourceRequirements {
	small := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi"),
	}
	switch qos {
	case corev1.PodQOSGuaranteed:
		return corev1.ResourceRequirements{Requests: small, Limits: small.DeepCopy()}
	case corev1.PodQOSBurstable:
		return corev1.ResourceRequirements{Requests: small}
	}
	return corev1.ResourceRequirements{}
}

// restricted is what Pod Security Standards demand at most.
func restricted() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		RunAsNonRoot: new(true), RunAsUser: new(int64(gateUser)), RunAsGroup: new(int64(gateUser)),
		AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}
