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
// found while the original still works. claim is the volume of the checkpoint claim, of
// which the last of them mounts the directory of the node agents; "" where there is none.
func addGate(spec *corev1.PodSpec, image, claim string) {
	resources := gateResources(spec)
	spec.Volumes = append(spec.Volumes, corev1.Volume{
		Name: v1alpha1.GateVolumeName, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
	})
	own := func(name string, arguments ...string) corev1.Container {
		return corev1.Container{
			Name: name, Image: image, Args: append([]string{"gate"}, arguments...),
			SecurityContext: restricted(), Resources: *resources.DeepCopy(),
			VolumeMounts: []corev1.VolumeMount{{Name: v1alpha1.GateVolumeName, MountPath: v1alpha1.GateMountPath}},
		}
	}
	gate := []corev1.Container{own(v1alpha1.GateInstallContainer, "install", v1alpha1.GateMountPath)}
	seen := map[string]bool{image: true}
	eachContainer(spec, func(c *corev1.Container) {
		if !seen[c.Image] {
			seen[c.Image] = true
			gate = append(gate, warm(c, len(seen)-1, resources))
		}
	})
	wait := own(v1alpha1.GateContainer, "wait", path.Join(v1alpha1.GateMountPath, v1alpha1.GateOpenFile))
	if claim != "" {
		wait.VolumeMounts = append(wait.VolumeMounts, copiesOn(claim))
	}
	spec.InitContainers = slices.Concat(gate, []corev1.Container{wait}, spec.InitContainers)
}

// WithPullSecrets adds the Secrets by which an image of ours is pulled to those of a pod.
func WithPullSecrets(own []corev1.LocalObjectReference, names []string) []corev1.LocalObjectReference {
	all := slices.Clone(own)
	for _, name := range names {
		if secret := (corev1.LocalObjectReference{Name: name}); !slices.Contains(all, secret) {
			all = append(all, secret)
		}
	}
	return all
}

// warm runs our program in the image of a container, and ends at once.
func warm(c *corev1.Container, number int, resources corev1.ResourceRequirements) corev1.Container {
	return corev1.Container{
		Name: fmt.Sprintf("%s%d", v1alpha1.GateWarmContainerPrefix, number), Image: c.Image, ImagePullPolicy: c.ImagePullPolicy,
		Command: []string{gateProgram, "gate", "warm"}, SecurityContext: c.SecurityContext.DeepCopy(), Resources: *resources.DeepCopy(),
		VolumeMounts: []corev1.VolumeMount{{Name: v1alpha1.GateVolumeName, MountPath: v1alpha1.GateMountPath, ReadOnly: true}},
	}
}

// leastResources let a program of the node agent start and do little.
func leastResources() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi"),
	}
}

// gateResources are the CPU and memory of a container of the pod: of the one that may
// use the most memory. So the gate passes the quotas and limit ranges that the container
// passes, the pod keeps its quality of service, and, since init containers run before the
// others, it requests no more than without a gate. A container that has less than the
// gate needs is raised to that.
func gateResources(spec *corev1.PodSpec) corev1.ResourceRequirements {
	var of *corev1.Container
	for i := range spec.Containers {
		c := &spec.Containers[i]
		if of == nil || mostMemory(c, of) {
			of = c
		}
	}
	resources := corev1.ResourceRequirements{}
	if of == nil {
		return resources
	}
	least := leastResources()
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, requests := of.Resources.Requests[name]
		limit, limits := of.Resources.Limits[name]
		if limits && limit.Cmp(least[name]) < 0 && spec.Resources == nil {
			if requests && request.Cmp(limit) == 0 {
				request = least[name]
			}
			limit = least[name]
		}
		if requests {
			set(&resources.Requests, name, request)
		}
		if limits {
			set(&resources.Limits, name, limit)
		}
	}
	return resources
}

// mostMemory reports whether a container may use more memory than another one. Without
// a limit it may use all.
func mostMemory(c, than *corev1.Container) bool {
	limit, limited := c.Resources.Limits[corev1.ResourceMemory]
	other, otherLimited := than.Resources.Limits[corev1.ResourceMemory]
	if !limited || !otherLimited {
		return !limited && otherLimited
	}
	return limit.Cmp(other) > 0
}

func set(list *corev1.ResourceList, name corev1.ResourceName, amount resource.Quantity) {
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	(*list)[name] = amount.DeepCopy()
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
