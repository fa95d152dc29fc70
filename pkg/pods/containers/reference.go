package containers

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// referenced refuses when a kept container refers to the resources of one
// that is left out: the kubelet does not start a container whose reference leads
// nowhere.
func referenced(pod *corev1.Pod, v Verdicts) *Refusal {
	refuse := func(reader, through, name string) *Refusal {
		return &Refusal{RefusalReferenced, fmt.Sprintf("container %s refers to the resources of container %s through %s, and %s would be left out", reader, name, through, name)}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if !v.Keeps(c.Name) {
			continue
		}
		for _, env := range c.Env {
			if env.ValueFrom != nil && isStrippedReference(env.ValueFrom.ResourceFieldRef, v) {
				return refuse(c.Name, "variable "+env.Name, env.ValueFrom.ResourceFieldRef.ContainerName)
			}
		}
	}
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		user := userOf(pod, v, volume.Name)
		for _, file := range downwardFiles(volume) {
			if user != "" && isStrippedReference(file.ResourceFieldRef, v) {
				return refuse(user, "volume "+volume.Name, file.ResourceFieldRef.ContainerName)
			}
		}
	}
	return nil
}

func isStrippedReference(ref *corev1.ResourceFieldSelector, v Verdicts) bool {
	return ref != nil && ref.ContainerName != "" && !v.Keeps(ref.ContainerName)
}

// downwardFiles lists what a volume shows of its pod.
func downwardFiles(volume *corev1.Volume) []corev1.DownwardAPIVolumeFile {
	var files []corev1.DownwardAPIVolumeFile
	if volume.DownwardAPI != nil {
		files = append(files, volume.DownwardAPI.Items...)
	}
	if volume.Projected != nil {
		for _, source := range volume.Projected.Sources {
			if source.DownwardAPI != nil {
				files = append(files, source.DownwardAPI.Items...)
			}
		}
	}
	return files
}
