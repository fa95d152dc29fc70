package containers

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// serviceAccountVolumePrefix marks the token volume that the ServiceAccount
// admission plugin adds to every pod, and adds anew to the replacement.
const serviceAccountVolumePrefix = "kube-api-access-"

// ReplacementOptions name what a replacement is bound to.
type ReplacementOptions struct {
	// Name of the replacement; empty for a pod that is only imagined.
	Name string
	// MigrationUID marks the migration that owns the replacement.
	MigrationUID types.UID
	// ClaimName is the checkpoint claim to mount; empty mounts none, for a pod
	// that is only imagined.
	ClaimName string
	// TargetNode is the only node allowed; empty allows every node but the source.
	TargetNode string
	// PlannedNode is the node that the scheduler prefers.
	PlannedNode string
	// GateImage is the image of the node agent, whose gate holds the containers
	// back until state is restored; empty for a pod that brings none.
	GateImage string
}

// BuildReplacement returns the pod that takes over from pod: the containers
// that the verdicts keep, the checkpoint claim mounted in each of them, never
// on the source node and never bound at birth. It fails when the verdicts
// refuse the pod or belong to another one. Verdicts read back from a status
// are judged by the caller: only their containers count here.
func BuildReplacement(pod *corev1.Pod, v Verdicts, o ReplacementOptions) (*corev1.Pod, error) {
	if v.Refusal != "" {
		return nil, fmt.Errorf("pod %s/%s cannot be moved: %s: %s", pod.Namespace, pod.Name, v.Refusal, v.Message)
	}
	if err := matchVerdicts(pod, v); err != nil {
		return nil, err
	}
	spec := stripped(pod, v)
	clearAssigned(spec)
	spec.SchedulerName = v1alpha1.SchedulerName
	spec.Affinity = moveAffinity(pod, o.TargetNode)
	if o.ClaimName != "" {
		mountCheckpoint(spec, o.ClaimName)
	}
	if o.GateImage != "" {
		addGate(spec, o.GateImage, pod.Status.QOSClass)
	}
	return &corev1.Pod{ObjectMeta: replacementMeta(pod, o), Spec: *spec}, nil
}

func matchVerdicts(pod *corev1.Pod, v Verdicts) error {
	judged := map[string]bool{}
	for _, c := range v.Containers {
		judged[c.Name] = true
	}
	keeps := false
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if !judged[c.Name] {
			return fmt.Errorf("pod %s/%s has container %s without a verdict", pod.Namespace, pod.Name, c.Name)
		}
	}
	for _, c := range pod.Spec.Containers {
		keeps = keeps || v.Keeps(c.Name)
	}
	if !keeps {
		return fmt.Errorf("pod %s/%s would keep no container", pod.Namespace, pod.Name)
	}
	return nil
}

// stripped returns the spec with the kept containers and what they use.
func stripped(pod *corev1.Pod, v Verdicts) *corev1.PodSpec {
	spec := pod.Spec.DeepCopy()
	drop := func(c corev1.Container) bool { return !v.Keeps(c.Name) }
	spec.InitContainers = slices.DeleteFunc(spec.InitContainers, drop)
	spec.Containers = slices.DeleteFunc(spec.Containers, drop)
	if len(spec.InitContainers) == 0 {
		spec.InitContainers = nil
	}
	spec.EphemeralContainers = nil
	spec.Resources = podLevelShare(&pod.Spec, spec)

	previous := PreviousCheckpoint(pod) != ""
	gone := func(volume string) bool {
		return strings.HasPrefix(volume, serviceAccountVolumePrefix) || previous && volume == v1alpha1.CheckpointVolumeName
	}
	used := map[string]bool{}
	devices := map[string]bool{}
	eachContainer(spec, func(c *corev1.Container) {
		c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return gone(m.Name) })
		for _, name := range volumesOf(c) {
			used[name] = true
		}
		for _, claim := range c.Resources.Claims {
			devices[claim.Name] = true
		}
	})
	usedBefore := map[string]bool{}
	eachContainer(&pod.Spec, func(c *corev1.Container) {
		for _, name := range volumesOf(c) {
			usedBefore[name] = true
		}
	})
	// A volume that no container ever used was not there for the stripped ones:
	// it stays, unless it is one that is made anew.
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(volume corev1.Volume) bool {
		return gone(volume.Name) || volume.Name == v1alpha1.GateVolumeName || usedBefore[volume.Name] && !used[volume.Name]
	})
	spec.ResourceClaims = slices.DeleteFunc(spec.ResourceClaims, func(r corev1.PodResourceClaim) bool { return !devices[r.Name] })
	return spec
}

// clearAssigned removes what the API server and the scheduler write. Priority
// is computed again from its class; a number that no longer matches the class
// would be refused.
func clearAssigned(spec *corev1.PodSpec) {
	spec.NodeName = ""
	spec.SchedulingGates = nil
	spec.Priority = nil
	spec.PreemptionPolicy = nil
}

func mountCheckpoint(spec *corev1.PodSpec, claim string) {
	spec.Volumes = append(spec.Volumes, corev1.Volume{
		Name: v1alpha1.CheckpointVolumeName,
		VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		},
	})
	eachContainer(spec, func(c *corev1.Container) {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{
			Name: v1alpha1.CheckpointVolumeName, MountPath: v1alpha1.CheckpointMountPath,
		})
	})
}

func eachContainer(spec *corev1.PodSpec, visit func(*corev1.Container)) {
	for i := range spec.InitContainers {
		visit(&spec.InitContainers[i])
	}
	for i := range spec.Containers {
		visit(&spec.Containers[i])
	}
}

// replacementMeta keeps the labels, so that Services go on matching, and the
// annotations. An owner that is no controller stays an owner: the replacement
// must go when it goes.
// annotationsOfTheOriginal say something of the original alone. Of those that
// network plugins write, some are read back: with them the replacement would
// be given the address that the original still has.
var annotationsOfTheOriginal = []string{
	// kubectl apply would read it as the replacement's.
	corev1.LastAppliedConfigAnnotation,
	"k8s.v1.cni.cncf.io/network-status",
	// OVN-Kubernetes and Kube-OVN read theirs back.
	"k8s.ovn.org/pod-networks",
	"ovn.kubernetes.io/allocated", "ovn.kubernetes.io/routed",
	"ovn.kubernetes.io/ip_address", "ovn.kubernetes.io/mac_address",
	"cni.projectcalico.org/containerID", "cni.projectcalico.org/podIP", "cni.projectcalico.org/podIPs",
}

func replacementMeta(pod *corev1.Pod, o ReplacementOptions) metav1.ObjectMeta {
	root := RootName(pod)
	meta := metav1.ObjectMeta{
		Namespace: pod.Namespace, Name: o.Name,
		Labels: map[string]string{}, Annotations: map[string]string{},
	}
	for key, value := range pod.Labels {
		meta.Labels[key] = value
	}
	for key, value := range pod.Annotations {
		meta.Annotations[key] = value
	}
	for _, owner := range pod.OwnerReferences {
		if owner.Controller == nil || !*owner.Controller {
			owner.BlockOwnerDeletion = nil
			meta.OwnerReferences = append(meta.OwnerReferences, owner)
		}
	}
	for _, key := range annotationsOfTheOriginal {
		delete(meta.Annotations, key)
	}

	// Our scheduler places every replacement, which is no consent to further
	// moves: a pod that has not opted in stays out of the loop's reach.
	if _, said := meta.Annotations[v1alpha1.ExcludeAnnotation]; !said && pod.Spec.SchedulerName != v1alpha1.SchedulerName {
		meta.Annotations[v1alpha1.ExcludeAnnotation] = "true"
	}

	meta.Labels[v1alpha1.OriginalPodLabel] = v1alpha1.LabelValue(root)
	meta.Annotations[v1alpha1.OriginalPodLabel] = root
	setOrDelete(meta.Labels, v1alpha1.MigrationUIDLabel, string(o.MigrationUID))
	for _, key := range marksOfEarlierMigrations {
		delete(meta.Annotations, key)
	}
	planned := o.TargetNode
	if planned == "" {
		planned = o.PlannedNode
	}
	setOrDelete(meta.Labels, v1alpha1.TargetNodeLabel, v1alpha1.LabelValue(planned))
	setOrDelete(meta.Annotations, v1alpha1.RequiredNodeAnnotation, o.TargetNode)
	setOrDelete(meta.Annotations, v1alpha1.SourceNodeAnnotation, pod.Spec.NodeName)
	setOrDelete(meta.Annotations, v1alpha1.CheckpointClaimAnnotation, o.ClaimName)
	setOrDelete(meta.Annotations, v1alpha1.OriginalUIDAnnotation, string(pod.UID))
	return meta
}

// marksOfEarlierMigrations say something of one migration of the original.
var marksOfEarlierMigrations = []string{v1alpha1.FencedAnnotation, v1alpha1.ReleasedAnnotation, corev1.PodDeletionCost}

func setOrDelete(values map[string]string, key, value string) {
	if value == "" {
		delete(values, key)
		return
	}
	values[key] = value
}
