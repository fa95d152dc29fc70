package containers

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/reclaimed"
)

// serviceAccountVolumePrefix marks the token volume that the ServiceAccount
// admission plugin adds to every pod, and adds anew to the replacement.
const serviceAccountVolumePrefix = "kube-api-access-"

// ReplacementOptions name what a replacement is bound to.
type ReplacementOptions struct {
	// Name of the replacement; empty for a pod that is only imagined. Nothing is added to
	// that one at its creation, so it keeps what the API server added to the original.
	Name string
	// MigrationUID marks the migration that owns the replacement.
	MigrationUID types.UID
	// ClaimName is the checkpoint claim to mount; empty where the migration has none.
	ClaimName string
	// PreviousClaim is the checkpoint claim of an earlier migration that stays a volume of
	// the pod; empty where there is none, or where it is ClaimName.
	PreviousClaim string
	// TargetNode is the only node allowed; empty allows every node but the source.
	TargetNode string
	// PlannedNode is the node that the scheduler prefers.
	PlannedNode string
	// GateImage is the image of the node agent, whose gate holds the containers
	// back until state is restored; empty for a pod that brings none.
	GateImage string
	// PullSecrets are named beside those of the pod where GateImage is, to pull it.
	PullSecrets []string
	// WaitForOriginal keeps the replacement out of the scheduler's queue until
	// WaitForOriginalGate is taken from it.
	WaitForOriginal bool
	// DropAnnotationPrefixes are those of annotations that say something of the original
	// alone, beside the known ones.
	DropAnnotationPrefixes []string
	// SourceNode, OriginalUID and Root are those of the original. BuildReplacement
	// takes them from the pod, Rewrite does not see that.
	SourceNode  string
	OriginalUID types.UID
	// Root is the RootName of the original.
	Root string
	// Images are those of the original's containers, by name, where they are
	// known: Rewrite refuses a pod with others.
	Images map[string]string
}

// BuildReplacement returns the pod that takes over from pod: the containers
// that the verdicts keep, the checkpoint claim mounted in each of them where there
// is one, never on the source node and never bound at birth. It fails when the verdicts
// refuse the pod or belong to another one. Verdicts read back from a status
// are judged by the caller: only their containers count here.
func BuildReplacement(pod *corev1.Pod, v Verdicts, o ReplacementOptions) (*corev1.Pod, error) {
	if v.Refusal != "" {
		return nil, fmt.Errorf("pod %s/%s cannot be moved: %s: %s", pod.Namespace, pod.Name, v.Refusal, v.Message)
	}
	if err := matchVerdicts(pod, v); err != nil {
		return nil, err
	}
	// A container that moves is one that works: it requests what its author said,
	// whatever was taken from it in place.
	pod, err := reclaimed.Original(pod)
	if err != nil {
		return nil, err
	}
	o.SourceNode, o.OriginalUID, o.Root = pod.Spec.NodeName, pod.UID, RootName(pod)
	spec := stripped(pod, v, recreated(pod, o))
	clearAssigned(spec)
	if o.Name != "" {
		clearAdmitted(spec, pod.Labels)
	}
	replacement := &corev1.Pod{ObjectMeta: inheritedMeta(pod, o), Spec: *spec}
	takeOver(replacement, pod, v, o)
	return replacement, nil
}

// takeOver makes a pod, of which the containers that stay behind are gone, the
// replacement: with the checkpoint, the gates, the place and the marks. It has
// everything else from the pod that it was made of.
func takeOver(replacement, of *corev1.Pod, v Verdicts, o ReplacementOptions) {
	spec := &replacement.Spec
	markReplacement(&replacement.ObjectMeta, of, v, o)
	dropMarksOfStripped(replacement.Annotations, v)
	spec.Affinity = moveAffinity(spec.Affinity, of, o.SourceNode, o.TargetNode)
	spec.SchedulerName = v1alpha1.SchedulerName
	if o.WaitForOriginal {
		spec.SchedulingGates = append(spec.SchedulingGates, corev1.PodSchedulingGate{Name: v1alpha1.WaitForOriginalGate})
	}
	claim := mountClaims(spec, o)
	if o.GateImage != "" {
		addGate(spec, o.GateImage, claim)
		spec.ImagePullSecrets = WithPullSecrets(spec.ImagePullSecrets, o.PullSecrets)
	}
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

// stripped returns the spec with the kept containers and what they use, without
// the volumes that are gone.
func stripped(pod *corev1.Pod, v Verdicts, gone func(volume string) bool) *corev1.PodSpec {
	spec := pod.Spec.DeepCopy()
	drop := func(c corev1.Container) bool { return !v.Keeps(c.Name) }
	spec.InitContainers = slices.DeleteFunc(spec.InitContainers, drop)
	spec.Containers = slices.DeleteFunc(spec.Containers, drop)
	if len(spec.InitContainers) == 0 {
		spec.InitContainers = nil
	}
	spec.EphemeralContainers = nil
	spec.Resources = PodLevelShare(&pod.Spec, spec)

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
	// it stays, unless it is one that is recreated.
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(volume corev1.Volume) bool {
		return gone(volume.Name) || volume.Name == v1alpha1.GateVolumeName || usedBefore[volume.Name] && !used[volume.Name]
	})
	spec.ResourceClaims = slices.DeleteFunc(spec.ResourceClaims, func(r corev1.PodResourceClaim) bool { return !devices[r.Name] })
	return spec
}

// recreated reports which volumes of an original the replacement does not take over: the
// token, and the claim of an earlier migration that it is not to have. One that only the
// gate of the original mounted goes with that.
func recreated(pod *corev1.Pod, o ReplacementOptions) func(volume string) bool {
	previous := PreviousCheckpoint(pod)
	isDropped := previous != "" && previous != o.ClaimName && previous != o.PreviousClaim
	return func(volume string) bool {
		return strings.HasPrefix(volume, serviceAccountVolumePrefix) || isDropped && volume == v1alpha1.CheckpointVolumeName
	}
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

// hasCheckpoint reports whether a pod brings the checkpoint claim along: from an earlier
// migration, or, in mode Application, where its author wants it.
func hasCheckpoint(spec *corev1.PodSpec, claim string) bool {
	return slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == v1alpha1.CheckpointVolumeName && isClaim(v, claim) })
}

func isClaim(volume corev1.Volume, claim string) bool {
	return volume.PersistentVolumeClaim != nil && volume.PersistentVolumeClaim.ClaimName == claim
}

func eachContainer(spec *corev1.PodSpec, visit func(*corev1.Container)) {
	for i := range spec.InitContainers {
		visit(&spec.InitContainers[i])
	}
	for i := range spec.Containers {
		visit(&spec.Containers[i])
	}
}

// inheritedMeta keeps the labels, so that Services continue to match, and the
// annotations. An owner that is no controller stays an owner: the replacement
// must go when it goes.
func inheritedMeta(pod *corev1.Pod, o ReplacementOptions) metav1.ObjectMeta {
	meta := metav1.ObjectMeta{
		Namespace: pod.Namespace, Name: o.Name,
		Labels: map[string]string{}, Annotations: map[string]string{},
	}
	maps.Copy(meta.Labels, pod.Labels)
	maps.Copy(meta.Annotations, pod.Annotations)
	for _, owner := range pod.OwnerReferences {
		if owner.Controller == nil || !*owner.Controller {
			owner.BlockOwnerDeletion = nil
			meta.OwnerReferences = append(meta.OwnerReferences, owner)
		}
	}
	dropMarks(&meta, o.DropAnnotationPrefixes)
	for _, key := range marksOfEarlierMigrations {
		delete(meta.Annotations, key)
	}
	return meta
}

// markReplacement writes what the scheduler, the controller and people read.
func markReplacement(meta *metav1.ObjectMeta, of *corev1.Pod, v Verdicts, o ReplacementOptions) {
	if meta.Labels == nil {
		meta.Labels = map[string]string{}
	}
	if meta.Annotations == nil {
		meta.Annotations = map[string]string{}
	}
	// Our scheduler places every replacement, which is no consent to further
	// moves: a pod that has not opted in stays out of the loop's reach.
	if _, said := meta.Annotations[v1alpha1.ExcludeAnnotation]; !said && of.Spec.SchedulerName != v1alpha1.SchedulerName {
		meta.Annotations[v1alpha1.ExcludeAnnotation] = "true"
	}
	planned := o.TargetNode
	if planned == "" {
		planned = o.PlannedNode
	}
	setOrDelete(meta.Labels, v1alpha1.OriginalPodLabel, v1alpha1.LabelValue(o.Root))
	setOrDelete(meta.Annotations, v1alpha1.OriginalPodLabel, o.Root)
	setOrDelete(meta.Labels, v1alpha1.MigrationUIDLabel, string(o.MigrationUID))
	setOrDelete(meta.Labels, v1alpha1.TargetNodeLabel, v1alpha1.LabelValue(planned))
	setOrDelete(meta.Annotations, v1alpha1.RequiredNodeAnnotation, o.TargetNode)
	setOrDelete(meta.Annotations, v1alpha1.SourceNodeAnnotation, o.SourceNode)
	setOrDelete(meta.Annotations, v1alpha1.CheckpointClaimAnnotation, cmp.Or(o.PreviousClaim, o.ClaimName))
	setOrDelete(meta.Annotations, v1alpha1.OriginalUIDAnnotation, string(o.OriginalUID))
	if metav1.GetControllerOf(of) != nil {
		setOrDelete(meta.Annotations, LeftOutAnnotation, leftOut(of, v))
	}
}

// marksOfEarlierMigrations say something of one migration of the original.
var marksOfEarlierMigrations = []string{v1alpha1.RollbackBarrierAnnotation, v1alpha1.ReleasedAnnotation, corev1.PodDeletionCost}

func setOrDelete(values map[string]string, key, value string) {
	if value == "" {
		delete(values, key)
		return
	}
	values[key] = value
}
